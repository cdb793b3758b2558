"""How long an operation may still take: one instant, handed down through every call it makes.

A timeout of its own at each step lets a chain of steps take their sum; a deadline is shared by all of them.
"""

from dataclasses import dataclass
from typing import Self


class DeadlineExceededError(Exception):
    """The time of an operation is used up; `overrun` is by how many seconds."""

    def __init__(self, overrun: float) -> None:
        self.overrun = overrun
        super().__init__(f"the deadline passed {overrun:.3f} s ago")


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The instant `at` (seconds, monotonic) after which an answer is of no use any more."""

    at: float

    @classmethod
    def after(cls, seconds: float, *, now: float) -> Self:
        """The deadline `seconds` from `now`."""
        return cls(now + seconds)

    def remaining(self, now: float) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - now)

    def expired(self, now: float) -> bool:
        """Whether nothing is left."""
        return now >= self.at

    def timeout(self, step: float, *, now: float) -> float:
        """Seconds that one step may take: at most `step`, never past the deadline.

        Raises DeadlineExceededError when nothing is left, so that no step starts in vain.
        """
        if self.expired(now):
            raise DeadlineExceededError(now - self.at)
        return min(step, self.remaining(now))

    def no_later_than(self, other: "Deadline") -> "Deadline":
        """The earlier of two deadlines: a call may shorten what its caller allowed, never extend it."""
        return min(self, other)
