"""Too many errors? The only home of that rule.

The proxy's outcomes are folded, one by one, into a `Watch`; `judge` reads a `Verdict` off it. Both are pure.

    Watch.begin(limits, ...) ── fold(watch, outcome) ──► Watch ── judge(watch) ──► Verdict(KEEP | ROLLBACK |
    PAUSE)

A service is rolled back when one of four rules speaks against it:

1. `start`: the mixture test over everything since its percentage became live (see sequential.py);
2. `change`: the same alternatives as CUSUM, for a service that breaks after it was good;
3. `cap`: the readable one: more than `error_rate` (5 %) of at least `min_requests` (100) requests;
4. `refused`: two refused connections with no answer in between. That is no matter of chance: nobody listens.

Against false alarms stand: one error per client and time window counts as a trial, repeated ones are
neither trial nor failure (a client that retries a poisoned request is one fact, not twenty); no verdict
before two distinct clients have failed, nor while one client makes up more than half of the failures. A
refused connection is not the client's doing, so those two conditions do not apply to it.

When the monolith's arm fails as well, the service is not what is broken: PAUSE. To know that, the verdict
waits for one answer of the monolith since the service began to fail, but not beyond the third failure.

Sources: `docs` of the tests in sequential.py; thresholds and traps are measured by
tests/unit/test_rollback_*.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from migration_plans.outcomes import Arm, Bad, Good, Outcome
from migration_plans.sequential import Alternatives, ChangeDetector, spend, upper_bound

# Fewer control requests than this say nothing useful about a rate near 1 %: with none of 300 failing the
# 99 % upper bound is still 1.5 %.
_CONTROL_REQUESTS_FOR_BOUND = 300
# A verdict waits for a word from the monolith's arm until this many failures, not longer.
_FAILURES_WITHOUT_WITNESS = 3
_REFUSED_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """The rollback policy of a plan.

    Shares are fractions of one. `alpha`: chance of a false rollback in one test; `family_alpha`: of all
    tests of the migration together. `run_length` and `steady_run_length`: requests between two false alarms
    of rule 2 if the service failed exactly at the tolerated rate, during a stage and after the last one.
    """

    tolerate: float = 0.01
    alpha: float = 0.001
    family_alpha: float = 0.01
    error_rate: float = 0.05
    min_requests: int = 100
    client_window: float = 10.0
    run_length: float = 11_000.0
    steady_run_length: float = 1_000_000.0


class Ruling(StrEnum):
    """What the evidence says."""

    KEEP = "keep"
    ROLLBACK = "rollback"
    PAUSE = "pause"


class Rule(StrEnum):
    """Which rule spoke first."""

    NONE = "none"
    START = "start"
    CHANGE = "change"
    CAP = "cap"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Requests from the first failure of a heap of failures to now: all, those that failed, and counted trials."""

    requests: int = 0
    failed: int = 0
    trials: int = 0


@dataclass(frozen=True, slots=True)
class ArmEvidence:
    """One arm's counts. `requests`/`errors` are raw; `trials`/`failures` leave repeated errors of a client out.

    `cluster` is the present heap of failures: all requests since the detector's sharpest alternative last rested.
    """

    requests: int = 0
    errors: int = 0
    trials: int = 0
    failures: int = 0
    detector: ChangeDetector = field(default_factory=ChangeDetector)
    failures_by_client: Mapping[str, int] = field(default_factory=dict)
    last_error_ns: Mapping[str, int] = field(default_factory=dict)
    refused_in_a_row: int = 0
    cluster: Cluster = field(default_factory=Cluster)
    by_error: Mapping[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Share of failed trials, 0 without any."""
        return self.failures / self.trials if self.trials else 0.0


@dataclass(frozen=True, slots=True)
class Witness:
    """What the monolith's arm answered since the service's present run of failures began."""

    good: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """All evidence of one stage: the two arms, and what they are measured against."""

    limits: Limits
    alternatives: Alternatives
    alpha: float
    percent: Decimal
    steady: bool = False
    canary: ArmEvidence = field(default_factory=ArmEvidence)
    control: ArmEvidence = field(default_factory=ArmEvidence)
    witness: Witness = field(default_factory=Witness)
    failing_run: int = 0
    last: Bad | None = None

    @classmethod
    def begin(
        cls,
        limits: Limits,
        *,
        percent: Decimal,
        test: int = 1,
        steady: bool = False,
        control_requests: int = 0,
        control_errors: int = 0,
    ) -> "Watch":
        """Start to watch at `percent`, as the `test`-th test of this migration.

        `control_requests` and `control_errors` are what is known of the monolith so far: a service need not
        be better than the monolith it replaces, so p0 is the larger of `tolerate` and the monolith's upper
        bound.
        """
        p0 = limits.tolerate
        if control_requests >= _CONTROL_REQUESTS_FOR_BOUND:
            p0 = min(max(p0, upper_bound(control_requests, control_errors)), 0.5)
        return cls(
            limits=limits,
            alternatives=Alternatives.against(p0),
            alpha=spend(limits.alpha, limits.family_alpha, test),
            percent=percent,
            steady=steady,
        )

    @property
    def run_length(self) -> float:
        """The threshold of the change rule now."""
        return self.limits.steady_run_length if self.steady else self.limits.run_length

    def settled(self) -> "Watch":
        """The same evidence once the last stage has passed: from now on rules `change` and `refused` alone."""
        return replace(self, steady=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ruling and everything needed to check it by hand. E-values are natural logarithms."""

    ruling: Ruling
    rule: Rule
    reason: str
    percent: Decimal
    p0: float
    alpha: float
    start_log_e: float
    start_log_threshold: float
    change_log_e: float
    change_log_threshold: float
    cap: float
    cap_requests: int
    canary_requests: int
    canary_errors: int
    canary_trials: int
    canary_failures: int
    canary_clients: int
    canary_by_error: Mapping[str, int]
    to_detect: Cluster
    control_requests: int
    control_errors: int
    control_log_e: float
    witness: Witness
    deciding: Bad | None

    def as_dict(self) -> dict[str, Any]:
        """Shape for `--json` and for the ledger (docs/reference/status.md)."""
        return {
            "ruling": self.ruling.value,
            "rule": self.rule.value,
            "reason": self.reason,
            "percent": float(self.percent),
            "p0": round(self.p0, 6),
            "alpha": self.alpha,
            "start": {
                "e_value": _e(self.start_log_e),
                "threshold": round(math.exp(self.start_log_threshold), 3),
            },
            "change": {
                "e_value": _e(self.change_log_e),
                "threshold": round(math.exp(self.change_log_threshold), 3),
            },
            "cap": {"error_rate": self.cap, "min_requests": self.cap_requests},
            "canary": {
                "requests": self.canary_requests,
                "errors": self.canary_errors,
                "trials": self.canary_trials,
                "failures": self.canary_failures,
                "clients": self.canary_clients,
                "by_error": dict(self.canary_by_error),
                "requests_to_detect": self.to_detect.requests,
                "failures_to_detect": self.to_detect.failed,
                "trials_to_detect": self.to_detect.trials,
            },
            "control": {
                "requests": self.control_requests,
                "errors": self.control_errors,
                "e_value": _e(self.control_log_e),
                "since_canary_failed": {"good": self.witness.good, "bad": self.witness.bad},
            },
            "deciding": None
            if self.deciding is None
            else {
                "at_ns": self.deciding.at_ns,
                "error": self.deciding.error,
                "status": self.deciding.status,
                "request_id": self.deciding.request_id,
                "path": self.deciding.path,
                "client": self.deciding.client,
            },
        }


def fold(watch: Watch, outcome: Outcome) -> Watch:
    """The watch after one more outcome. Canary requests routed at another percentage are not evidence here."""
    if outcome.arm is Arm.CONTROL:
        return _fold_control(watch, outcome)
    if outcome.percent != watch.percent:
        return watch
    canary = _fold_arm(watch.canary, outcome, watch)
    match outcome:
        case Good():
            return replace(watch, canary=canary, witness=Witness(), failing_run=0)
        case Bad():
            return replace(watch, canary=canary, failing_run=watch.failing_run + 1, last=outcome)


def judge(watch: Watch) -> Verdict:
    """What the evidence says now, with its numbers."""
    rule = _speaks(watch)
    if rule is Rule.NONE:
        return _verdict(watch, Ruling.KEEP, rule, _calm(watch))
    said = _said(watch, rule)
    if rule is not Rule.REFUSED:
        held = _held_back(watch)
        if held:
            return _verdict(watch, Ruling.KEEP, rule, f"{said}, but {held}")
    if _monolith_fails_too(watch):
        control, seen = watch.control, watch.witness
        return _verdict(
            watch,
            Ruling.PAUSE,
            rule,
            f"{said}; the monolith fails too ({control.errors} of {control.requests} requests, since the service "
            f"began to fail {seen.bad} of {seen.bad + seen.good}): the cause is likely shared",
        )
    unseen = watch.witness == Witness() and watch.percent < 100
    if unseen and watch.failing_run and watch.canary.failures < _FAILURES_WITHOUT_WITNESS:
        return _verdict(
            watch, Ruling.KEEP, rule, f"{said}, but the monolith has not answered since: one more is awaited"
        )
    return _verdict(watch, Ruling.ROLLBACK, rule, said)


def _fold_control(watch: Watch, outcome: Outcome) -> Watch:
    control = _fold_arm(watch.control, outcome, watch)
    seen = watch.witness
    if watch.failing_run:
        match outcome:
            case Good(count=count):
                seen = replace(seen, good=seen.good + count)
            case Bad():
                seen = replace(seen, bad=seen.bad + 1)
    return replace(watch, control=control, witness=seen)


def _fold_arm(arm: ArmEvidence, outcome: Outcome, watch: Watch) -> ArmEvidence:
    near = arm.cluster
    match outcome:
        case Good(count=count):
            detector = (
                arm.detector if arm.detector.quiet else arm.detector.after_success(watch.alternatives, count)
            )
            quiet = detector.quiet
            return replace(
                arm,
                requests=arm.requests + count,
                trials=arm.trials + count,
                detector=detector,
                # in steady state this is what keeps memory bounded: forgotten errors are forgotten whole
                failures_by_client={} if quiet and watch.steady else arm.failures_by_client,
                last_error_ns={} if quiet and watch.steady else arm.last_error_ns,
                refused_in_a_row=0,
                cluster=Cluster(near.requests + count, near.failed, near.trials + count)
                if detector.sharp
                else Cluster(),
            )
        case Bad():
            window_ns = int(watch.limits.client_window * 1e9)
            before = arm.last_error_ns.get(outcome.client)
            # either way: a wall clock may go back
            repeated = before is not None and abs(outcome.at_ns - before) < window_ns
            counted = replace(
                arm,
                requests=arm.requests + 1,
                errors=arm.errors + 1,
                refused_in_a_row=arm.refused_in_a_row + 1 if outcome.error == "refused" else 0,
                cluster=Cluster(near.requests + 1, near.failed + 1, near.trials + (not repeated)),
                by_error={**arm.by_error, outcome.error: arm.by_error.get(outcome.error, 0) + 1},
            )
            if repeated:
                return counted
            return replace(
                counted,
                trials=arm.trials + 1,
                failures=arm.failures + 1,
                detector=arm.detector.after_failure(watch.alternatives),
                failures_by_client={
                    **arm.failures_by_client,
                    outcome.client: arm.failures_by_client.get(outcome.client, 0) + 1,
                },
                last_error_ns={**arm.last_error_ns, outcome.client: outcome.at_ns},
            )


def _speaks(watch: Watch) -> Rule:
    canary, limits = watch.canary, watch.limits
    if canary.refused_in_a_row >= _REFUSED_IN_A_ROW:
        return Rule.REFUSED
    if canary.detector.log_value >= math.log(watch.run_length):
        return Rule.CHANGE
    if watch.steady:
        return Rule.NONE
    if canary.failures and _start_log_e(watch) >= math.log(1 / watch.alpha):
        return Rule.START
    if canary.trials >= limits.min_requests and canary.rate > limits.error_rate:
        return Rule.CAP
    return Rule.NONE


def _start_log_e(watch: Watch) -> float:
    return watch.alternatives.since_start(watch.canary.trials, watch.canary.failures)


def _held_back(watch: Watch) -> str:
    failing = watch.canary.failures_by_client
    if len(failing) < 2:
        return "only one client has failed, and a verdict needs two"
    if max(failing.values()) * 2 > sum(failing.values()):
        return "one client makes up more than half of the failures"
    return ""


def _monolith_fails_too(watch: Watch) -> bool:
    if watch.control.detector.log_value >= math.log(1 / watch.limits.alpha):
        return True
    return watch.witness.bad >= max(1, watch.witness.good)


def _said(watch: Watch, rule: Rule) -> str:
    canary = watch.canary
    counts = f"{canary.failures} of {canary.trials} canary requests failed"
    match rule:
        case Rule.START:
            return (
                f"{counts}: e-value {_show(_start_log_e(watch))} against a tolerated rate of "
                f"{watch.alternatives.p0:.2%}, "
                f"threshold {_show(math.log(1 / watch.alpha))}"
            )
        case Rule.CHANGE:
            return (
                f"the service has changed for the worse ({counts}, {canary.cluster.failed} of the last "
                f"{canary.cluster.requests}): "
                f"detector {_show(canary.detector.log_value)}, threshold {_show(math.log(watch.run_length))}"
            )
        case Rule.CAP:
            return (
                f"{counts}: {canary.rate:.1%}, above the cap of {watch.limits.error_rate:.1%} "
                f"over at least {watch.limits.min_requests} requests"
            )
        case Rule.REFUSED:
            return f"the service refused {canary.refused_in_a_row} connections in a row: nobody listens there"
        case Rule.NONE:
            return _calm(watch)


def _calm(watch: Watch) -> str:
    canary = watch.canary
    return f"{canary.errors} of {canary.requests} canary requests failed, no rule speaks against the service"


def _verdict(watch: Watch, ruling: Ruling, rule: Rule, reason: str) -> Verdict:
    canary, control = watch.canary, watch.control
    return Verdict(
        ruling=ruling,
        rule=rule,
        reason=reason,
        percent=watch.percent,
        p0=watch.alternatives.p0,
        alpha=watch.alpha,
        start_log_e=_start_log_e(watch),
        start_log_threshold=math.log(1 / watch.alpha),
        change_log_e=canary.detector.log_value,
        change_log_threshold=math.log(watch.run_length),
        cap=watch.limits.error_rate,
        cap_requests=watch.limits.min_requests,
        canary_requests=canary.requests,
        canary_errors=canary.errors,
        canary_trials=canary.trials,
        canary_failures=canary.failures,
        canary_clients=len(canary.failures_by_client),
        canary_by_error=canary.by_error,
        to_detect=canary.cluster,
        control_requests=control.requests,
        control_errors=control.errors,
        control_log_e=control.detector.log_value,
        witness=watch.witness,
        deciding=watch.last,
    )


def _e(log_value: float) -> float:
    """An e-value for JSON: exact enough, and finite (JSON knows no infinity)."""
    return float(f"{math.exp(min(log_value, 600.0)):.6g}")


def _show(log_value: float) -> str:
    return f"{math.exp(min(log_value, 600.0)):.4g}"
