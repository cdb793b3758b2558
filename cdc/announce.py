"""Tell somebody which tables changed, after the change is stored: caches of what is read from them must go.

At least once: everything the stream carries is announced when a session begins, since a process that died may
have stored changes and told nobody.
"""

from collections.abc import Callable, Sequence

from cdc.changes import Lsn, TableName, Transaction
from cdc.seams import Sink

Announce = Callable[[frozenset[TableName]], None]


class AnnouncingSink:
    """A sink that calls `announce` (which must not block) after each transaction that `inner` has stored."""

    def __init__(self, inner: Sink, announce: Announce) -> None:
        self._inner = inner
        self._announce = announce
        self._unstored: frozenset[TableName] = frozenset()

    def position(self) -> Lsn | None:
        """As the inner one."""
        return self._inner.position()

    def durable(self) -> Lsn | None:
        """As the inner one."""
        return self._inner.durable()

    def apply(
        self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Store, then announce the tables of what was stored; of a transaction in pieces with its last one."""
        self._inner.apply(transactions, meanwhile=meanwhile)
        changed = self._unstored | {
            change.relation.table for transaction in transactions for change in transaction.changes
        }
        if transactions[-1].more:
            self._unstored = changed
            return
        self._unstored = frozenset()
        if changed:
            self._announce(changed)

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        """As the inner one."""
        self._inner.prepare(transactions)

    def advance(self, position: Lsn) -> None:
        """As the inner one."""
        self._inner.advance(position)

    def close(self) -> None:
        """As the inner one."""
        self._inner.close()
