"""Who wrote lately, known to all workers at once: a sketch of fixed size in memory they share.

Each worker has a row of 16,384 slots, 16 bytes each: the highest log position that anybody whose key falls
into the slot has written, and the latest moment of a write without a position. Only its own worker writes a
row (two eight-byte stores, each whole), so no update is ever lost and nothing is locked; a reader takes the
maximum over all rows.

The error goes to the safe side alone: two people in one slot share the later mark, so one of them may be
kept with the writer's side for as long as the other has to be. With w people waiting for their write, the
chance for a reader is w / 16,384. 256 KiB for each worker.

Slot 0 of a row belongs to nobody: it holds the maximum of the row, so that a reader learns with one look at
each row that nobody has to wait.
"""

import mmap
import os
from dataclasses import dataclass, field
from typing import Any

from strangler_proxy.freshness import Mark
from strangler_proxy.memory import make_memory

SLOTS = 16_384
_SLOT = 16


def make_write_table(rows: int) -> int:
    """A descriptor of an empty table for `rows` workers."""
    return make_memory("strangler-writes", rows * SLOTS * _SLOT)


@dataclass(slots=True)
class WriteTable:
    """One worker's view: it writes row `row` of `rows`. The descriptor is its own from then on, and closed."""

    descriptor: int
    row: int
    rows: int
    _map: mmap.mmap = field(init=False, repr=False)
    _positions: Any = field(init=False, repr=False)  # memoryview of unsigned 64-bit: even places
    _moments: Any = field(init=False, repr=False)  # memoryview of doubles: odd places

    def __post_init__(self) -> None:
        self._map = mmap.mmap(self.descriptor, self.rows * SLOTS * _SLOT)
        os.close(self.descriptor)
        self._positions = memoryview(self._map).cast("Q")
        self._moments = memoryview(self._map).cast("d")

    def close(self) -> None:
        """Give the view back."""
        self._positions.release()
        self._moments.release()
        self._map.close()

    def write(self, key: int, mark: Mark) -> None:
        """Who has `key` (64 bits) has left `mark`."""
        base = self.row * SLOTS * 2
        for place in (base + (1 + key % (SLOTS - 1)) * 2, base):  # the row's maximum last
            self._positions[place] = max(self._positions[place], mark.position)
            self._moments[place + 1] = max(self._moments[place + 1], mark.at)

    def read(self, key: int) -> Mark:
        """The marks of `key`, and perhaps of somebody else's too."""
        return self._over_rows((1 + key % (SLOTS - 1)) * 2)

    def latest(self) -> Mark:
        """The marks of everybody."""
        return self._over_rows(0)

    def _over_rows(self, place: int) -> Mark:
        places = [row * SLOTS * 2 + place for row in range(self.rows)]
        positions, moments = self._positions, self._moments
        return Mark(max(positions[at] for at in places), max(moments[at + 1] for at in places))
