"""From what was observed to the facts of a run. Pure: histories, sightings and outcomes in, values out."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from operator import sub

from cdc.meter import quantile
from migration_plans.ledger import Entry
from migration_plans.stages import Event
from workshop.facts import CdcFacts, RollbackFacts, ShareFacts, StageRun
from workshop.observe import Observations, detection
from workshop.traffic.stickiness import Sighting, Timeline


def stage_runs(history: Sequence[Entry], *, ended: float) -> Iterator[StageRun]:
    """The stays in stages that the ledger tells of: from each entry into one to the next change of stage."""
    current: tuple[str, float, float] | None = None
    for entry in history:
        at = datetime.fromisoformat(entry.at).timestamp()
        leaves = entry.event in (Event.PASSED, Event.TRIPPED, Event.ROLLBACK, Event.FINISHED, Event.ADVANCE)
        if entry.event == Event.ENTERED or leaves:
            if current is not None:
                name, started, percent = current
                yield StageRun(name=name, started=started, seconds=at - started, percent=percent)
            current = None
        if entry.event == Event.ENTERED:
            current = (entry.stage, at, float(entry.percent))
    if current is not None:
        name, started, percent = current
        yield StageRun(name=name, started=started, seconds=ended - started, percent=percent)


def shares(sightings: Sequence[Sighting], timeline: Timeline) -> Iterator[ShareFacts]:
    """For each percentage between 0 and 100: users seen while it certainly held, and those on the canary."""
    users: defaultdict[Decimal, dict[str, bool]] = defaultdict(dict)
    for seen in sightings:
        span = timeline.between(seen.sent, seen.answered)
        if span is not None and span[0] == span[1]:
            users[span[0]][seen.identity] = seen.side == "canary"
    for percent in sorted(users):
        if 0 < percent < 100:
            on_canary = sum(users[percent].values())
            yield ShareFacts(percent=float(percent), users=len(users[percent]), canary=on_canary)


def rollback_facts(
    seen: Observations, *, fault_from: float | None, client_window: float
) -> RollbackFacts | None:
    """The automatic rollback, measured in the proxy's outcome stream; None when there was none.

    `fault_from`: when the service began to be broken (seconds since 1970). `client_window` is the plan's.
    """
    tripped = next((entry for entry in seen.history if entry.event == Event.TRIPPED), None)
    at_zero = next((entry for entry in seen.history if entry.event == Event.AT_ZERO), None)
    if tripped is None or at_zero is None or fault_from is None:
        return None
    verdict = tripped.detail["verdict"]
    decided_ns = int(verdict["deciding"]["at_ns"])
    decided = decided_ns / 1e9
    # measured in the workers: the first change to 0 % after the decision, when its last worker had it
    back = next(
        (change.last for change in seen.changes if change.percent == 0 and change.last >= decided), None
    )
    return RollbackFacts(
        stage=tripped.stage,
        detection=detection(
            seen.canary,
            percent=Decimal(str(verdict["percent"])),
            since_ns=int(fault_from * 1e9),
            decided_ns=decided_ns,
            client_window=client_window,
        ),
        actuation_ms=1000 * (back - decided) if back is not None else math.inf,
        ledger_actuation_ms=at_zero.detail.get("actuation_ms"),
        decided_ns=decided_ns,
        verdict=verdict,
    )


def cdc_facts(seen: Observations) -> CdcFacts:
    """The change stream at its last sign of life."""
    status = seen.cdc
    latencies = status.latencies if status is not None else ()
    if len(seen.latencies_before) == len(latencies):
        latencies = tuple(map(sub, latencies, seen.latencies_before))
    lags = [sample.seconds for sample in seen.lag if sample.seconds is not None]
    return CdcFacts(
        lag_ms_p50=quantile(latencies, 0.5),
        lag_ms_p99=quantile(latencies, 0.99),
        changes_applied=status.changes if status is not None else 0,
        greatest_lag_seconds=max(lags, default=None),
    )
