"""The applier's side of parked keys: the table `strangler_cdc.parked`, read rarely, written with the position.

Only the stream's one applier adds to the table, so while it knows of nothing parked there is nothing, and not one
query is made. Once something is parked, people may take it away (`cdc.release`) while the stream runs. Both sides
then take the advisory lock of the stream's parked keys *before* they touch any row, in the same order, so that they
wait for each other and never in a circle; the applier counts what is left when it gets the lock.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import pq

from cdc.changes import Change, Operation, TableName, Transaction
from cdc.parked import Keys, Parting, Refusal, by_table, relation_json, row_json
from cdc.seams import StreamError

_CHANGES_A_KEY = 100  # changes that may wait, for each key that may be parked
_PARKABLE = frozenset({"22", "23", "27", "38", "39", "44", "54", "P0"})
"""SQLSTATE classes that speak of one row: its data, a constraint, a trigger, a size. All others (no such column, no
privilege) would refuse every row, and stop the stream.
"""

Attempt = Callable[[Transaction, Change], Refusal | None]
"""Writes one change in a savepoint; what the target says when it refuses. Raises what stops the stream."""


class TooManyParkedError(StreamError):
    """More keys would be parked than the plan allows: the mapping is broken, not single rows."""


class _UndoError(Exception):
    """Not an error: ends a trial that a deferred constraint refuses."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)


def parkable(sqlstate: str | None) -> bool:
    """Whether a refusal with this SQLSTATE concerns one row; without one the row itself cannot be completed."""
    return not sqlstate or sqlstate[:2] in _PARKABLE


def lock_name(stream: str) -> str:
    """What the advisory lock of the stream's parked keys is the hash of."""
    return f"strangler_cdc parked {stream}"


class Parking:
    """What is parked of one stream. `connection` is the applier's own (psycopg.RawCursor, autocommit).

    `max_keys`: as many keys may be parked, and a hundred times as many changes may wait.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], *, stream: str, keys: Keys, max_keys: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._keys = keys
        self._max_keys = max_keys
        self._blocked: dict[str, TableName] | None = None
        self._changes = 0
        self._locked = False

    def enter(self) -> None:
        """Before a target transaction: know what is parked, and keep it so until `leave`."""
        if self._blocked is None:
            self._load()
        if self._blocked and not self._locked:
            self._connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", [self._lock])
            self._locked = True
            if self._count() != self._changes:  # others only take away: an equal count is an equal content
                self._load()

    @property
    def any(self) -> bool:
        """Whether anything is parked, as far as is known."""
        return bool(self._blocked)

    def leave(self) -> None:
        """After the commit: let others take parked changes away."""
        if self._locked:
            self._connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", [self._lock])
            self._locked = False

    def forget(self) -> None:
        """After a rollback: nothing is known any more, and others may take parked changes away. With a session that is
        lost, its lock is.
        """
        self._blocked = None
        if self._connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            with suppress(psycopg.OperationalError):
                self.leave()

    def holds_any(self) -> bool:
        """Whether anything may be parked."""
        return self._blocked is None or bool(self._blocked)

    def parting(self) -> Parting:
        """To part the next changes by what is parked now."""
        assert self._blocked is not None, "enter() comes first"
        return Parting(self._keys, dict(self._blocked))

    def store(self, parting: Parting) -> None:
        """Write down what `parting` parked. Call it in the transaction that writes the rest."""
        if parting.wiped:
            self._connection.execute(
                "DELETE FROM strangler_cdc.parked WHERE stream = $1 AND source_table = ANY($2)",
                [self._stream, [str(table) for table in parting.wiped]],
            )
        for entry in parting.parked:
            change, refusal = entry.change, entry.refusal
            self._connection.execute(
                "INSERT INTO strangler_cdc.parked (stream, keys, source_table, position, xid, commit_time, operation,"
                " relation, before, after, sqlstate, error, error_column)"
                " VALUES ($1, $2, $3, $4::text::pg_lsn, $5, $6, $7, $8::text::json, $9::text::json, $10::text::json,"
                " $11, $12, $13)",
                [
                    self._stream,
                    list(entry.addresses),
                    str(change.relation.table),
                    str(entry.position),
                    entry.xid,
                    entry.commit_time,
                    change.operation.value,
                    relation_json(change.relation),
                    row_json(change.before, change.relation),
                    row_json(change.after, change.relation),
                    refusal.sqlstate if refusal else None,
                    refusal.reason if refusal else None,
                    refusal.column if refusal else None,
                ],
            )
        if parting.parked:
            self._limit(parting)

    def adopt(self, parting: Parting) -> None:
        """What `store` wrote was not refused: the next changes are parted by it."""
        if parting.wiped or parting.parked:
            self._blocked = parting.blocked
            self._changes = self._count() if parting.wiped else self._changes + len(parting.parked)

    def write(self, transactions: Sequence[Transaction], attempt: Attempt, *, deferred: bool) -> Parting:
        """Write change by change, parking what is refused and what waits behind it; whole within the open target
        transaction. `deferred`: constraints are checked at its end, so they are asked after each source
        transaction, where the source had checked its own.

        Raises TooManyParkedError, StreamError and what `attempt` raises.
        """
        parting = self.parting()
        for transaction in transactions:
            parting = self._write_one(
                transaction, parting, attempt, deferred=deferred and not transaction.more
            )
        return parting

    def _write_one(
        self, transaction: Transaction, parting: Parting, attempt: Attempt, *, deferred: bool
    ) -> Parting:
        barred: dict[int, Refusal] = {}
        searching = False
        while True:
            trial = parting.copy()
            # the change that began to break a deferred constraint which nothing later mends
            culprit: tuple[int, Refusal] | None = None
            try:
                with self._connection.transaction():
                    for place, change in enumerate(transaction.changes):
                        self._write_change(change, transaction, trial, attempt, barred.get(place))
                        if searching:
                            broken = self._broken()
                            culprit = None if broken is None else culprit or (place, broken)
                    broken = self._broken() if deferred else None
                    if broken is not None:
                        raise _UndoError(broken)  # noqa: TRY301  (the only way to roll psycopg's block back)
            except _UndoError as undone:
                broken = undone.refusal
            else:
                return trial
            if searching and (culprit is None or culprit[0] in barred):
                raise StreamError(
                    f"transaction at {transaction.position}: {broken.reason}; which change breaks this cannot be told; "
                    "repair the target or the mapping, then start the stream again: it resumes at this transaction"
                )
            if culprit is not None:
                barred[culprit[0]] = culprit[1]
            searching = True

    def _write_change(
        self,
        change: Change,
        transaction: Transaction,
        parting: Parting,
        attempt: Attempt,
        barred: Refusal | None,
    ) -> None:
        if parting.waits(change, transaction):
            return
        refusal = barred or attempt(transaction, change)
        if refusal is None:
            return
        if change.operation is Operation.TRUNCATE:
            raise StreamError(
                f"table {change.relation.table}, transaction at {transaction.position}: TRUNCATE is refused: "
                f"{refusal.reason}; it has no key that could be parked; repair the target, then start the stream again"
            )
        parting.refuse(change, transaction, refusal)
        self._limit(parting)

    def _broken(self) -> Refusal | None:
        """What a commit would say now. Leaves the constraints deferred and unchecked."""
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            if not error.sqlstate or not parkable(error.sqlstate):
                raise
            reason = " ".join(
                part for part in (error.diag.message_primary, error.diag.message_detail) if part
            )
            return Refusal(error.sqlstate, reason, error.diag.column_name or "")
        return None

    def _limit(self, parting: Parting) -> None:
        changes = self._changes + len(parting.parked)
        if len(parting.blocked) <= self._max_keys and changes <= self._max_keys * _CHANGES_A_KEY:
            return
        newest = next((each for each in reversed(parting.parked) if each.refusal is not None), None)
        last = (
            f", the last one at {newest.position}: {newest.refusal.reason}"
            if newest and newest.refusal
            else ""
        )
        raise TooManyParkedError(
            f"{len(parting.blocked)} keys would be parked with {changes} changes "
            f"({by_table(parting.blocked.values())}){last}; at most {self._max_keys} keys "
            f"(stream.max_parked) with {_CHANGES_A_KEY} changes each may be: this looks like a broken mapping or "
            "target, not like single rows; repair it, `strangler cdc retry PLAN --all`, then start the stream again"
        )

    @property
    def _lock(self) -> str:
        return lock_name(self._stream)

    def _count(self) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM strangler_cdc.parked WHERE stream = $1", [self._stream]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _load(self) -> None:
        rows = self._connection.execute(
            "SELECT DISTINCT key, relation->>'schema', relation->>'name'"
            " FROM strangler_cdc.parked, unnest(keys) AS key WHERE stream = $1",
            [self._stream],
        ).fetchall()
        self._blocked = {key: TableName(namespace, name) for key, namespace, name in rows}
        self._changes = self._count()
