"""What the shoppers saw, added up. Pure: one `Seen` for each request in, totals and time slices out.

Latency has two readings: from the time the request was due (what a shopper would have felt, had the driver
been late) and from the time it was sent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Arm = Literal["control", "canary", "fallback", "guarded", "none"]
ARMS: Sequence[Arm] = ("control", "canary", "fallback", "guarded", "none")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its shopper saw it. Times in seconds since 1970.

    `arm` is who answered, "none" for routes that do not move. `status` is 0 when no answer came. `fault` is
    empty, or says what was wrong from the shopper's point of view. `identity` is whom the proxy took the
    request for, empty when unknown.
    """

    step: str
    safe: bool
    arm: Arm
    status: int
    due: float
    sent: float
    answered: float
    identity: str
    fault: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of time: from `start` (seconds since 1970), requests, faults and safe requests by arm."""

    start: float
    requests: Mapping[Arm, int]
    faults: Mapping[Arm, int]
    safe: Mapping[Arm, int]


@dataclass(slots=True)
class Record:
    """Grows while the traffic runs."""

    seen: list[Seen] = field(default_factory=list)
    by_arm: Counter[Arm] = field(default_factory=Counter)
    by_status: Counter[int] = field(default_factory=Counter)
    by_step: Counter[str] = field(default_factory=Counter)
    faults: list[Seen] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        """Count one."""
        self.seen.append(seen)
        self.by_arm[seen.arm] += 1
        self.by_status[seen.status] += 1
        self.by_step[seen.step] += 1
        if seen.fault:
            self.faults.append(seen)

    @property
    def total(self) -> int:
        """Requests so far."""
        return len(self.seen)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of ascending `values`; 0 when there are none."""
    if not values:
        return 0.0
    return values[min(len(values) - 1, max(0, round(share * len(values) + 0.5) - 1))]


def latency(seen: Iterable[Seen], *, from_due: bool = True) -> Latency:
    """Percentiles of `seen`, counted from when each was due or from when it was sent."""
    values = sorted((item.answered - (item.due if from_due else item.sent)) * 1000 for item in seen)
    return Latency(*(round(percentile(values, share), 2) for share in (0.5, 0.95, 0.99)))


def slices(seen: Sequence[Seen], *, width: float) -> list[Slice]:
    """`seen` in slices of `width` seconds by the time of the answer, from the first to the last one."""
    if not seen:
        return []
    start = min(item.answered for item in seen)
    count = int((max(item.answered for item in seen) - start) / width) + 1
    requests: list[Counter[Arm]] = [Counter() for _ in range(count)]
    faults: list[Counter[Arm]] = [Counter() for _ in range(count)]
    safe: list[Counter[Arm]] = [Counter() for _ in range(count)]
    for item in seen:
        place = int((item.answered - start) / width)
        requests[place][item.arm] += 1
        if item.fault:
            faults[place][item.arm] += 1
        if item.safe:
            safe[place][item.arm] += 1
    return [
        Slice(start + place * width, requests[place], faults[place], safe[place]) for place in range(count)
    ]
