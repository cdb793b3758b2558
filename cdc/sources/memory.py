"""A source that holds its transactions in memory: for tests, and for trying a mapping without a server.

Behaves like `sources.slot`: forgets what was confirmed, sends the rest again after `start`, and its
watermarks never run ahead of a transaction.
"""

from collections.abc import Iterable
from threading import Condition

from cdc.changes import Event, Lsn, Transaction, Watermark


class MemorySource:
    """Transactions given to `commit`, in the order of their positions. See `cdc.seams.Source`."""

    def __init__(self, transactions: Iterable[Transaction] = (), *, patience: float = 60.0) -> None:
        """`patience`: seconds that `read` waits for news, at most."""
        self._news = Condition()
        self._log: list[Transaction] = []
        self._next = 0
        self._started = False
        self._idle: Lsn = Lsn(0)
        self._patience = patience
        self.confirmed = Lsn(0)
        for transaction in transactions:
            self.commit(transaction)

    def commit(self, transaction: Transaction) -> None:
        """Append a transaction. Its position must be greater than all before it."""
        with self._news:
            assert transaction.position > self._idle or self._within(transaction), "a log only grows"
            self._log.append(transaction)
            if not transaction.more:
                self._idle = transaction.position
            self._news.notify_all()

    def _within(self, transaction: Transaction) -> bool:
        return bool(self._log) and self._log[-1].more and self._log[-1].xid == transaction.xid

    def pass_time(self, position: Lsn) -> None:
        """The log grows to `position` by what does not concern this source."""
        with self._news:
            assert position >= self._idle, "a log only grows"
            self._idle = position
            self._news.notify_all()

    def start(self, after: Lsn) -> None:
        """Begin after `after`, or after what was confirmed, whichever is later."""
        with self._news:
            begin = max(after, self.confirmed)
            self._next = next(
                (place for place, each in enumerate(self._log) if each.position > begin), len(self._log)
            )
            self._started = True

    def read(self, timeout: float) -> list[Event]:
        """All that is there, then a watermark."""
        with self._news:
            assert self._started, "start() comes before read()"
            if self._next == len(self._log):
                self._news.wait(min(timeout, self._patience))
            events: list[Event] = [*self._log[self._next :]]
            self._next = len(self._log)
            return events if self._log and self._log[-1].more else [*events, Watermark(self._idle)]

    def confirm(self, position: Lsn) -> None:
        """Forget up to `position`."""
        with self._news:
            self.confirmed = max(self.confirmed, position)

    def answer(self) -> None:
        """Nobody is at the other end."""

    def close(self) -> None:
        """End the reading; what was not confirmed comes again."""
        with self._news:
            self._started = False
