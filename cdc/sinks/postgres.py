"""Write source transactions into the mapped tables of a PostgreSQL database.

One target transaction holds the rows of many whole source transactions and the position, so a crash at any
point leaves both or neither. A large source transaction comes in pieces: the target transaction stays open over
them, each piece is a savepoint in it, and the position is written with the last.

Changes are first folded per key (`cdc.coalesce`). A handful of rows travels as the parameters of prepared
statements in one pipelined round trip; more are COPYed into temporary tables that have the source's column
types. Either way the mapping's expressions turn them into target rows inside PostgreSQL; no value becomes a
Python value.

Commits do not wait for the disk (`synchronous_commit=off`): a crash of the target may lose the last ones, but
rows and position go together, and the source is told to forget only what `durable` says is on disk. The rule:

    position P was committed before the target's log ended at W;  log flushed up to F ≥ W  ⇒  P is durable.

Where the target waits for standbys, commits stay synchronous: the disk of one machine is not all that counts.

When the target refuses a folded batch (a unique value that moved between rows, a foreign key that is
checked at once), the batch is applied again one change at a time in source order. Only if that fails too
does the stream stop, with the table, the key and the position of the change that cannot be written; or, when the
plan wants that, the change is parked and its key waits (`cdc.parked`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import pq

from cdc import schema, statements
from cdc.changes import Lsn, Relation, TableName, Transaction
from cdc.coalesce import KeyUnknownError, Step, coalesce
from cdc.mapping import Mapping
from cdc.parked import Parting
from cdc.seams import StreamError
from cdc.sessions import failure
from cdc.sinks.inline import inline
from cdc.sinks.onebyone import OneByOne
from cdc.sinks.parking import Parking
from cdc.sinks.plans import (
    ApplyError,
    Plan,
    RowMissingError,
    explain_deferred,
    make_plan,
    passes,
)
from cdc.sinks.position import Move, prepared, written_out
from cdc.sinks.roundtrip import Bound, RoundTrips
from cdc.sinks.script import Script, Statement
from cdc.sinks.session import open_session
from cdc.sinks.staged import staged
from cdc.statements import MissingValueError

__all__ = ["ApplyError", "LostPositionError", "PostgresSink"]

_FEW_ROWS = 32  # up to here prepared statements are faster than COPY with its temporary tables (measured)
_WHOLE = ("BEGIN", "COMMIT")
_PIECE = ("SAVEPOINT strangler_piece", "RELEASE SAVEPOINT strangler_piece")
_UNDO_PIECE = b"ROLLBACK TO SAVEPOINT strangler_piece; RELEASE SAVEPOINT strangler_piece"
_WITHIN = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class LostPositionError(StreamError):
    """The stored position is not the one this process wrote: somebody else wrote it."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A batch that was folded and encoded before its turn. `statements` None: it is too small for that, or a plan
    is still to be made.
    """

    transactions: Sequence[Transaction]
    steps: list[Step]
    statements: list[Statement] | None


@dataclass(slots=True)
class _Open:
    """A target transaction that waits for the rest of a source transaction. `plans` were made within it."""

    xid: int
    transactions: int = 0
    changes: int = 0
    plans: list[Relation] = field(default_factory=list)


class PostgresSink:
    """One stream's way into its target. Holds a lock: there is one such sink a stream."""

    def __init__(
        self,
        dsn: str,
        *,
        stream: str,
        mapping: Mapping,
        max_parked: int | None = None,
        applier: bool = True,
    ) -> None:
        """Connect. `max_parked`: keys that may be parked, None when a refused change shall stop the stream.
        `applier=False` takes no lock: such a sink can only `replay`.

        Raises psycopg.OperationalError, or AlreadyRunningError when the stream has an applier.
        """
        self._stream = stream
        self._mapping = mapping
        self._keys = {table.source: tuple(part.source for part in table.key) for table in mapping.tables}
        self._plans: dict[Relation, Plan] = {}
        self._numbers = 0
        session = open_session(dsn, stream=stream, applier=applier)
        self._connection = session.connection
        self.replica_role = session.replica_role
        self._asynchronous = session.asynchronous
        self._position: Lsn | None = None
        self._durable: Lsn | None = None
        self._marked: tuple[Lsn, Lsn] | None = (
            None  # a position, and an end of the target's log after its commit
        )
        self._open: _Open | None = None
        self._ahead: _Ahead | None = None
        self._few = RoundTrips(self._connection)
        self._one_by_one = OneByOne(self._connection, self._few, mapping, plans=self._plans, keys=self._keys)
        self._parking = (
            None
            if max_parked is None
            else Parking(self._connection, stream=stream, keys=self._keys, max_keys=max_parked)
        )

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The session, for what belongs into the same transaction (the snapshot)."""
        return self._connection

    def position(self) -> Lsn | None:
        """The stored position, None when the target was never filled."""
        row = self._connection.execute(
            "SELECT lsn::text FROM strangler_cdc.position WHERE stream = $1", [self._stream]
        ).fetchone()
        self._position = Lsn.parse(row[0]) if row else None
        return self._position

    def durable(self) -> Lsn | None:
        """The position that a crash of the target cannot take back. Grows by being asked: a position is marked
        with the end of the target's log by one call and found to be flushed by a later one.
        """
        if self._position is None or self._durable == self._position:
            return self._durable
        if not self._asynchronous:
            self._durable = self._position
            return self._durable
        row = self._connection.execute(
            "SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_insert_lsn()::text"
        ).fetchone()
        assert row is not None
        flushed, end = map(Lsn.parse, row)
        if self._marked is not None and flushed >= self._marked[1]:
            self._durable, self._marked = self._marked[0], None
        if self._marked is None and self._durable != self._position:
            self._marked = (self._position, end)
        return self._durable

    def copied(self) -> frozenset[TableName] | None:
        """The source tables that the snapshot copied; None when that is not known."""
        row = self._connection.execute(
            "SELECT tables FROM strangler_cdc.position WHERE stream = $1", [self._stream]
        ).fetchone()
        return None if row is None or row[0] is None else frozenset(map(TableName.parse, row[0]))

    def apply(
        self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Write `transactions` and the position after the last one; when that one goes on, keep the target
        transaction open. Raises ApplyError, psycopg.OperationalError; what was not committed is then undone.

        What came before the transaction that an ApplyError names is stored all the same: after a repair of the
        mapping the stream begins at that transaction, and the earlier ones may not fit the new mapping.

        `meanwhile` is called while the target works on many rows. An exception of it is raised here when the target
        has answered.
        """
        begins_whole = self._open is None
        try:
            self._store(transactions, meanwhile)
        except ApplyError as error:
            if not begins_whole:
                raise
            before = [
                each for each in transactions if error.position is not None and each.position < error.position
            ]
            if before and not before[-1].more:
                self.apply(before)
            raise

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        """Fold and encode what comes next. What is wrong with it is found anew, and told, by `apply`."""
        self._ahead = None
        if self._parking is not None and self._parking.holds_any():
            return  # what of it has to wait is known when the batch before it is stored
        try:
            steps = self._fold(transactions)
            planned = all(work.relation in self._plans for step in steps for work in step)
            many = planned and not _few(steps)
            statements = staged(steps, self._plans, self._mapping.order) if many else None
        except (KeyUnknownError, MissingValueError):
            return
        self._ahead = _Ahead(transactions, steps, statements)

    def _store(
        self, transactions: Sequence[Transaction], meanwhile: Callable[[], None] | None = None
    ) -> None:
        parking = self._parking
        if parking is not None and self._open is None:
            parking.enter()
        try:
            if self._open is None and not transactions[-1].more:
                self._apply(transactions, meanwhile)
            else:
                self._apply_piece(transactions, meanwhile)
        except BaseException:
            self._ahead = None
            self._forget()
            if parking is not None:
                parking.forget()
            raise
        if not transactions[-1].more:
            self._position = transactions[-1].position
            if parking is not None:
                parking.leave()

    def forget_parked(self) -> None:
        """A snapshot is to be taken, which makes every key good: nothing waits any more."""
        if schema.complete(self._connection):
            self._connection.execute("DELETE FROM strangler_cdc.parked WHERE stream = $1", [self._stream])

    def learn_sizes(self) -> None:
        """The target was filled in one transaction, during which the server may have taken its tables for empty: its
        readers' first plans would be made for that. Changes nothing where the role may not, or somebody is at it.
        """
        for table in self._mapping.tables:
            self._run(f"ANALYZE (SKIP_LOCKED) {table.target.sql}")

    def waiting(self) -> bool:
        """Whether any key is parked. Costs nothing while none ever was."""
        if self._parking is None:
            return False
        self._parking.enter()
        self._parking.leave()
        return self._parking.any

    def park_only(self, parks: Callable[[str | None], bool]) -> None:
        """Park refusals with such an SQLSTATE; any other stops the stream."""
        self._one_by_one.parks = parks

    def forget_plans(self) -> None:
        """A transaction of the caller's was undone, and the tables staged within it are gone."""
        self._plans.clear()
        self._ahead = None

    def replay(self, transactions: Sequence[Transaction]) -> None:
        """Write the changes of `transactions` again; no position is stored. Raises as `apply` does."""
        self._apply([replace(transaction, more=True) for transaction in transactions])

    def _apply_piece(self, transactions: Sequence[Transaction], meanwhile: Callable[[], None] | None) -> None:
        opened = self._open
        if opened is None:
            self._connection.execute("BEGIN")
            opened = self._open = _Open(transactions[-1].xid)
        elif transactions[0].xid != opened.xid:
            raise StreamError(
                f"transaction {opened.xid} was to go on, but transaction {transactions[0].xid} came: the source "
                "broke off; nothing of it is stored, start the stream again"
            )
        self._apply(transactions, meanwhile)
        last = transactions[-1]
        if last.more:
            opened.xid = last.xid
            opened.transactions += sum(not transaction.more for transaction in transactions)
            opened.changes += sum(len(transaction.changes) for transaction in transactions)
            return
        try:
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            if passes(error):
                raise
            # a deferred constraint; which of the rows it was can no longer be tried out
            raise explain_deferred(error, self._mapping, position=last.position) from error
        self._open = None

    def _forget(self) -> None:
        """Undo the open transaction; the tables staged within it go with it."""
        opened, self._open = self._open, None
        if opened is None:
            return
        for relation in opened.plans:
            self._plans.pop(relation, None)
        if self._connection.pgconn.transaction_status in _WITHIN:
            self._connection.rollback()

    def _apply(
        self, transactions: Sequence[Transaction], meanwhile: Callable[[], None] | None = None
    ) -> None:
        parting = None if self._parking is None else self._parking.parting()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.transactions is not transactions or (parting and parting.blocked)):
            ahead = None
        try:
            going = transactions if parting is None else parting.divide(transactions)
            steps = self._fold(going) if ahead is None else ahead.steps
        except KeyUnknownError as error:
            raise ApplyError(
                error.reason,
                table=error.table,
                position=self._first_without_key(transactions),
                remedy="the columns under key must be the replica identity of the source table",
            ) from error
        self._plan_all(steps, transactions)
        try:
            if _few(steps):
                self._write_few(inline(steps, self._plans, self._mapping.order), going, parting)
            else:
                body = None if ahead is None else ahead.statements
                body = staged(steps, self._plans, self._mapping.order) if body is None else body
                self._write_many(body, going, parting, meanwhile)
        except (psycopg.Error, MissingValueError, RowMissingError) as error:
            if passes(error):
                raise
            self._ahead = None  # it may be changed by what is parked now
            self._refuse_another_writer(error)
            parting = self._write_one_by_one(transactions)
        if self._parking is not None and parting is not None:
            self._parking.adopt(parting)

    def _fold(self, transactions: Sequence[Transaction]) -> list[Step]:
        return coalesce(
            [change for transaction in transactions for change in transaction.changes], self._keys
        )

    def advance(self, position: Lsn) -> None:
        """Store that nothing happened up to `position`."""
        assert self._open is None, "the position is stored with the last piece of a transaction"
        try:
            self._few.run([prepared(self._move(position))])
        except psycopg.errors.DivisionByZero as error:
            self._refuse_another_writer(error)
            raise
        self._position = position

    def close(self) -> None:
        """Close the session; its lock and temporary tables go with it."""
        self._connection.close()

    def _write_few(
        self, body: Sequence[Bound], transactions: Sequence[Transaction], parting: Parting | None
    ) -> None:
        deferred = [Bound(statement.sql) for statement in self._deferred()]
        if parting is not None and (parting.parked or parting.wiped):
            with self._connection.transaction():
                self._few.run([*deferred, *body])
                self._count(transactions, parting)
            return
        begin, end = brackets = self._brackets()
        move = self._move_after(transactions)
        stored = [] if move is None else [prepared(move)]
        try:
            self._few.run([Bound(begin), *deferred, *body, *stored, Bound(end)])
        except psycopg.Error:
            self._undo(brackets)
            raise

    def _write_many(
        self,
        body: Sequence[Statement],
        transactions: Sequence[Transaction],
        parting: Parting | None,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        statements = [*self._deferred(), *body]
        if parting is not None and (parting.parked or parting.wiped):
            with self._connection.transaction():
                script = Script(self._connection, statements)
                script.send()
                script.finish()
                self._count(transactions, parting)
            return
        begin, end = brackets = self._brackets()
        move = self._move_after(transactions)
        stored = [] if move is None else [Statement(written_out(move))]
        script = Script(self._connection, [Statement(begin), *statements, *stored, Statement(end)])
        try:
            script.send()
            try:
                if meanwhile is not None:
                    meanwhile()
            finally:
                script.finish()
        except psycopg.Error:
            self._undo(brackets)
            raise

    def _brackets(self) -> tuple[str, str]:
        """What makes a whole of several statements: a transaction, or within one (a piece, a caller's) a savepoint."""
        return _PIECE if self._connection.pgconn.transaction_status in _WITHIN else _WHOLE

    def _undo(self, brackets: tuple[str, str]) -> None:
        """After statements between `brackets` that failed half way."""
        if self._connection.pgconn.transaction_status not in _WITHIN:
            return
        if brackets is _WHOLE:
            self._connection.rollback()
            return
        undone = self._connection.pgconn.exec_(_UNDO_PIECE)
        if undone.status != pq.ExecStatus.COMMAND_OK:
            raise failure(undone)

    def _write_one_by_one(self, transactions: Sequence[Transaction]) -> Parting | None:
        with self._connection.transaction():
            self._defer()
            parting = self._one_by_one.write(
                transactions, parking=self._parking, deferred=not self.replica_role
            )
            self._count(transactions, parting)
        return parting

    def _defer(self) -> None:
        for statement in self._deferred():
            self._run(statement.sql)

    def _deferred(self) -> list[Statement]:
        return [] if self.replica_role else [Statement("SET CONSTRAINTS ALL DEFERRED")]

    def _count(self, transactions: Sequence[Transaction], parting: Parting | None) -> None:
        if self._parking is not None and parting is not None:
            self._parking.store(parting)
        move = self._move_after(transactions)
        if move is not None:
            self._few.run([prepared(move)])

    def _move_after(self, transactions: Sequence[Transaction]) -> Move | None:
        last = transactions[-1]
        if last.more:
            return None
        ended = sum(not transaction.more for transaction in transactions)
        changes = sum(len(transaction.changes) for transaction in transactions)
        if self._open is not None:
            ended += self._open.transactions
            changes += self._open.changes
        return replace(
            self._move(last.position), commit_time=last.commit_time, transactions=ended, changes=changes
        )

    def _move(self, position: Lsn) -> Move:
        expected = self._position
        assert expected is not None, "position() is read before anything is written"
        assert position >= expected, f"the position would go back from {expected} to {position}"
        return Move(stream=self._stream, expected=expected, position=position)

    def _refuse_another_writer(self, error: Exception) -> None:
        """Raises LostPositionError when `error` came about because somebody else moved the position."""
        expected = self._position
        if expected is None or not isinstance(error, psycopg.errors.DivisionByZero):
            return
        row = self._connection.execute(
            "SELECT lsn::text FROM strangler_cdc.position WHERE stream = $1", [self._stream]
        ).fetchone()
        if row is None or Lsn.parse(row[0]) != expected:
            raise LostPositionError(
                f"the position of stream {self._stream} is not {expected} any more: another process wrote it; "
                "stop that process and start again"
            ) from error

    def _run(self, statement: str) -> int:
        return self._connection.execute(statement.encode()).rowcount

    def _plan_all(self, steps: Iterable[Step], transactions: Sequence[Transaction]) -> None:
        # one batch may hold rows from before and after a change of the table's definition
        needed = {work.relation for step in steps for work in step}
        for relation in needed - self._plans.keys():
            position = next(_positions(transactions, relation))
            for old in [each for each in self._plans if each.table == relation.table and each not in needed]:
                self._run(statements.drop_staged(self._plans.pop(old).staged))
            self._numbers += 1
            self._plans[relation] = make_plan(
                self._connection,
                self._mapping.table(relation.table),
                relation,
                position=position,
                number=self._numbers,
            )
            if self._open is not None:
                self._open.plans.append(relation)

    def _first_without_key(self, transactions: Sequence[Transaction]) -> Lsn:
        for transaction in transactions:
            try:
                coalesce(transaction.changes, self._keys)
            except KeyUnknownError:
                return transaction.position
        return transactions[-1].position


def _few(steps: Iterable[Step]) -> bool:
    return all(
        len(work.fresh) + len(work.gone) + len(work.holes) <= _FEW_ROWS for step in steps for work in step
    )


def _positions(transactions: Sequence[Transaction], relation: Relation) -> Iterator[Lsn]:
    for transaction in transactions:
        if any(change.relation is relation or change.relation == relation for change in transaction.changes):
            yield transaction.position
