"""Did a user ever change sides without cause? Pure: observations and the percentage over time in, counts out.

A user belongs to one bucket; the canary serves the buckets below the percentage. So each answer bounds the
bucket: seen on the canary while the percentage was at most `h`, the bucket lies below `h`; seen on control
while the percentage was at least `l`, it lies at `l` or above. A user whose bounds contradict each other was
moved without cause: that is `flipped_back` when the canary came first, `jumped_ahead` when control did.

The percentage during an answer is an interval, not a number: a change takes a moment to reach every worker,
and an answer may straddle it. Only contradictions that hold for every possible reading count, so a slow
change is no false alarm. Answers by fallback say nothing of the side a user belongs to and are left out. A
login is a new identity.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Side = Literal["control", "canary"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """`identity` was answered by `side`, some time within `sent`..`answered` (seconds since 1970)."""

    identity: str
    side: Side
    sent: float
    answered: float


@dataclass(frozen=True, slots=True)
class Change:
    """The percentage became `percent`: nowhere before `first`, in every worker from `last` on."""

    first: float
    last: float
    percent: Decimal


@dataclass(frozen=True, slots=True)
class Stickiness:
    """Identities seen, and those moved without cause (with one example each, for the report)."""

    users: int
    flipped_back: int
    jumped_ahead: int
    examples: tuple[str, ...]


class Timeline:
    """The percentage over time. `changes` ascend; before the first one the percentage is unknown."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = tuple(changes)
        self._firsts = [change.first for change in changes]

    def between(self, start: float, end: float) -> tuple[Decimal, Decimal] | None:
        """Least and greatest percentage that may have held within `start`..`end`; None when unknown."""
        upto = bisect_right(self._firsts, end)
        possible: list[Decimal] = []
        for change in reversed(self._changes[:upto]):
            possible.append(change.percent)
            if change.last <= start:
                return min(possible), max(possible)
        return None


def stickiness(sightings: Iterable[Sighting], timeline: Timeline) -> Stickiness:
    """Judge `sightings`; those at times of unknown percentage count as users only."""
    below: dict[str, Decimal] = {}
    at_least: dict[str, Decimal] = {}
    users: set[str] = set()
    flipped: dict[str, str] = {}
    jumped: dict[str, str] = {}
    for seen in sorted(sightings, key=lambda sighting: sighting.answered):
        users.add(seen.identity)
        span = timeline.between(seen.sent, seen.answered)
        if span is None:
            continue
        least, greatest = span
        who = seen.identity
        if seen.side == "canary":
            below[who] = min(below.get(who, greatest), greatest)
            if at_least.get(who, Decimal(-1)) >= greatest:
                jumped.setdefault(
                    who, f"{who}: on control at {at_least[who]} %, then on canary at {greatest} %"
                )
        else:
            at_least[who] = max(at_least.get(who, least), least)
            if who in below and least >= below[who]:
                flipped.setdefault(who, f"{who}: on canary at {below[who]} %, then on control at {least} %")
    return Stickiness(
        users=len(users),
        flipped_back=len(flipped),
        jumped_ahead=len(jumped),
        examples=(*list(flipped.values())[:5], *list(jumped.values())[:5]),
    )
