"""What waits behind a batch: the next one, prepared while the target works on this one, and what is to be told of it.

Nothing here touches a database; the pipeline decides what is applied and when.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from cdc.changes import Event, Lsn, Transaction
from cdc.meter import Meter
from cdc.readahead import ReadAhead, Taken
from cdc.seams import Sink

_IDLE_WAIT = 0.02  # seconds; also how soon a request to hold is seen on an idle stream
_WORTH_PREPARING = 1_000  # changes that wait; fewer are better left to grow into one batch


def not_yet_applied(events: Sequence[Event], position: Lsn) -> list[Transaction]:
    """The transactions among `events` that are not contained in `position`. Pure; the only home of this
    rule.
    """
    return [event for event in events if isinstance(event, Transaction) and event.position > position]


@dataclass(frozen=True, slots=True)
class Batch:
    """What was taken, and of it what the target lacks."""

    taken: Taken
    pending: list[Transaction]


def take(
    ahead: ReadAhead, limit: int, *, upto: Lsn | None = None, position: Lsn, timeout: float = _IDLE_WAIT
) -> Batch:
    """About `limit` changes of what waits, none past `upto`, for a target that has everything up to `position`."""
    taken = ahead.take(limit=limit, upto=upto, timeout=timeout)
    return Batch(taken, not_yet_applied(taken.events, position))


class Following:
    """The batch behind the one that is applied, taken and prepared while the target is at work. Until it is claimed
    it can be put back.
    """

    def __init__(self, ahead: ReadAhead, sink: Sink, *, limit: int) -> None:
        self._ahead = ahead
        self._sink = sink
        self._limit = limit
        self._batch: Batch | None = None

    def after(self, batch: Batch, position: Lsn) -> Callable[[], None]:
        """Takes what follows `batch`, which is now applied onto `position`."""
        last = batch.pending[-1]
        stored = position if last.more else last.position

        def prepare() -> None:
            if self._ahead.waiting() < min(_WORTH_PREPARING, self._limit):
                return
            self._batch = take(self._ahead, self._limit, position=stored, timeout=0)
            if self._batch.pending:
                self._sink.prepare(self._batch.pending)

        return prepare

    @property
    def ready(self) -> bool:
        """Whether a batch is at hand."""
        return self._batch is not None

    def claim(self) -> Batch | None:
        """The batch, if there is one; it is its turn."""
        batch, self._batch = self._batch, None
        return batch

    def put_back(self) -> None:
        """It is not its turn now."""
        batch = self.claim()
        if batch is not None:
            self._ahead.put_back(batch.taken)


class Account:
    """What was applied, told to the meter while the target works on what follows; told at once, the target would wait
    for it. Use as a context manager: when the block ends, however it does, the meter knows everything.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._owed: tuple[Sequence[Transaction], datetime] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def owe(self, applied: Sequence[Transaction], at: datetime) -> None:
        """`applied` were written at that moment."""
        self.settle()
        self._owed = applied, at

    def settle(self) -> None:
        """Tell the meter what it has not been told."""
        owed, self._owed = self._owed, None
        if owed is not None:
            self._meter.applied(*owed)

    def first(self, then: Callable[[], None]) -> Callable[[], None]:
        """`then`, after settling."""

        def both() -> None:
            self.settle()
            then()

        return both
