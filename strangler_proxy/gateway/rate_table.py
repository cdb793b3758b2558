"""The state of rate limits, shared by all workers of a proxy: a table of fixed size in memory without a file.

The parent makes it (`memfd_create`) and every worker inherits the descriptor, so a replaced worker finds the
state its predecessor left. Each entry is 16 bytes: a client's 64-bit key and its theoretical arrival time, a
double of seconds on the machine's monotonic clock, which all processes read alike. The table is cut into sets
of eight entries; a key belongs to one set.

Bounded memory: 65,536 entries, 1 MiB. In a full set an idle entry is taken over first (its arrival time has
passed: to forget it changes nothing); when all eight are busy the one that will be idle soonest is forgotten, and
its client gets at most one fresh burst early.

Exact across workers: read, decide and write happen under a POSIX record lock on the set's bytes (`fcntl`, so
a worker that dies holding it gives it back). A worker never waits in the kernel: after `_TRIES` attempts, each
giving up the processor, it goes on without the lock (`unlocked` counts it). Two workers may then read the same
state and one of the two updates is lost: each such collision lets at most one request more through than the
limit. It takes a worker that is stopped within the microseconds it holds the lock. The two halves of an entry
are eight aligned bytes each and are copied whole.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chassis.resilience.limiter import Limiter, Rate, Taken, take

ENTRIES = 65_536
_WAYS = 8
_ENTRY = 16
_SET = _WAYS * _ENTRY
_SETS = ENTRIES // _WAYS
_TRIES = 50


def make_table() -> int:
    """A descriptor of an empty table, for `RateTable` here or in a child process. Pages are taken when used."""
    descriptor = os.memfd_create("strangler-rates")
    os.ftruncate(descriptor, ENTRIES * _ENTRY)
    return descriptor


@dataclass(slots=True)
class RateTable:
    """One process's view. `crowded` counts clients forgotten before their time, `unlocked` updates made
    without the lock. Do not share a descriptor between two views in one process: closing either drops the
    locks of both."""

    descriptor: int
    crowded: int = 0
    unlocked: int = 0
    yield_processor: Callable[[], None] = os.sched_yield
    _map: mmap.mmap = field(init=False, repr=False)
    _keys: Any = field(init=False, repr=False)  # memoryview of unsigned 64-bit: even places are keys
    _dues: Any = field(init=False, repr=False)  # memoryview of doubles: odd places are arrival times

    def __post_init__(self) -> None:
        self._map = mmap.mmap(self.descriptor, ENTRIES * _ENTRY)
        self._keys = memoryview(self._map).cast("Q")
        self._dues = memoryview(self._map).cast("d")

    def close(self) -> None:
        """Give the memory back; the descriptor stays open."""
        self._keys.release()
        self._dues.release()
        self._map.close()

    def take_all(self, wanted: Sequence[tuple[int, Rate]], now: float) -> list[Taken]:
        """One request arrives at `now` (monotonic seconds) and wants one from each of `wanted` (key, rate).
        When any refuses, none is taken from."""
        sets = sorted({key % _SETS for key, _ in wanted})  # in order: two workers cannot wait for each other
        locked = [number for number in sets if self._lock(number)]
        try:
            used: set[int] = set()
            places = [self._find(key, used) for key, _ in wanted]
            results = []
            for place, (key, rate) in zip(places, wanted, strict=True):
                due = self._dues[place + 1] if self._keys[place] == key else 0.0
                results.append(take(Limiter(due), rate, now))
            if all(taken.allowed for _, taken in results):
                for place, (key, _), (after, _) in zip(places, wanted, results, strict=True):
                    self._write(place, key, after.due, now)
            return [taken for _, taken in results]
        finally:
            for number in locked:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN, _SET, number * _SET)

    def _write(self, place: int, key: int, due: float, now: float) -> None:
        busy = self._keys[place] != key and self._dues[place + 1] > now
        self._keys[place] = key
        if busy:
            self.crowded += 1
            self._dues[place + 1] = due
        elif due > self._dues[place + 1]:
            # An arrival time only grows. Who went on without the lock and was stopped before this line holds an
            # old one, and must not undo what others took meanwhile.
            self._dues[place + 1] = due

    def _find(self, key: int, used: set[int]) -> int:
        """Where `key` is, or may be put: the entry that is idle for longest, or will be soonest. `used` are
        places that other keys of this request were given."""
        first = key % _SETS * _WAYS * 2
        best, best_due = first, float("inf")
        for place in range(first, first + 2 * _WAYS, 2):
            if self._keys[place] == key:
                used.add(place)
                return place
            due = self._dues[place + 1]
            if due < best_due and place not in used:
                best, best_due = place, due
        used.add(best)
        return best

    def _lock(self, number: int) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET, number * _SET)
            except OSError:  # somebody else has it, for some microseconds
                self.yield_processor()
            else:
                return True
        self.unlocked += 1
        return False
