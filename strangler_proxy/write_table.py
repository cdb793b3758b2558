"""Who wrote lately, known to all workers at once: a sketch of fixed size in memory they share.

Each worker has a row of 32,768 slots of 24 bytes: the highest log position that anybody whose key falls into
the slot has written, when the last such write was answered, and when the last write of unknown position was. Only
its own worker writes a row (eight-byte stores, each whole), and every number only grows, so no update is ever
lost and nothing is locked; a reader takes the maximum over all rows. A killed worker's row outlives it. Moments
are of the machine's monotonic clock, which all processes read alike.

The error goes to the safe side alone: two people in one slot share the later mark, so one of them may be
kept with the writer's side for as long as the other has to be. With w marks that wait to be applied, the
chance for each name a reader shows is w / 32,768. 768 KiB for each worker, page by page as they are used.

Slot 0 of a row belongs to nobody: it holds the maximum of the row, so that a reader learns with one look at
each row that nobody has to wait.

`born` is since when writes have been remembered: the proxy's start, or when the routes first asked for it. What was
written before may not be applied yet: who asks takes it for a write of everybody's.
"""

import mmap
import os
from dataclasses import dataclass, field
from typing import Any

from strangler_proxy.freshness import NEVER, Mark
from strangler_proxy.memory import make_memory

SLOTS = 32_768
_FIELDS = 3
_HEADER = 8  # `born`


def make_write_table(rows: int, *, born: float = 0.0) -> int:
    """A descriptor of an empty table for `rows` workers; `born` 0: nobody can have written before."""
    descriptor = make_memory("strangler-writes", _HEADER + rows * SLOTS * _FIELDS * 8)
    with mmap.mmap(descriptor, _HEADER) as head, memoryview(head).cast("d") as moment:
        moment[0] = born
    return descriptor


@dataclass(slots=True)
class WriteTable:
    """One worker's view: it writes row `row` of `rows`. The descriptor is its own from then on, and closed."""

    descriptor: int
    row: int
    rows: int
    _map: mmap.mmap = field(init=False, repr=False)
    _positions: Any = field(init=False, repr=False)  # memoryview of unsigned 64-bit: the first of a slot
    _moments: Any = field(init=False, repr=False)  # memoryview of doubles: the other two; 0.0 is never

    def __post_init__(self) -> None:
        self._map = mmap.mmap(self.descriptor, _HEADER + self.rows * SLOTS * _FIELDS * 8)
        os.close(self.descriptor)
        self._positions = memoryview(self._map).cast("Q")
        self._moments = memoryview(self._map).cast("d")

    @property
    def born(self) -> float:
        """Since when writes have been remembered; NEVER: since ever."""
        return self._moments[0] or NEVER

    def begin(self, now: float) -> None:
        """Writes are remembered from `now` on, and were not for a while before."""
        self._moments[0] = max(self._moments[0], now)

    def close(self) -> None:
        """Give the view back."""
        self._positions.release()
        self._moments.release()
        self._map.close()

    def write(self, key: int, mark: Mark) -> None:
        """Who has `key` (64 bits) has left `mark`."""
        positions, moments = self._positions, self._moments
        for slot in (1 + key % (SLOTS - 1), 0):  # the row's maximum last
            place = _place(self.row, slot)
            positions[place] = max(positions[place], mark.position)
            moments[place + 1] = max(moments[place + 1], mark.placed_at)
            moments[place + 2] = max(moments[place + 2], mark.unplaced_at)

    def read(self, key: int) -> Mark:
        """The marks of `key`, and perhaps of somebody else's too."""
        return self._over_rows(1 + key % (SLOTS - 1))

    def latest(self) -> Mark:
        """The marks of everybody."""
        return self._over_rows(0)

    def _over_rows(self, slot: int) -> Mark:
        places = [_place(row, slot) for row in range(self.rows)]
        positions, moments = self._positions, self._moments
        placed = max(moments[at + 1] for at in places)
        unplaced = max(moments[at + 2] for at in places)
        return Mark(max(positions[at] for at in places), placed or NEVER, unplaced or NEVER)


def _place(row: int, slot: int) -> int:
    return 1 + (row * SLOTS + slot) * _FIELDS
