"""Enough evidence to go on? Signals in, one `GateResult` for each gate out.

Three outcomes: `pass`, `hold` (not enough, not yet, or not known) and `fail` (evidence against). No
evidence is not good evidence: a signal that is missing, or older than `max_signal_age`, holds. Every result
carries its number and its limit, so that whoever reads it need not trust it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from migration_plans.quantities import format_bytes, format_seconds
from migration_plans.stages import KINDS, GateName, Stage


class GateOutcome(StrEnum):
    """What a gate says."""

    PASS = "pass"  # noqa: S105  (an outcome, not a password)
    HOLD = "hold"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Limits of one stage: seconds, bytes, counts; from the plan, with the stage's own values on top."""

    max_lag: float = 5.0
    max_lag_bytes: int = 16_000_000
    min_requests: int = 200
    soak: float = 60.0
    verify: bool = True
    max_signal_age: float = 3.0
    max_errors: float = 0.01
    max_parked: int = 0
    max_retained: int = 5_000_000_000


@dataclass(frozen=True, slots=True)
class ProxySignal:
    """What the proxy says of itself. `live_since` is when its last worker took over the percentage (Unix
    seconds).
    """

    at: float
    workers: int
    workers_live: int
    live_percent: Decimal | None
    live_since: float | None
    stream_connected: bool


@dataclass(frozen=True, slots=True)
class StreamSignal:
    """What the change stream says of itself. `lag_seconds`/`lag_bytes` are None while it cannot tell.

    `problem` is the error it stopped with; `parked` the keys that wait because the target refused a change, None
    when that is not known.
    """

    at: float
    phase: str
    streaming: bool
    lag_seconds: float | None
    lag_bytes: int | None
    problem: str = ""
    snapshot_rows: int = 0
    snapshot_total: int = 0
    parked: int | None = None


@dataclass(frozen=True, slots=True)
class SlotSignal:
    """What the source keeps for the stream's slot (`cdc.retention.Retention`), sizes in bytes."""

    at: float
    name: str
    exists: bool
    active: bool = False
    retained: int = 0
    status: str = ""
    safe: int | None = None
    keep_at_most: int | None = None
    disk_free: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Shape in docs/reference/status.md."""
        return {
            "name": self.name,
            "exists": self.exists,
            "active": self.active,
            "retained": self.retained,
            "status": self.status,
            "safe": self.safe,
            "keep_at_most": self.keep_at_most,
            "disk_free": self.disk_free,
        }


@dataclass(frozen=True, slots=True)
class VerifySignal:
    """The last comparison of both sides, row by row, at one log position. `differing` leaves parked rows out."""

    at: float
    position: str
    rows: int
    differing: int


@dataclass(frozen=True, slots=True)
class CanarySignal:
    """The canary's requests since the stage's percentage became live, and the rate the rollback rule
    tolerates.
    """

    at: float
    requests: int
    errors: int
    tolerated: float


@dataclass(frozen=True, slots=True)
class Signals:
    """All that gates may know. None: never heard of."""

    now: float
    proxy: ProxySignal | None = None
    stream: StreamSignal | None = None
    verify: VerifySignal | None = None
    canary: CanarySignal | None = None
    entered_at: float | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's answer, with its number, its limit and a sentence."""

    gate: GateName
    outcome: GateOutcome
    text: str
    value: float | int | None = None
    limit: float | int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Shape for `--json` (docs/reference/status.md)."""
        return {
            "gate": self.gate.value,
            "outcome": self.outcome.value,
            "value": self.value,
            "limit": self.limit,
            "text": self.text,
        }


def evaluate(stage: Stage, policy: GatePolicy, signals: Signals) -> tuple[GateResult, ...]:
    """Every gate between `stage` and the next one."""
    return tuple(_GATES[name](stage, policy, signals) for name in KINDS[stage.kind].gates)


def summary(results: tuple[GateResult, ...]) -> GateOutcome:
    """FAIL if any gate fails, PASS only if every gate passes, else HOLD."""
    outcomes = {result.outcome for result in results}
    if GateOutcome.FAIL in outcomes:
        return GateOutcome.FAIL
    return GateOutcome.PASS if outcomes == {GateOutcome.PASS} else GateOutcome.HOLD


def _proxy(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, proxy = GateName.PROXY, signals.proxy
    if proxy is None:
        return GateResult(
            name, GateOutcome.HOLD, "the proxy has not answered yet; is its admin port reachable?"
        )
    if stale := _stale(name, proxy.at, policy, signals, "the proxy's status"):
        return stale
    if proxy.workers == 0 or proxy.workers_live < proxy.workers:
        text = f"{proxy.workers_live} of {proxy.workers} workers run the routes file's version"
        return GateResult(name, GateOutcome.HOLD, text, proxy.workers_live, proxy.workers)
    if not proxy.stream_connected:
        return GateResult(
            name, GateOutcome.HOLD, "the outcome stream is cut: what is not seen cannot be good"
        )
    if proxy.live_percent != stage.percent:
        text = f"the workers run {proxy.live_percent} %, the stage wants {stage.percent} %"
        return GateResult(name, GateOutcome.HOLD, text)
    text = f"all {proxy.workers} workers run {stage.percent.normalize():f} %"
    return GateResult(name, GateOutcome.PASS, text, proxy.workers_live, proxy.workers)


def _stream(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, stream = GateName.STREAM, signals.stream
    if stream is None:
        return GateResult(
            name, GateOutcome.HOLD, "no change stream yet; start it with `strangler cdc run PLAN`"
        )
    if stream.problem:
        return GateResult(name, GateOutcome.HOLD, f"the change stream has stopped: {stream.problem}")
    if stale := _stale(name, stream.at, policy, signals, "the change stream's heartbeat"):
        return stale
    if not stream.streaming:
        text = f"phase {stream.phase}"
        if stream.snapshot_total:
            text += f", {stream.snapshot_rows} of about {stream.snapshot_total} rows copied"
        return GateResult(name, GateOutcome.HOLD, text, stream.snapshot_rows, stream.snapshot_total)
    return GateResult(name, GateOutcome.PASS, "the snapshot is complete, changes are flowing")


def _lag(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, stream = GateName.LAG, signals.stream
    if stream is None or stream.lag_seconds is None or stream.lag_bytes is None:
        return GateResult(
            name, GateOutcome.HOLD, "the lag of the change stream is not known", None, policy.max_lag
        )
    if stale := _stale(name, stream.at, policy, signals, "the lag"):
        return stale
    text = (
        f"{format_seconds(stream.lag_seconds)} and {format_bytes(stream.lag_bytes)} behind, at most "
        f"{format_seconds(policy.max_lag)} and {format_bytes(policy.max_lag_bytes)}"
    )
    fine = stream.lag_seconds <= policy.max_lag and stream.lag_bytes <= policy.max_lag_bytes
    outcome = GateOutcome.PASS if fine else GateOutcome.HOLD
    return GateResult(name, outcome, text, round(stream.lag_seconds, 3), policy.max_lag)


def _parked(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, stream = GateName.PARKED, signals.stream
    if stream is None or stream.parked is None:
        text = "whether the target refused changes is not known"
        return GateResult(name, GateOutcome.HOLD, text, None, policy.max_parked)
    if stale := _stale(name, stream.at, policy, signals, "the count of parked keys"):
        return stale
    outcome = GateOutcome.PASS if stream.parked <= policy.max_parked else GateOutcome.HOLD
    text = f"{stream.parked} parked keys, at most {policy.max_parked}"
    if outcome is GateOutcome.HOLD:
        text += "; `strangler cdc parked PLAN` says why, then `strangler cdc retry` or `skip`"
    return GateResult(name, outcome, text, stream.parked, policy.max_parked)


def _verified(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, report = GateName.VERIFIED, signals.verify
    if not policy.verify:
        return GateResult(name, GateOutcome.PASS, "the plan does not ask for verification here")
    if report is None:
        return GateResult(name, GateOutcome.HOLD, "the two sides have not been compared yet")
    if report.differing:
        text = f"{report.differing} of {report.rows} rows differ at {report.position}; `strangler verify` names them"
        return GateResult(name, GateOutcome.FAIL, text, report.differing, 0)
    if report.rows == 0:
        text = "the comparison saw no rows at all; an empty table proves nothing"
        return GateResult(name, GateOutcome.HOLD, text, 0, 1)
    return GateResult(name, GateOutcome.PASS, f"{report.rows} rows equal at {report.position}", 0, 0)


def _requests(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, canary = GateName.REQUESTS, signals.canary
    if canary is None:
        return GateResult(name, GateOutcome.HOLD, "no canary request seen yet", 0, policy.min_requests)
    if stale := _stale(name, canary.at, policy, signals, "the outcome stream"):
        return stale
    outcome = GateOutcome.PASS if canary.requests >= policy.min_requests else GateOutcome.HOLD
    text = f"{canary.requests} canary requests at this percentage, {policy.min_requests} needed"
    return GateResult(name, outcome, text, canary.requests, policy.min_requests)


def _errors(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name, canary = GateName.ERRORS, signals.canary
    if canary is None or not canary.requests:
        return GateResult(name, GateOutcome.HOLD, "no canary request seen yet", None, policy.max_errors)
    limit = max(policy.max_errors, canary.tolerated)
    rate = canary.errors / canary.requests
    outcome = GateOutcome.PASS if rate <= limit else GateOutcome.HOLD
    text = f"{canary.errors} of {canary.requests} canary requests failed ({rate:.2%}), at most {limit:.2%}"
    return GateResult(name, outcome, text, round(rate, 6), round(limit, 6))


def _soak(stage: Stage, policy: GatePolicy, signals: Signals) -> GateResult:
    name = GateName.SOAK
    # a percentage soaks from the moment its last worker took it over, any other stage from its entry
    starts = [signals.entered_at]
    if KINDS[stage.kind].carries_traffic:
        starts.append(signals.proxy.live_since if signals.proxy else None)
    known = [start for start in starts if start is not None]
    if len(known) < len(starts):
        return GateResult(name, GateOutcome.HOLD, "not live yet", 0.0, policy.soak)
    seconds = max(0.0, signals.now - max(known))
    outcome = GateOutcome.PASS if seconds >= policy.soak else GateOutcome.HOLD
    text = f"live for {format_seconds(seconds)}, {format_seconds(policy.soak)} wanted"
    return GateResult(name, outcome, text, round(seconds, 3), policy.soak)


def _stale(name: GateName, at: float, policy: GatePolicy, signals: Signals, what: str) -> GateResult | None:
    age = signals.now - at
    if abs(age) <= policy.max_signal_age:
        return None
    if age < 0:
        text = (
            f"{what} is {format_seconds(-age)} from the future: the clock went back, so its age is not known"
        )
        return GateResult(name, GateOutcome.HOLD, text, round(age, 3), policy.max_signal_age)
    text = f"{what} is {format_seconds(age)} old, at most {format_seconds(policy.max_signal_age)}: stale is missing"
    return GateResult(name, GateOutcome.HOLD, text, round(age, 3), policy.max_signal_age)


_GATES: Mapping[GateName, Callable[[Stage, GatePolicy, Signals], GateResult]] = {
    GateName.PROXY: _proxy,
    GateName.STREAM: _stream,
    GateName.LAG: _lag,
    GateName.PARKED: _parked,
    GateName.VERIFIED: _verified,
    GateName.REQUESTS: _requests,
    GateName.ERRORS: _errors,
    GateName.SOAK: _soak,
}
