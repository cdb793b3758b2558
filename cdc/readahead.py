"""Read while the sink writes: a thread between a source and the pipeline.

The thread alone talks to the source. It stops reading when enough changes wait, but goes on answering the
source, which would otherwise take us for dead.

A large transaction comes in pieces and is counted by pieces, so what waits is bounded whatever is committed.
Only a single row has to fit into memory.
"""

from collections import deque
from dataclasses import dataclass
from threading import Condition, Thread
from threading import Event as StopEvent
from types import TracebackType
from typing import Self

from cdc.changes import Event, Lsn, Transaction
from cdc.seams import Source

_WAIT = 0.1  # seconds
_BACKLOG = 1_000  # changes that wait; nobody waits then for the next one,
_LET_COME = 0.0005  # seconds  so it may come together with others: each wake-up costs both sides
_ORDINARY_CHANGE = 2_048  # bytes of log, at most


@dataclass(frozen=True, slots=True)
class Taken:
    """Events in order. `beyond`: the next event lies past the limit, so everything up to the limit is
    here.
    """

    events: tuple[Event, ...]
    beyond: bool = False


class ReadAhead:
    """A bounded queue filled by a thread. Use as a context manager around a started source."""

    def __init__(self, source: Source, *, max_changes: int) -> None:
        """At most about `max_changes` changes wait; a larger transaction waits alone."""
        self._source = source
        self._max_changes = max_changes
        self._news = Condition()
        self._events: deque[tuple[int, Event]] = deque()  # with their sizes
        self._waiting = 0
        self._begun = self._before = False  # a transaction was taken in part; so before the last time
        self._error: BaseException | None = None
        self._ended = StopEvent()
        self._thread = Thread(target=self._run, name="cdc-read", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with self._news:
            self._news.notify_all()
        self._thread.join()

    def take(self, *, limit: int, upto: Lsn | None = None, timeout: float) -> Taken:
        """The next events with about `limit` changes in all, none past `upto`; waits up to `timeout`
        seconds for the first. A transaction in pieces is not taken together with what came before it, which
        can be stored at once, nor with what comes after it: while it goes on nobody asks for a hold, and behind it
        one may begin. Raises what the source raised, once everything read before is taken.
        """
        with self._news:
            if not self._events and self._error is None:
                self._news.wait(timeout)
            taken: list[Event] = []
            size = 0
            begun = self._before = self._begun
            within = False
            while self._events and size < limit:
                weight, event = self._events[0]
                if upto is not None and event.position > upto:
                    return self._give(taken, size, beyond=True)
                goes_on = isinstance(event, Transaction) and event.more
                if goes_on and taken and not within:
                    break
                self._events.popleft()
                taken.append(event)
                size += weight
                within = self._begun = goes_on
                if begun and not goes_on:
                    break
            if not taken and self._error is not None:
                raise self._error
            return self._give(taken, size, beyond=False)

    def put_back(self, taken: Taken) -> None:
        """`taken` was the last that was taken, and is taken again by the next call."""
        with self._news:
            sized = [(_size(event), event) for event in taken.events]
            self._events.extendleft(reversed(sized))
            self._begun = self._before
            self._waiting += sum([size for size, _ in sized])

    def waiting(self) -> int:
        """About how many changes wait."""
        return self._waiting

    def _give(self, taken: list[Event], size: int, *, beyond: bool) -> Taken:
        self._waiting -= size
        self._news.notify_all()
        return Taken(tuple(taken), beyond)

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                if self._full():
                    self._source.answer()
                    continue
                events = self._source.read(_WAIT)
                if events:
                    self._add([(_size(event), event) for event in events])
                    if self._waiting >= _BACKLOG:
                        self._ended.wait(_LET_COME)
        except BaseException as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _add(self, sized: list[tuple[int, Event]]) -> None:
        weight = sum([size for size, _ in sized])
        with self._news:
            self._events.extend(sized)
            self._waiting += weight
            self._news.notify_all()

    def _full(self) -> bool:
        with self._news:
            if self._waiting < self._max_changes:
                return False
            self._news.wait(_WAIT)
            return self._waiting >= self._max_changes


def _size(event: Event) -> int:
    """What it weighs in ordinary changes: large rows count for more."""
    if not isinstance(event, Transaction):
        return 1
    changes, bytes_ = len(event.changes), event.size // _ORDINARY_CHANGE
    return 1 + max(changes, bytes_)
