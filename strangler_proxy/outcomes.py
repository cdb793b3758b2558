"""What is remembered about requests: counters, latency histogram, and the evidence stream. Pure.

A worker's `Recorder` takes outcomes as they become known and is drained every few milliseconds into a
`dict` that goes to the parent; the parent's `Totals` adds up what all workers drained. Counters and
evidence travel in one message: what is lost with a killed worker is lost from both.

What is evidence (goes into the stream): good answers below 400, and failures: 5xx, timeout, refused, reset,
protocol. What is not: 4xx (the client's fault), requests the client gave up, a tester's overridden
requests, requests that an open breaker kept away, and those that the proxy refused or answered from memory. The
first is counted, the others have counters of their own.

`requests` counts answers and failures of the arm the request was assigned to. A request the canary failed
and the control answered is one request of the canary, one error and one `fallbacks`; it does not appear in
the control arm, whose numbers stay those of the users assigned to it.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from strangler_proxy.clients import DistinctClients
from strangler_proxy.decide import Arm

# Upper bounds in milliseconds; one more bucket takes everything slower.
LATENCY_BOUNDS: tuple[float, ...] = (
    0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750,
    1000, 1500, 2000, 3000, 4000, 5000, 7500, 10_000, 15_000, 30_000, 60_000,
)  # fmt: skip
_MAX_ITEMS = 50_000


class Failure(Enum):
    """How a request failed on an arm."""

    STATUS = "status"  # the backend said 5xx
    TIMEOUT = "timeout"  # no connection, or silence for too long
    REFUSED = "refused"  # no connection could be made, or none was free
    RESET = "reset"  # the connection broke before the answer was whole
    PROTOCOL = "protocol"  # what came was not HTTP


def percent_number(weight: float) -> float | int:
    """`weight` as JSON shows it best: 25, 12.5."""
    return int(weight) if weight == int(weight) else weight


@dataclass(slots=True)
class ArmCounts:
    """Counters of one arm of one group. `latency` has one bucket for each of LATENCY_BOUNDS and one more."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    fallbacks: int = 0
    fallback_errors: int = 0
    breaker_rejections: int = 0
    aborted: int = 0
    overridden: int = 0
    guarded: int = 0
    cached: int = 0
    latency_ms_sum: float = 0.0
    by_status: dict[int, int] = field(default_factory=dict)
    by_error: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    clients: list[int] = field(default_factory=list)  # digests not seen before

    def as_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {name: getattr(self, name) for name in _SUMMED} | {
            "by_status": self.by_status,
            "by_error": self.by_error,
            "refused": self.refused,
            "latency": self.latency,
            "clients": self.clients,
        }


_SUMMED = (
    "requests",
    "errors",
    "timeouts",
    "fallbacks",
    "fallback_errors",
    "breaker_rejections",
    "aborted",
    "overridden",
    "guarded",
    "cached",
    "latency_ms_sum",
)


class _Arm:
    """One arm of one group: what is counted since the last drain, and the clients seen since ever."""

    __slots__ = ("counts", "name", "seen")

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = ArmCounts()
        self.seen = DistinctClients()

    def count(self, status: int, latency_ms: float, client: int) -> ArmCounts:
        """One request; `status` 0 when there was no answer."""
        counts = self.counts
        counts.requests += 1
        counts.latency[bisect_left(LATENCY_BOUNDS, latency_ms)] += 1
        counts.latency_ms_sum += latency_ms
        if status:
            counts.by_status[status] = counts.by_status.get(status, 0) + 1
        if self.seen.add(client):
            counts.clients.append(client)
        return counts


class _Group:
    """Both arms, and the evidence since the last drain. `run` is the last item while it is a run of good
    requests: the next one may belong to it."""

    __slots__ = ("canary", "control", "dirty", "dropped", "items", "run")

    def __init__(self) -> None:
        self.control = _Arm(Arm.CONTROL.value)
        self.canary = _Arm(Arm.CANARY.value)
        self.items: list[list[Any]] = []
        self.run: list[Any] | None = None
        self.dropped = 0
        self.dirty = False

    def arm(self, arm: Arm) -> _Arm:
        """The counts of `arm`, about to change."""
        self.dirty = True
        return self.control if arm is Arm.CONTROL else self.canary

    def append(self, item: list[Any]) -> bool:
        """Add evidence; was there room? When the parent has not read for long, what cannot be kept is counted,
        never silently gone."""
        if len(self.items) >= _MAX_ITEMS:
            self.dropped += 1
            return False
        self.items.append(item)
        return True

    def drain(self) -> dict[str, Any]:
        """What there is, JSON-ready; it starts anew."""
        wire = {
            "control": self.control.counts.as_wire(),
            "canary": self.canary.counts.as_wire(),
            "items": self.items,
            "dropped": self.dropped,
        }
        self.control.counts = ArmCounts()
        self.canary.counts = ArmCounts()
        self.items = []
        self.run = None
        self.dropped = 0
        self.dirty = False
        return wire


class Recorder:
    """A worker's memory of outcomes since the last `drain`."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def answered(
        self, group: str, arm: Arm, *, status: int, latency_ms: float, client: int, weight: float
    ) -> None:
        """A whole answer below 500 came from `arm`."""
        entry = self._entry(group)
        which = entry.arm(arm)
        which.count(status, latency_ms, client)
        if status >= 400:
            return
        run = entry.run
        if run is not None and run[2] == weight and run[0] == which.name:
            run[1] += 1
            return
        run = [which.name, 1, percent_number(weight)]
        entry.run = run if entry.append(run) else None

    def failed(
        self,
        group: str,
        arm: Arm,
        *,
        failure: Failure,
        status: int,
        latency_ms: float,
        client: int,
        weight: float,
        at_ns: int,
        request_id: str,
        path: str,
    ) -> None:
        """`arm` failed; `status` is the backend's, 0 when it gave none."""
        entry = self._entry(group)
        which = entry.arm(arm)
        counts = which.count(status, latency_ms, client)
        counts.errors += 1
        counts.timeouts += failure is Failure.TIMEOUT
        counts.by_error[failure.value] = counts.by_error.get(failure.value, 0) + 1
        opaque = f"{client:016x}"
        latency = round(latency_ms, 3)
        percent = percent_number(weight)
        entry.run = None
        entry.append(
            [which.name, failure.value, status, opaque, at_ns, latency, request_id, path[:512], percent]
        )

    def fell_back(self, group: str, arm: Arm, *, good: bool) -> None:
        """The default backend answered for `arm`; `good`: with less than 500."""
        counts = self._entry(group).arm(arm).counts
        counts.fallbacks += 1
        counts.fallback_errors += not good

    def rejected(self, group: str, arm: Arm) -> None:
        """An open breaker kept a request away from `arm`."""
        self._entry(group).arm(arm).counts.breaker_rejections += 1

    def aborted(self, group: str, arm: Arm) -> None:
        """The client went away before the answer was whole."""
        self._entry(group).arm(arm).counts.aborted += 1

    def guarded(self, group: str, arm: Arm) -> None:
        """The owner answered because the other side was behind; not evidence."""
        self._entry(group).arm(arm).counts.guarded += 1

    def overridden(self, group: str, arm: Arm) -> None:
        """A tester's request ended."""
        self._entry(group).arm(arm).counts.overridden += 1

    def refused(self, group: str, arm: Arm, reason: str) -> None:
        """The proxy itself answered a request of `arm`: without a right to it (`auth`), or one too many
        (`rate`)."""
        refused = self._entry(group).arm(arm).counts.refused
        refused[reason] = refused.get(reason, 0) + 1

    def cached(self, group: str, arm: Arm) -> None:
        """A request of `arm` was answered from memory."""
        self._entry(group).arm(arm).counts.cached += 1

    def drain(self) -> dict[str, Any] | None:
        """Everything since the last drain, JSON-ready; None when nothing happened."""
        wire = {name: entry.drain() for name, entry in self._groups.items() if entry.dirty}
        return wire or None

    def _entry(self, group: str) -> _Group:
        entry = self._groups.get(group)
        if entry is None:
            entry = self._groups[group] = _Group()
        return entry


def item_of(wire: list[Any]) -> dict[str, Any]:
    """An evidence item as the stream shows it."""
    if len(wire) == 3:
        return {"arm": wire[0], "ok": wire[1], "percent": wire[2]}
    arm, error, status, client, at_ns, latency_ms, request_id, path, percent = wire
    return {
        "arm": arm,
        "error": error,
        "status": status,
        "client": client,
        "at_ns": at_ns,
        "latency_ms": latency_ms,
        "request_id": request_id,
        "path": path,
        "percent": percent,
    }


@dataclass(slots=True)
class ArmTotals:
    """Sums of one arm since start, over all workers."""

    counts: ArmCounts = field(default_factory=ArmCounts)
    clients: DistinctClients = field(default_factory=DistinctClients)

    def add(self, wire: Mapping[str, Any]) -> None:
        """Add what one worker drained."""
        for name in _SUMMED:
            setattr(self.counts, name, getattr(self.counts, name) + wire[name])
        for status, count in wire["by_status"].items():
            self.counts.by_status[int(status)] = self.counts.by_status.get(int(status), 0) + count
        for error, count in wire["by_error"].items():
            self.counts.by_error[error] = self.counts.by_error.get(error, 0) + count
        for reason, count in wire["refused"].items():
            self.counts.refused[reason] = self.counts.refused.get(reason, 0) + count
        self.counts.latency = [a + b for a, b in zip(self.counts.latency, wire["latency"], strict=True)]
        for digest in wire["clients"]:
            self.clients.add(digest)

    def as_json(self) -> dict[str, Any]:
        """The ARM object of `GET /admin/outcomes`."""
        counts = self.counts
        return {
            "requests": counts.requests,
            "errors": counts.errors,
            "timeouts": counts.timeouts,
            "fallbacks": counts.fallbacks,
            "fallback_errors": counts.fallback_errors,
            "breaker_rejections": counts.breaker_rejections,
            "aborted": counts.aborted,
            "overridden": counts.overridden,
            "guarded": counts.guarded,
            "refused": dict(sorted(counts.refused.items())),
            "cached": counts.cached,
            "clients": self.clients.count(),
            "by_status": {str(status): count for status, count in sorted(counts.by_status.items())},
            "by_error": dict(sorted(counts.by_error.items())),
            "latency_ms": {
                "p50": quantile(counts.latency, 0.50),
                "p95": quantile(counts.latency, 0.95),
                "p99": quantile(counts.latency, 0.99),
            },
        }


@dataclass(slots=True)
class Totals:
    """The parent's sums of everything, and how many evidence items workers could not keep."""

    groups: dict[str, dict[Arm, ArmTotals]] = field(default_factory=dict)
    dropped: int = 0

    def group(self, name: str) -> dict[Arm, ArmTotals]:
        """Both arms of a group, empty at first."""
        return self.groups.setdefault(name, {Arm.CONTROL: ArmTotals(), Arm.CANARY: ArmTotals()})

    def add(self, wire: Mapping[str, Any]) -> None:
        """Add what one worker drained."""
        for name, entry in wire.items():
            arms = self.group(name)
            for arm in Arm:
                arms[arm].add(entry[arm.value])
            self.dropped += entry["dropped"]


def quantile(latency: list[int], share: float) -> float | None:
    """The latency in ms below which `share` of the answers lie, interpolated in its bucket; None without
    any."""
    total = sum(latency)
    if not total:
        return None
    wanted = share * total
    below = 0
    for index, count in enumerate(latency):
        if count and below + count >= wanted:
            if index == len(LATENCY_BOUNDS):
                return LATENCY_BOUNDS[-1]
            low = LATENCY_BOUNDS[index - 1] if index else 0.0
            return round(low + (LATENCY_BOUNDS[index] - low) * (wanted - below) / count, 3)
        below += count
    return LATENCY_BOUNDS[-1]
