"""What a worker remembers about requests until it tells the parent: counters and the evidence stream. Pure.

A worker's `Recorder` takes outcomes as they become known and is drained every few milliseconds into a
`dict` that goes to the parent; the parent's `Totals` (`totals.py`) adds up what all workers drained. Counters and
evidence travel in one message: what is lost with a killed worker is lost from both.

What is evidence (goes into the stream): good answers below 400, and failures: 5xx, timeout, refused, reset,
protocol. What is not: 4xx (the client's fault), requests the client gave up, a tester's overridden
requests, requests that an open breaker kept away, and those that the proxy refused or answered from memory. The
first is counted, the others have counters of their own.

`requests` counts answers and failures of the arm the request was assigned to. A request the canary failed
and the control answered is one request of the canary, one error and one `fallbacks`; it does not appear in
the control arm, whose numbers stay those of the users assigned to it.

Under load, and with hundreds of groups, a worker drains some hundred outcomes of as many groups each time. So
recording one is a few steps whatever the number of groups, and what is drained is as long as what happened, in few
and flat pieces (JSON-ready):

| key | value |
|---|---|
| `names` | the groups that something happened to; *place* is 2 x the index here, and one more for the canary |
| `cells` | by place, status and bucket of the latency: how many requests, sum of their latencies (see `PLACE_BITS`) |
| `items` | evidence in order. A run of good answers: place, how many, percent. A failure: place, and a list |
| `counters` | by place (lists of two): counters that few requests touch, by name |
| `clients` | by place (lists of two): digests not seen before |
| `dropped` | evidence that there was no room for, because the parent did not read for long |
"""

from bisect import bisect_left
from enum import Enum
from typing import Any, Final

from strangler_proxy.clients import DistinctClients
from strangler_proxy.decide import Arm

# Upper bounds in milliseconds; one more bucket takes everything slower.
LATENCY_BOUNDS: tuple[float, ...] = (
    0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750,
    1000, 1500, 2000, 3000, 4000, 5000, 7500, 10_000, 15_000, 30_000, 60_000,
)  # fmt: skip
MOST_ITEMS = 50_000  # runs and failures between two drains

# A cell is two numbers one after the other. The key is place << 16 | status << 6 | bucket, the value the sum of
# latencies in us << 32 | number of requests: one step in one dictionary counts all of it.
PLACE_BITS: Final = 16
STATUS_BITS: Final = 6
SUM_BITS: Final = 32
_CANARY: Final = Arm.CANARY


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


class _Group:
    """A group: the clients seen since ever by arm and, of the drain that is being filled (number `round`), its
    place, and where in the items its last run of good answers has its length, -1 when the next good answer begins
    another one."""

    __slots__ = ("canary", "control", "name", "place", "round", "run_at", "run_place", "run_weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.control = DistinctClients()
        self.canary = DistinctClients()
        self.round = -1
        self.place = 0
        self.run_at = -1
        self.run_place = 0
        self.run_weight = 0.0


class Recorder:
    """A worker's memory of outcomes since the last `drain`."""

    __slots__ = (
        "_cells",
        "_clients",
        "_counters",
        "_dropped",
        "_groups",
        "_items",
        "_kept",
        "_names",
        "_round",
    )

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._round = 0
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []
        self._cells: dict[int, int] = {}
        self._items: list[Any] = []
        self._kept = 0
        self._counters: dict[int, dict[str, int]] = {}
        self._clients: dict[int, list[int]] = {}
        self._dropped = 0

    def answered(
        self, group: str, arm: Arm, *, status: int, latency_ms: float, client: int, weight: float
    ) -> None:
        """A whole answer below 500 came from `arm`."""
        entry = self._entry(group)
        place = self._count(entry, arm, status, latency_ms, client)
        if status >= 400:
            return
        at = entry.run_at
        if at >= 0 and entry.run_place == place and entry.run_weight == weight:
            self._items[at] += 1
        elif self._room():
            entry.run_at = len(self._items) + 1
            entry.run_place = place
            entry.run_weight = weight
            self._items.extend((place, 1, percent_number(weight)))
        else:
            entry.run_at = -1

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
        place = self._count(entry, arm, status, latency_ms, client)
        kind: str = failure.value
        self._add(place, f"error {kind}")
        entry.run_at = -1
        if self._room():
            opaque, latency, percent = f"{client:016x}", round(latency_ms, 3), percent_number(weight)
            self._items.append(place)
            self._items.append([kind, status, opaque, at_ns, latency, request_id, path[:512], percent])

    def fell_back(self, group: str, arm: Arm, *, good: bool) -> None:
        """The default backend answered for `arm`; `good`: with less than 500."""
        place = self._place(group, arm)
        self._add(place, "fallbacks")
        if not good:
            self._add(place, "fallback_errors")

    def rejected(self, group: str, arm: Arm) -> None:
        """An open breaker kept a request away from `arm`."""
        self._add(self._place(group, arm), "breaker_rejections")

    def aborted(self, group: str, arm: Arm) -> None:
        """The client went away before the answer was whole."""
        self._add(self._place(group, arm), "aborted")

    def overridden(self, group: str, arm: Arm) -> None:
        """A tester's request ended."""
        self._add(self._place(group, arm), "overridden")

    def guarded(self, group: str, arm: Arm) -> None:
        """The owner answered because the other side was behind; not evidence."""
        self._add(self._place(group, arm), "guarded")

    def refused(self, group: str, arm: Arm, reason: str) -> None:
        """The proxy itself answered a request of `arm`: without a right to it (`auth`), or one too many
        (`rate`)."""
        self._add(self._place(group, arm), f"refused {reason}")

    def cached(self, group: str, arm: Arm) -> None:
        """A request of `arm` was answered from memory."""
        self._add(self._place(group, arm), "cached")

    def drain(self) -> dict[str, Any] | None:
        """Everything since the last drain (see the module's table); None when nothing happened."""
        if not self._names:
            return None
        cells: list[int] = []
        for key, value in self._cells.items():
            cells.append(key)
            cells.append(value)
        wire: dict[str, Any] = {"names": self._names, "cells": cells, "items": self._items}
        if self._counters:
            wire["counters"] = [[place, counters] for place, counters in self._counters.items()]
        if self._clients:
            wire["clients"] = [[place, digests] for place, digests in self._clients.items()]
        if self._dropped:
            wire["dropped"] = self._dropped
        self._round += 1
        self._begin()
        return wire

    def _entry(self, name: str) -> _Group:
        """The group, with a place in the drain that is being filled."""
        entry = self._groups.get(name)
        if entry is None:
            entry = self._groups[name] = _Group(name)
        if entry.round != self._round:
            entry.round = self._round
            entry.place = 2 * len(self._names)
            entry.run_at = -1
            self._names.append(name)
        return entry

    def _place(self, name: str, arm: Arm) -> int:
        return self._entry(name).place + (arm is _CANARY)

    def _count(self, entry: _Group, arm: Arm, status: int, latency_ms: float, client: int) -> int:
        """One request; `status` 0 when there was no answer. Its place."""
        if arm is _CANARY:
            place, seen = entry.place + 1, entry.canary
        else:
            place, seen = entry.place, entry.control
        bucket = bisect_left(LATENCY_BOUNDS, latency_ms)
        key = place << PLACE_BITS | status << STATUS_BITS | bucket
        cells = self._cells
        cells[key] = cells.get(key, 0) + (int(latency_ms * 1000) << SUM_BITS) + 1
        if seen.add(client):
            self._clients.setdefault(place, []).append(client)
        return place

    def _add(self, place: int, counter: str) -> None:
        counters = self._counters.get(place)
        if counters is None:
            counters = self._counters[place] = {}
        counters[counter] = counters.get(counter, 0) + 1

    def _room(self) -> bool:
        """Is there room for one more item? When the parent has not read for long, what cannot be kept is counted,
        never silently gone."""
        if self._kept >= MOST_ITEMS:
            self._dropped += 1
            return False
        self._kept += 1
        return True
