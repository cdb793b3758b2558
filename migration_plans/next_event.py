"""What happens to the migration now? Pure: the record, the world, the evidence in; at most one event out.

Order of precedence: going back first, then a person's edit of the routes file (a fact to take in, not a
fight), then going on. Whatever comes out is looked up in the stage table by whoever records it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from migration_plans.gates import GateOutcome, GateResult, summary
from migration_plans.plan import RetryPolicy
from migration_plans.reconcile import Observed
from migration_plans.record import Record
from migration_plans.rollback import Ruling, Verdict
from migration_plans.stages import GUARDED, Event, Kind, Stage, State


@dataclass(frozen=True, slots=True)
class Probe:
    """What asking the service directly showed. `good` answers in a row; `text` names the last bad one."""

    good: int
    needed: int
    text: str

    @property
    def fine(self) -> bool:
        """Whether the service deserves another try."""
        return self.good >= self.needed


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for or against an event. None: not known."""

    gates: tuple[GateResult, ...] = ()
    verdict: Verdict | None = None
    probe: Probe | None = None
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """The event, why, and what the ledger shall remember of it."""

    event: Event
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    percent: Decimal | None = None
    tripped_at_ns: int | None = None


def next_move(
    record: Record, stage: Stage, observed: Observed, evidence: Evidence, *, retry: RetryPolicy, now: float
) -> Move | None:
    """The next event of `record`, which is in `stage`, or None while nothing speaks for one. `now` in Unix
    seconds.
    """
    return (
        _back(record, observed, evidence.verdict)
        or _edited(record, observed)
        or _on(record, stage, observed, evidence)
        or _again(record, evidence.probe, retry=retry, now=now)
    )


def retry_is_due(record: Record, retry: RetryPolicy, *, now: float) -> bool:
    """Whether an automatic retry is wanted, so that probing the service makes sense.

    Never after a person's rollback: what a person took back, a person brings again.
    """
    return (
        record.state is State.ROLLED_BACK
        and retry.auto
        and record.tripped_at_ns is not None
        and record.retries < retry.max
        and record.rolled_back_at is not None
        and now - record.rolled_back_at >= retry.after
    )


def _back(record: Record, observed: Observed, verdict: Verdict | None) -> Move | None:
    if record.state is State.ROLLING_BACK:
        if observed.file_percent != 0 or not observed.everywhere:
            return None
        detail: dict[str, Any] = {"workers": observed.workers, "version": observed.file_version}
        if record.tripped_at_ns is not None and observed.live_since_ns is not None:
            detail["actuation_ms"] = round((observed.live_since_ns - record.tripped_at_ns) / 1e6, 3)
        return Move(Event.AT_ZERO, record.reason, detail)
    # a refused file (None) says nothing of the traffic, which goes on as it was
    if verdict is None or record.state not in GUARDED or observed.file_percent == 0:
        return None
    if verdict.ruling is Ruling.ROLLBACK:
        at_ns = verdict.deciding.at_ns if verdict.deciding else None
        return Move(Event.TRIPPED, verdict.reason, {"verdict": verdict.as_dict()}, tripped_at_ns=at_ns)
    if verdict.ruling is Ruling.PAUSE and record.state not in (State.PAUSED, State.FAILED):
        return Move(Event.BOTH_ARMS_FAIL, verdict.reason, {"verdict": verdict.as_dict()})
    return None


def _edited(record: Record, observed: Observed) -> Move | None:
    seen = observed.file_percent
    if seen is None or record.state in (State.PLANNED, State.ROLLING_BACK):
        return None
    expected = {record.percent}
    if record.state in (State.ENTERING, State.PAUSED, State.FAILED):
        expected.add(record.previous)  # the intent was recorded, but not carried out
    if seen in expected:
        return None
    reason = f"somebody set the routes file to {seen} % (it was to be {record.percent} %); the plan waits"
    return Move(Event.EDITED, reason, {"from": str(record.percent), "to": str(seen)}, percent=seen)


def _on(record: Record, stage: Stage, observed: Observed, evidence: Evidence) -> Move | None:
    match record.state:
        case State.ENTERING:
            return _entered(record, stage, observed, prepared=evidence.prepared)
        case State.SOAKING:
            return _passed(record, evidence.gates)
        case _:
            return None


def _entered(record: Record, stage: Stage, observed: Observed, *, prepared: bool) -> Move | None:
    match stage.kind:
        case Kind.PREPARE:
            return Move(Event.ENTERED, "publication, grants and schema are there") if prepared else None
        case Kind.SNAPSHOT | Kind.STREAM:
            return Move(Event.ENTERED, "")
        case Kind.RAMP:
            if observed.file_percent != record.percent or not observed.everywhere:
                return None
            return Move(
                Event.ENTERED,
                f"every worker ({observed.workers}) runs {record.percent} %",
                {"version": observed.file_version, "live_since_ns": observed.live_since_ns},
            )


def _passed(record: Record, results: tuple[GateResult, ...]) -> Move | None:
    gates = {"gates": [result.as_dict() for result in results]}
    match summary(results):
        case GateOutcome.PASS:
            return Move(Event.FINISHED if record.last_stage else Event.PASSED, "every gate passed", gates)
        case GateOutcome.FAIL:
            failed = "; ".join(result.text for result in results if result.outcome is GateOutcome.FAIL)
            return Move(Event.GATE_FAILED, failed, gates)
        case GateOutcome.HOLD:
            return None


def _again(record: Record, probe: Probe | None, *, retry: RetryPolicy, now: float) -> Move | None:
    if probe is None or not probe.fine or not retry_is_due(record, retry, now=now):
        return None
    return Move(Event.RETRY, f"the service answers again: {probe.text}", {"retry": record.retries + 1})
