"""Envoy's log lines turned into outcomes: the same that a worker records, by the same rules (account.py). Pure.

Two kinds of line come through one pipe, in order. One for each request when it has ended (`front.LOG_FIELDS`); and,
before it, one for each attempt at a backend that failed (`front.ATTEMPT_FIELDS`): of a request that another backend
answered in the end only that line knows what became of the service's own attempt. The two are joined by connection
and request id.

| what Envoy says (response flags) | outcome |
|---|---|
| no flag | answered; 5xx is a failure `status` |
| UT; SI of an attempt | `timeout` |
| UF | `refused`, or `timeout` when the connection took too long |
| UC, UR, LR | `reset` |
| UPE | `protocol` before an answer began, `reset` after |
| UH (all ejected), UO (no room) | kept away from the arm: `breaker_rejections` |
| DC, DPE, DR, SI of a request | the client gave up: `aborted` |

Flags: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage#response-flags.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from strangler_proxy.decide import Arm
from strangler_proxy.envoy.render import DEFAULT_SIDE, FILTER_ANSWERED
from strangler_proxy.outcomes import Failure, Recorder
from strangler_proxy.table import UNROUTED

_CLIENT_GONE = frozenset({"DC", "DPE", "DR", "SI", "DT"})
_KEPT_AWAY = frozenset({"UH", "UO"})
_TIMED_OUT = frozenset({"UT", "SI", "SRTT"})
_BROKEN = frozenset({"UC", "UR", "LR"})
_MOST_ATTEMPTS = 10_000  # failed attempts whose request has not ended yet


class BadLineError(ValueError):
    """A line that Envoy cannot have written by our format: the pipe lost part of it."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a route's name says (`render.route_name`)."""

    group: str
    arm: Arm
    percent: float
    evidence: bool

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises BadLineError."""
        try:
            group, arm, percent, evidence = name.split("|")
            return cls(group, Arm(arm), float(percent), evidence == "evidence")
        except ValueError as error:
            raise BadLineError(f"not a route of ours: {name!r}") from error


@dataclass(frozen=True, slots=True)
class Failed:
    """How an attempt failed. `status` is the backend's, 0 when it gave none; `at_ns` since 1970."""

    failure: Failure
    status: int
    at_ns: int
    latency_ms: float


def failure_of(status: int, flags: str, details: str) -> tuple[Failure, int] | None:
    """The failure and the backend's status, or None when it answered below 500."""
    said = set(flags.split(",")) - {"-", ""}
    begun = "after_response_started" in details
    given = status if begun else 0
    if said & _TIMED_OUT:
        return Failure.TIMEOUT, given
    if "UF" in said:
        timed_out = "timeout" in details.lower()
        return (Failure.TIMEOUT if timed_out else Failure.REFUSED), 0
    if "UPE" in said:
        return (Failure.RESET if begun else Failure.PROTOCOL), given
    if said & _BROKEN:
        return Failure.RESET, given
    return (Failure.STATUS, status) if status >= 500 else None


@dataclass(slots=True)
class Tally:
    """Takes lines, records outcomes. `ended` counts requests since Envoy's start, for `Reconciliation`."""

    recorder: Recorder
    ended: int = 0
    _attempts: dict[tuple[int, str], deque[Failed]] = field(default_factory=dict)
    _routes: dict[str, Route] = field(default_factory=dict)

    def line(self, data: bytes) -> bool:
        """One line; True when it told of a failure. Raises BadLineError."""
        try:
            said: dict[str, Any] = json.loads(data)
        except ValueError as error:
            raise BadLineError(f"not JSON: {data[:200]!r}") from error
        if "attempt" in said:
            self._attempt(said)
            return True
        self.ended += 1
        name = said["route"] if said["details"] != FILTER_ANSWERED else None
        failed = self._attempts.pop((said["connection"], said["id"] or ""), None) if self._attempts else None
        if name is None or name == UNROUTED:
            return False
        return self._request(self._route(name), said, failed[0] if failed else None)

    def _route(self, name: str) -> Route:
        route = self._routes.get(name)
        if route is None:
            if len(self._routes) >= 50_000:
                self._routes.clear()  # names of routes that are gone
            route = self._routes[name] = Route.parse(name)
        return route

    def _attempt(self, said: dict[str, Any]) -> None:
        status = said["status"] or 0
        found = failure_of(status, said["flags"] or "", said["details"] or "")
        if found is None:
            return  # the request ended first: its own line says how
        if len(self._attempts) >= _MOST_ATTEMPTS:
            self._attempts.pop(next(iter(self._attempts)))
        failure, status = found
        waiting = self._attempts.setdefault((said["connection"], said["attempt"] or ""), deque())
        ms = float(said["ms"] or 0)
        waiting.append(Failed(failure, status, _at_ns(said["start"], ms), ms))

    def _request(self, route: Route, said: dict[str, Any], first: Failed | None) -> bool:
        recorder, group, arm = self.recorder, route.group, route.arm
        flags = set((said["flags"] or "").split(","))
        status, attempts = said["status"] or 0, said["attempts"] or 0
        if not route.evidence:
            recorder.overridden(group, arm)
            return False
        stood_in = arm is Arm.CANARY and said["side"] == DEFAULT_SIDE
        gone = bool(flags & _CLIENT_GONE)
        latency_ms = _latency_ms(said)
        found = failure_of(status, said["flags"] or "", said["details"] or "")
        good = found is None and status > 0
        if attempts > 1 or stood_in:
            if attempts > 1:
                # Without its line the attempt still failed, or there would not have been a second one.
                lost = Failed(Failure.RESET, 0, _at_ns(said["start"], latency_ms), latency_ms)
                self._failed(route, said, first or lost)
            else:
                recorder.rejected(group, arm)
            if gone:
                recorder.aborted(group, arm)
            else:
                recorder.fell_back(group, arm, good=good)
            return attempts > 1
        if gone or not (flags & _KEPT_AWAY or found or status):
            recorder.aborted(group, arm)
        elif flags & _KEPT_AWAY:
            recorder.rejected(group, arm)
        elif found is not None:
            failure, status = found
            at_ns = _at_ns(said["start"], latency_ms)
            self._failed(route, said, Failed(failure, status, at_ns, latency_ms))
            return True
        else:
            recorder.answered(
                group,
                arm,
                status=status,
                latency_ms=latency_ms,
                client=int(said["digest"] or "0", 16),
                weight=route.percent,
            )
        return False

    def _failed(self, route: Route, said: dict[str, Any], how: Failed) -> None:
        self.recorder.failed(
            route.group,
            route.arm,
            failure=how.failure,
            status=how.status,
            latency_ms=how.latency_ms,
            client=int(said["digest"] or "0", 16),
            weight=route.percent,
            at_ns=how.at_ns,
            request_id=said["id"] or "",
            path=(said["path"] or "").partition("?")[0],
        )


def _latency_ms(said: dict[str, Any]) -> float:
    """From the request's first byte to the answer's last; in whole milliseconds where the finer clock is missing
    (a request that was cut off)."""
    return said["us"] / 1000 if said["us"] is not None else float(said["ms"] or 0)


def _at_ns(start: str, latency_ms: float) -> int:
    whole, _, micro = start.partition(".")
    return int(whole) * 1_000_000_000 + int(micro) * 1000 + int(latency_ms * 1_000_000)


@dataclass(slots=True)
class Reconciliation:
    """Is every request that Envoy counts in the log, too? A request that ended before the last look must have been
    read by this one; what is missing then is lost, and says so."""

    _before: int = 0
    _lost: int = 0

    def look(self, *, counted: int, read: int) -> int:
        """`counted` requests ended by Envoy's counters, `read` by its log, since its start. How many lines turned out
        to be lost since the last look."""
        missing = max(0, self._before - read - self._lost)
        self._lost += missing
        self._before = max(self._before, counted)
        return missing
