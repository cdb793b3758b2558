"""The parent's sums over all workers, and the evidence they sent, as the admin port shows both. Pure.

`outcomes.py` says what counts, and how it is packed. What came is added as it is packed, a few steps for each cell
however many groups there are; it is taken apart when somebody asks (`ArmTotals.counts`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strangler_proxy.clients import DistinctClients
from strangler_proxy.decide import Arm
from strangler_proxy.outcomes import LATENCY_BOUNDS, PLACE_BITS, STATUS_BITS, SUM_BITS

_ARMS = (Arm.CONTROL, Arm.CANARY)  # a place's lowest bit is an index here
_CELL = (1 << PLACE_BITS) - 1
_BUCKET = (1 << STATUS_BITS) - 1
_COUNT = (1 << SUM_BITS) - 1
_PLAIN = (
    "fallbacks", "fallback_errors", "breaker_rejections", "aborted", "overridden", "guarded", "cached",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Counters of one arm of one group. `latency` has one bucket for each of LATENCY_BOUNDS and one more."""

    requests: int
    errors: int
    timeouts: int
    fallbacks: int
    fallback_errors: int
    breaker_rejections: int
    aborted: int
    overridden: int
    guarded: int
    cached: int
    latency_ms_sum: float
    by_status: dict[int, int]
    by_error: dict[str, int]
    refused: dict[str, int]
    latency: list[int]


@dataclass(slots=True)
class ArmTotals:
    """Sums of one arm since start, over all workers: `cells` without their place, `counters` by name."""

    cells: dict[int, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    clients: DistinctClients = field(default_factory=DistinctClients)

    @property
    def counts(self) -> ArmCounts:
        """The sums as they stand now, taken apart."""
        latency = [0] * (len(LATENCY_BOUNDS) + 1)
        by_status: dict[int, int] = {}
        microseconds = 0
        for key, value in self.cells.items():
            status, count = key >> STATUS_BITS, value & _COUNT
            latency[key & _BUCKET] += count
            microseconds += value >> SUM_BITS
            if status:
                by_status[status] = by_status.get(status, 0) + count
        by_error = self._by_kind("error")
        plain = {name: self.counters.get(name, 0) for name in _PLAIN}
        return ArmCounts(
            requests=sum(latency),
            errors=sum(by_error.values()),
            timeouts=by_error.get("timeout", 0),
            latency_ms_sum=microseconds / 1000,
            by_status=by_status,
            by_error=by_error,
            refused=self._by_kind("refused"),
            latency=latency,
            **plain,
        )

    def _by_kind(self, kind: str) -> dict[str, int]:
        start = f"{kind} "
        return {
            name.removeprefix(start): count for name, count in self.counters.items() if name.startswith(start)
        }

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
    """The sums of everything, and how many evidence items workers could not keep."""

    groups: dict[str, dict[Arm, ArmTotals]] = field(default_factory=dict)
    dropped: int = 0

    def group(self, name: str) -> dict[Arm, ArmTotals]:
        """Both arms of a group, empty at first."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = {arm: ArmTotals() for arm in _ARMS}
        return found

    def add(self, wire: Mapping[str, Any]) -> None:
        """Add what one worker drained."""
        places = [totals for name in wire["names"] for totals in self.group(name).values()]
        flat = iter(wire["cells"])
        for key, value in zip(flat, flat, strict=True):
            cells = places[key >> PLACE_BITS].cells
            cell = key & _CELL
            cells[cell] = cells.get(cell, 0) + value
        for place, counters in wire.get("counters", ()):
            sums = places[place].counters
            for name, count in counters.items():
                sums[name] = sums.get(name, 0) + count
        for place, digests in wire.get("clients", ()):
            clients = places[place].clients
            for digest in digests:
                clients.add(digest)
        self.dropped += wire.get("dropped", 0)


def evidence(wire: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The evidence in what one worker drained, by group and in the worker's order, as the stream shows it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for place, item in _items(wire["items"]):
        found.setdefault(wire["names"][place >> 1], []).append({"arm": _ARMS[place & 1].value, **item})
    return found


def _items(flat: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    rest = iter(flat)
    for place in rest:
        item = next(rest)
        if isinstance(item, list):
            error, status, client, at_ns, latency_ms, request_id, path, percent = item
            yield (
                place,
                {
                    "error": error,
                    "status": status,
                    "client": client,
                    "at_ns": at_ns,
                    "latency_ms": latency_ms,
                    "request_id": request_id,
                    "path": path,
                    "percent": percent,
                },
            )
        else:
            yield place, {"ok": item, "percent": next(rest)}


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
