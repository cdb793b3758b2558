"""At most so many at once, and at most so many waiting; the rest is refused at once.

Keeps one slow neighbour from using up every connection, and turns overload into quick refusals instead of
a growing queue. (M. Nygard, "Release It!", 2nd ed. 2018, ch. 5: Bulkheads.)
"""

from dataclasses import dataclass, replace
from enum import Enum


class Entry(Enum):
    """What becomes of somebody who asks to enter."""

    ADMITTED = "may run now"
    QUEUED = "waits for somebody to leave"
    REFUSED = "neither runs nor waits"


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """`running` of `limit` places taken, `waiting` of `queue` places taken.

    Invariant: 0 ≤ running ≤ limit, 0 ≤ waiting ≤ queue, and nobody waits while a place is free.
    """

    limit: int
    queue: int = 0
    running: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1 or self.queue < 0:
            raise ValueError(f"a bulkhead needs limit ≥ 1 and queue ≥ 0, got {self.limit} and {self.queue}")
        assert 0 <= self.running <= self.limit
        assert 0 <= self.waiting <= self.queue
        assert not self.waiting or self.running == self.limit

    def enter(self) -> tuple["Bulkhead", Entry]:
        """Somebody asks to enter."""
        if self.running < self.limit:
            return replace(self, running=self.running + 1), Entry.ADMITTED
        if self.waiting < self.queue:
            return replace(self, waiting=self.waiting + 1), Entry.QUEUED
        return self, Entry.REFUSED

    def leave(self) -> tuple["Bulkhead", bool]:
        """One that ran has ended. True: the first in the queue takes its place and may run now.

        Raises ValueError when nobody runs.
        """
        if not self.running:
            raise ValueError("nobody is inside, so nobody can leave")
        if self.waiting:
            return replace(self, waiting=self.waiting - 1), True
        return replace(self, running=self.running - 1), False

    def abandon(self) -> "Bulkhead":
        """One that waited goes away (its deadline passed). Raises ValueError when nobody waits."""
        if not self.waiting:
            raise ValueError("nobody waits, so nobody can give up waiting")
        return replace(self, waiting=self.waiting - 1)
