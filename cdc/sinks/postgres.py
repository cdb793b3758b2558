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

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Buffer, Dumper

from cdc import schema, statements
from cdc.changes import UNCHANGED, Change, Key, Lsn, Relation, Row, TableName, Transaction, Value
from cdc.coalesce import KeyUnknownError, Step, coalesce
from cdc.copytext import encode_rows
from cdc.mapping import Mapping
from cdc.parked import Parting, Refusal
from cdc.seams import StreamError
from cdc.sessions import connect
from cdc.sinks.parking import Parking, parkable
from cdc.sinks.plans import (
    ApplyError,
    Plan,
    RowMissingError,
    by_missing,
    explain,
    explain_deferred,
    make_plan,
    named_key,
    passes,
)
from cdc.statements import MissingValueError

__all__ = [
    "AlreadyRunningError",
    "ApplyError",
    "LostPositionError",
    "PostgresSink",
    "lock_stream",
    "may_be_replica",
]

_FEW_ROWS = 32  # up to here prepared statements are faster than COPY with its temporary tables (measured)


class AlreadyRunningError(Exception):
    """Another process applies this stream."""


class LostPositionError(StreamError):
    """The stored position is not the one this process wrote: somebody else wrote it."""


class _RawText(Dumper):
    """Hands PostgreSQL's own text back to it, untouched and of unknown type."""

    format = pq.Format.TEXT
    oid = 0

    def dump(self, obj: Any) -> Buffer:
        return obj  # type: ignore[no-any-return]  # registered for bytes only


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
        # The applier looks up keys; a hash or merge join would read the whole target for a few rows.
        self._connection = connect(
            dsn,
            name=f"strangler_cdc apply {stream}",
            enable_hashjoin="off",
            enable_mergejoin="off",
            jit="off",
        )
        self._connection.cursor_factory = psycopg.RawCursor
        self._connection.adapters.register_dumper(bytes, _RawText)
        self._connection.prepare_threshold = 0
        self._connection.prepared_max = 500
        try:
            if applier:
                lock_stream(self._connection, stream)
            self.replica_role = may_be_replica(self._connection)
            if self.replica_role:
                self._connection.execute("SET session_replication_role = replica")
            self._asynchronous = applier and not _waits_for_standbys(self._connection)
            if self._asynchronous:
                self._connection.execute("SET synchronous_commit = off")
        except BaseException:
            self._connection.close()
            raise
        self._position: Lsn | None = None
        self._durable: Lsn | None = None
        self._marked: tuple[Lsn, Lsn] | None = (
            None  # a position, and an end of the target's log after its commit
        )
        self._open: _Open | None = None
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

    def apply(self, transactions: Sequence[Transaction]) -> None:
        """Write `transactions` and the position after the last one; when that one goes on, keep the target
        transaction open. Raises ApplyError, psycopg.OperationalError; what was not committed is then undone.

        What came before the transaction that an ApplyError names is stored all the same: after a repair of the
        mapping the stream begins at that transaction, and the earlier ones may not fit the new mapping.
        """
        begins_whole = self._open is None
        try:
            self._store(transactions)
        except ApplyError as error:
            if not begins_whole:
                raise
            before = [
                each for each in transactions if error.position is not None and each.position < error.position
            ]
            if before and not before[-1].more:
                self.apply(before)
            raise

    def _store(self, transactions: Sequence[Transaction]) -> None:
        parking = self._parking
        if parking is not None and self._open is None:
            parking.enter()
        try:
            if self._open is None and not transactions[-1].more:
                self._apply(transactions)
            else:
                self._apply_piece(transactions)
        except BaseException:
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

    def forget_plans(self) -> None:
        """A transaction of the caller's was undone, and the tables staged within it are gone."""
        self._plans.clear()

    def replay(self, transactions: Sequence[Transaction]) -> None:
        """Write the changes of `transactions` again; no position is stored. Raises as `apply` does."""
        self._apply([replace(transaction, more=True) for transaction in transactions])

    def _apply_piece(self, transactions: Sequence[Transaction]) -> None:
        opened = self._open
        if opened is None:
            self._connection.execute("BEGIN")
            opened = self._open = _Open(transactions[-1].xid)
        elif transactions[0].xid != opened.xid:
            raise StreamError(
                f"transaction {opened.xid} was to go on, but transaction {transactions[0].xid} came: the source "
                "broke off; nothing of it is stored, start the stream again"
            )
        self._apply(transactions)
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
        within = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
        if self._connection.pgconn.transaction_status in within:
            self._connection.rollback()

    def _apply(self, transactions: Sequence[Transaction]) -> None:
        parting = None if self._parking is None else self._parking.parting()
        try:
            going = transactions if parting is None else parting.divide(transactions)
            steps = coalesce([change for transaction in going for change in transaction.changes], self._keys)
        except KeyUnknownError as error:
            raise ApplyError(
                error.reason,
                table=error.table,
                position=self._first_without_key(transactions),
                remedy="the columns under key must be the replica identity of the source table",
            ) from error
        self._plan_all(steps, transactions)
        try:
            self._write(steps, going, parting)
        except (psycopg.Error, MissingValueError, RowMissingError) as error:
            if passes(error):
                raise
            parting = self._write_one_by_one(transactions)
        if self._parking is not None and parting is not None:
            self._parking.adopt(parting)

    def advance(self, position: Lsn) -> None:
        """Store that nothing happened up to `position`."""
        assert self._open is None, "the position is stored with the last piece of a transaction"
        with self._connection.transaction():
            self._write_position(position, None, 0, 0)
        self._position = position

    def close(self) -> None:
        """Close the session; its lock and temporary tables go with it."""
        self._connection.close()

    def _write(
        self, steps: Iterable[Step], transactions: Sequence[Transaction], parting: Parting | None
    ) -> None:
        steps = list(steps)
        few = all(
            len(work.fresh) + len(work.gone) + len(work.holes) <= _FEW_ROWS for step in steps for work in step
        )
        with self._connection.pipeline() if few else nullcontext(), self._connection.transaction():
            self._defer()
            for step in steps:
                self._write_step(step, few=few)
            if self._parking is not None and parting is not None:
                self._parking.store(parting)
            self._count(transactions)

    def _write_one_by_one(self, transactions: Sequence[Transaction]) -> Parting | None:
        parking, parting = self._parking, None
        with self._connection.transaction():
            self._defer()
            if parking is not None:
                parting = parking.write(transactions, self._attempt, deferred=not self.replica_role)
                parking.store(parting)
            else:
                for transaction in transactions:
                    self._write_or_stop(transaction)
            self._count(transactions)
        return parting

    def _write_or_stop(self, transaction: Transaction) -> None:
        """Write its changes one by one. Raises ApplyError naming the one that the target refuses, or that breaks a
        deferred constraint: these are asked where the source had checked its own, not first at the commit.
        """
        asked = not self.replica_role and not transaction.more
        try:
            with self._connection.transaction():
                for change in transaction.changes:
                    self._attempt(transaction, change)
                if asked:
                    self._ask_deferred()
        except psycopg.Error as error:
            if passes(error) or not asked:
                raise
            broken = error
        else:
            return
        key = self._breaks_deferred(transaction)
        raise explain_deferred(broken, self._mapping, position=transaction.position, key=key) from broken

    def _breaks_deferred(self, transaction: Transaction) -> str:
        """The key of the change that begins to break a deferred constraint which none behind it mends."""
        culprit: Change | None = None
        with self._connection.transaction(force_rollback=True):
            for change in transaction.changes:
                self._attempt(transaction, change)
                try:
                    self._ask_deferred()
                except psycopg.errors.IntegrityError:
                    culprit = culprit or change
                else:
                    culprit = None
        if culprit is None:
            return ""
        (step, *_) = coalesce([culprit], self._keys)
        return named_key(step, self._plans[step[0].relation])

    def _ask_deferred(self) -> None:
        """Raises what a commit would raise now. Leaves the constraints deferred and unchecked."""
        with self._connection.transaction(force_rollback=True):
            self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _attempt(self, transaction: Transaction, change: Change) -> Refusal | None:
        """Write one change; why the target refuses it, when it may be parked. Raises ApplyError when not."""
        for step in coalesce([change], self._keys):
            try:
                with self._connection.transaction():
                    self._write_step(step, few=True)
            except (psycopg.Error, MissingValueError, RowMissingError) as error:
                if passes(error):
                    raise
                plan = self._plans[step[0].relation]
                explained = explain(error, step=step, plan=plan, transaction=transaction)
                sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
                if self._parking is None or not parkable(sqlstate):
                    raise explained from error
                return Refusal(sqlstate or "", explained.reason, explained.column)
        return None

    def _defer(self) -> None:
        if not self.replica_role:
            self._connection.execute("SET CONSTRAINTS ALL DEFERRED")

    def _count(self, transactions: Sequence[Transaction]) -> None:
        last = transactions[-1]
        ended = sum(not transaction.more for transaction in transactions)
        changes = sum(len(transaction.changes) for transaction in transactions)
        if self._open is not None:
            ended += self._open.transactions
            changes += self._open.changes
        if not last.more:
            self._write_position(last.position, last.commit_time, ended, changes)

    def _write_position(self, position: Lsn, commit_time: Any, transactions: int, changes: int) -> None:
        expected = self._position
        assert expected is not None, "position() is read before anything is written"
        assert position >= expected, f"the position would go back from {expected} to {position}"
        cursor = self._connection.execute(
            "UPDATE strangler_cdc.position SET lsn = $3::text::pg_lsn, applied_at = clock_timestamp(),"
            " commit_time = coalesce($4, commit_time), transactions = transactions + $5, changes = "
            "changes + $6"
            " WHERE stream = $1 AND lsn = $2::text::pg_lsn RETURNING 1",
            [self._stream, str(expected), str(position), commit_time, transactions, changes],
        )
        if cursor.fetchone() is None:
            raise LostPositionError(
                f"the position of stream {self._stream} is not {expected} any more: another process wrote "
                "it; "
                f"stop that process and start again"
            )

    def _write_step(self, step: Step, *, few: bool) -> None:
        # parents are listed before children: delete upward, write downward
        works = sorted(step, key=lambda work: self._order(work.relation.table))
        for work in reversed(works):
            plan = self._plans[work.relation]
            if work.wipe:
                self._run(statements.wipe(plan.table))
            if work.gone:
                self._rows(plan, few, "gone", work.gone)
        for work in works:
            plan = self._plans[work.relation]
            fresh = [plan.pick(row) for row in work.fresh]
            for (missing, moves), rows in by_missing(plan, work).items():
                if missing or moves:
                    self._patch(plan, few, missing, moves, rows)
                else:
                    fresh += [plan.pick(row) for _, row in rows]
            if fresh:
                self._rows(plan, few, "fresh", fresh)

    def _rows(self, plan: Plan, few: bool, what: str, rows: Sequence[Sequence[Value]]) -> None:
        carrier = plan.inline if few else plan.staged
        if what == "gone":
            statement = statements.delete(plan.table, carrier, plan.types)
            copy = statements.copy_gone(plan.staged)
            staged = plan.staged.gone
        else:
            statement = statements.upsert(plan.table, carrier)
            copy = statements.copy_fresh(plan.staged)
            staged = plan.staged.fresh
        if few:
            for row in rows:
                self._connection.execute(statement.encode(), row)
            return
        self._copy(copy, rows)
        self._run(statement)
        self._run(f"TRUNCATE {staged}")

    def _patch(
        self, plan: Plan, few: bool, missing: frozenset[str], moves: bool, rows: list[tuple[Key, Row]]
    ) -> None:
        carrier = plan.inline if few else plan.staged
        statement = statements.patch(
            plan.table, carrier, plan.types, plan.reads, missing=missing, moves=moves
        )
        if statement is None:
            return
        if few:
            changed = 0
            for key, row in rows:
                values = [None if value is UNCHANGED else value for value in plan.pick(row)]
                found = self._connection.execute(f"{statement} RETURNING 1".encode(), [*key, *values])
                changed += len(found.fetchall())
        else:
            present = [place for place, name in enumerate(plan.used) if name not in missing]
            picked = ((*key, *[plan.pick(row)[place] for place in present]) for key, row in rows)
            self._copy(statements.copy_holes(plan.table, plan.staged, missing=missing), picked)
            changed = self._run(statement)
            self._run(f"TRUNCATE {plan.staged.holes}")
        if changed != len(rows):
            raise RowMissingError(len(rows) - changed)

    def _copy(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._connection.cursor().copy(statement.encode()) as copy:
            copy.write(encode_rows(rows))  # type: ignore[arg-type]  # rows here hold no UNCHANGED

    def _run(self, statement: str) -> int:
        return self._connection.execute(statement.encode()).rowcount

    def _order(self, source: TableName) -> int:
        return self._mapping.sources().index(source)

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


def _positions(transactions: Sequence[Transaction], relation: Relation) -> Iterator[Lsn]:
    for transaction in transactions:
        if any(change.relation is relation or change.relation == relation for change in transaction.changes):
            yield transaction.position


def lock_stream(connection: psycopg.Connection[Any], stream: str) -> None:
    """Take the lock of the stream's only applier, for the session. Raises AlreadyRunningError."""
    cursor = psycopg.Cursor(connection)
    row = cursor.execute(
        "SELECT pg_try_advisory_lock(hashtextextended('strangler_cdc ' || %s, 0))", [stream]
    ).fetchone()
    if row is None or not row[0]:
        raise AlreadyRunningError(
            f"stream {stream} is already being applied by another process (it holds the advisory lock in "
            "the target); "
            f"stop that one first"
        )


def may_be_replica(connection: psycopg.Connection[Any]) -> bool:
    """Whether the role may switch off triggers and foreign keys for its session, as PostgreSQL's own
    replication does. `connection` stays as it was.
    """
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _waits_for_standbys(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT current_setting('synchronous_standby_names') <> ''").fetchone()
    return row is not None and bool(row[0])
