"""Write change by change in source order: what is done with a batch that the target refused when it was folded.

Folding may have joined what only works apart (a unique value that moved between rows, a foreign key that is checked
at once). What is refused here too is refused for good: it is parked, or stops the stream with its table, key and
position.
"""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from typing import Any

import psycopg

from cdc.changes import Change, Relation, Transaction
from cdc.coalesce import coalesce
from cdc.mapping import Mapping
from cdc.parked import Keys, Parting, Refusal
from cdc.sinks.inline import inline
from cdc.sinks.parking import Parking, parkable
from cdc.sinks.plans import ApplyError, Plan, RowMissingError, explain, explain_deferred, named_key, passes
from cdc.sinks.roundtrip import Bound, RoundTrips
from cdc.statements import MissingValueError


class OneByOne:
    """`plans` are the sink's, and there for every relation that is written; `trips` are of the same connection."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        trips: RoundTrips,
        mapping: Mapping,
        *,
        plans: MappingOf[Relation, Plan],
        keys: Keys,
    ) -> None:
        self._connection = connection
        self._trips = trips
        self._mapping = mapping
        self._plans = plans
        self._keys = keys
        self.parks: Callable[[str | None], bool] = parkable

    def write(
        self, transactions: Sequence[Transaction], *, parking: Parking | None, deferred: bool
    ) -> Parting | None:
        """Within the open target transaction. `deferred`: constraints are checked at its end. With `parking`, what it
        has to store; without, raises ApplyError at the first change that is refused.
        """
        if parking is not None:
            return parking.write(transactions, self._try, deferred=deferred)
        for transaction in transactions:
            self._write(transaction, deferred=deferred)
        return None

    def _write(self, transaction: Transaction, *, deferred: bool) -> None:
        """Write its changes one by one. Raises ApplyError naming the one that the target refuses, or that breaks a
        deferred constraint: these are asked where the source had checked its own, not first at the commit.
        """
        asked = deferred and not transaction.more
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

    def _try(self, transaction: Transaction, change: Change) -> Refusal | None:
        """Write one change; why the target refuses it, when it may be parked. Raises ApplyError when not."""
        try:
            self._attempt(transaction, change)
        except ApplyError as error:
            cause = error.__cause__
            sqlstate = cause.sqlstate if isinstance(cause, psycopg.Error) else None
            if not self.parks(sqlstate):
                raise
            return Refusal(sqlstate or "", error.reason, error.column)
        return None

    def _attempt(self, transaction: Transaction, change: Change) -> None:
        """Write one change. Raises ApplyError when the target refuses it."""
        for step in coalesce([change], self._keys):
            try:
                with self._connection.transaction():
                    for bound in inline([step], self._plans, self._mapping.order):
                        self._run(bound)
            except (psycopg.Error, MissingValueError, RowMissingError) as error:
                if passes(error):
                    raise
                plan = self._plans[step[0].relation]
                raise explain(error, step=step, plan=plan, transaction=transaction) from error

    def _run(self, bound: Bound) -> None:
        if bound.rows is None:
            self._trips.run([bound])
            return
        done = self._connection.execute(bound.sql.encode(), bound.values).rowcount
        if done != bound.rows:
            raise RowMissingError(bound.rows - done)
