"""How long a change that the target refuses is tried again. Pure.

A unique value that moves from one row to another is released in the old row's partition and taken in the new one's.
Whoever takes it before it is released is refused; and so is who took it *earlier* on the source, while a partition
that is ahead has given it to a later row. In the first case the other partition mends it, in the second a later
change of the same key. So the change is set aside with its key (`cdc.parked`: in the transaction that stores the
offset past it), all other keys go on, and what has gathered under the key is tried again as one. Once both partitions
have read the same stretch of the source's log, each key's last row is one that the source had at that time, and those
do not contradict each other. (The exception: rows that swap a value within one transaction, under a deferred
constraint. Each waits for the other; the wait ends as it does for a change that is refused for good.)
"""

from dataclasses import dataclass

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)  # seconds; the last one repeats
TAKEN = frozenset({"23505", "23P01"})  # unique_violation, exclusion_violation
PATIENCE = 60.0  # seconds; a killed instance's partitions have found another one long before
_PASSING = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available


@dataclass(frozen=True, slots=True)
class BackOff:
    """So many attempts have failed in a row."""

    attempts: int = 0

    def failed(self) -> "BackOff":
        """One more has."""
        return BackOff(self.attempts + 1)

    def again_at(self, now: float) -> float:
        """When to try next (seconds, as `now`)."""
        return now + _PAUSES[min(self.attempts, len(_PAUSES) - 1)]


def may_resolve(sqlstate: str | None) -> bool:
    """Whether another partition may bring what makes this refusal go away."""
    return sqlstate in TAKEN


def passing(sqlstate: str | None) -> bool:
    """Whether the refusal says nothing about the change: two partitions were in each other's way."""
    return sqlstate in _PASSING
