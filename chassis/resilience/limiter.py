"""At most so many in a time: the generic cell rate algorithm.

One number of state, no background refill, exact: at most `burst` + `rate`·t requests conform in any window of
t seconds. (ITU-T I.371, annex A: the virtual scheduling form of GCRA.)
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` on average, at most `burst` at one instant."""

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError(f"a rate needs per_second > 0 and burst ≥ 1, got {self}")

    @property
    def interval(self) -> float:
        """Seconds between two requests at the steady rate."""
        return 1.0 / self.per_second


@dataclass(frozen=True, slots=True)
class Limiter:
    """`due`: when the next request would arrive if all came at the steady rate (theoretical arrival time)."""

    due: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Taken:
    """`allowed`, or refused and worth asking again in `retry_after` seconds."""

    allowed: bool
    retry_after: float = 0.0


def take(limiter: Limiter, rate: Rate, now: float) -> tuple[Limiter, Taken]:
    """One request arrives at `now` (seconds, monotonic). A refused request changes nothing."""
    due = max(limiter.due, now)
    early = due - (rate.burst - 1) * rate.interval - now
    # one part in 10⁹ of an interval: sums of floats must not refuse who comes exactly on time
    if early > rate.interval * 1e-9:
        return limiter, Taken(allowed=False, retry_after=early)
    return Limiter(due + rate.interval), Taken(allowed=True)
