"""Gates: what passes, what holds, what fails; nothing known is never good."""

from dataclasses import replace
from decimal import Decimal

import pytest

from migration_plans.gates import (
    CanarySignal,
    GateOutcome,
    GatePolicy,
    GateResult,
    ProxySignal,
    Signals,
    StreamSignal,
    VerifySignal,
    evaluate,
    summary,
)
from migration_plans.stages import KINDS, GateName, Kind, Stage

NOW = 1_000.0
RAMP = Stage(Kind.RAMP, Decimal(25))
POLICY = GatePolicy(soak=60, min_requests=200)
PROXY = ProxySignal(NOW, 2, 2, Decimal(25), NOW - 61, stream_connected=True)
STREAM = StreamSignal(NOW, "streaming", streaming=True, lag_seconds=0.1, lag_bytes=100, parked=0)
ALL_WELL = Signals(
    now=NOW,
    proxy=PROXY,
    stream=STREAM,
    verify=VerifySignal(NOW - 500, "0/15D2A38", 5000, 0),
    canary=CanarySignal(NOW, 400, 1, 0.01),
    entered_at=NOW - 62,
)


def gate(name: GateName, signals: Signals, *, policy: GatePolicy = POLICY, stage: Stage = RAMP) -> GateResult:
    return next(result for result in evaluate(stage, policy, signals) if result.gate is name)


def test_all_well_passes() -> None:
    results = evaluate(RAMP, POLICY, ALL_WELL)
    assert [result.gate for result in results] == list(KINDS[Kind.RAMP].gates)
    assert summary(results) is GateOutcome.PASS


def test_nothing_known_holds_everywhere() -> None:
    for kind in Kind:
        results = evaluate(Stage(kind, Decimal(0)), POLICY, Signals(now=NOW))
        assert {result.outcome for result in results} == {GateOutcome.HOLD}
        assert all(result.text for result in results)


HOLDS: dict[str, tuple[GateName, Signals]] = {
    "stale proxy": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, at=NOW - 4))),
    "proxy of a clock that went back": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, at=NOW + 900))),
    "heartbeat of a clock that went back": (
        GateName.STREAM,
        replace(ALL_WELL, stream=replace(STREAM, at=NOW + 900)),
    ),
    "one worker behind": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, workers_live=1))),
    "no worker": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, workers=0, workers_live=0))),
    "stream cut": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, stream_connected=False))),
    "other percentage": (GateName.PROXY, replace(ALL_WELL, proxy=replace(PROXY, live_percent=Decimal(10)))),
    "stale heartbeat": (GateName.STREAM, replace(ALL_WELL, stream=replace(STREAM, at=NOW - 4))),
    "snapshot running": (
        GateName.STREAM, replace(ALL_WELL, stream=replace(STREAM, phase="snapshot", streaming=False, snapshot_total=9)),
    ),
    "stream stopped": (GateName.STREAM, replace(ALL_WELL, stream=replace(STREAM, problem="no slot"))),
    "behind in time": (GateName.LAG, replace(ALL_WELL, stream=replace(STREAM, lag_seconds=5.1))),
    "behind in bytes": (GateName.LAG, replace(ALL_WELL, stream=replace(STREAM, lag_bytes=16_000_001))),
    "lag not known": (GateName.LAG, replace(ALL_WELL, stream=replace(STREAM, lag_seconds=None))),
    "parked key": (GateName.PARKED, replace(ALL_WELL, stream=replace(STREAM, parked=1))),
    "parked keys not known": (GateName.PARKED, replace(ALL_WELL, stream=replace(STREAM, parked=None))),
    "parked keys of old": (GateName.PARKED, replace(ALL_WELL, stream=replace(STREAM, at=NOW - 4))),
    "never compared": (GateName.VERIFIED, replace(ALL_WELL, verify=None)),
    "compared nothing": (GateName.VERIFIED, replace(ALL_WELL, verify=VerifySignal(NOW, "0/1", 0, 0))),
    "few requests": (GateName.REQUESTS, replace(ALL_WELL, canary=CanarySignal(NOW, 199, 0, 0.01))),
    "stale outcomes": (GateName.REQUESTS, replace(ALL_WELL, canary=CanarySignal(NOW - 4, 400, 0, 0.01))),
    "too many errors to go on": (GateName.ERRORS, replace(ALL_WELL, canary=CanarySignal(NOW, 400, 9, 0.01))),
    "not long enough": (GateName.SOAK, replace(ALL_WELL, proxy=replace(PROXY, live_since=NOW - 59))),
    "not live yet": (GateName.SOAK, replace(ALL_WELL, proxy=replace(PROXY, live_since=None))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLDS)
def test_what_holds(name: str) -> None:
    which, signals = HOLDS[name]
    assert gate(which, signals).outcome is GateOutcome.HOLD
    assert summary(evaluate(RAMP, POLICY, signals)) is GateOutcome.HOLD


def test_differing_rows_fail() -> None:
    signals = replace(ALL_WELL, verify=VerifySignal(NOW, "0/1", 5000, 3))
    assert gate(GateName.VERIFIED, signals).outcome is GateOutcome.FAIL
    assert summary(evaluate(RAMP, POLICY, signals)) is GateOutcome.FAIL
    assert gate(GateName.VERIFIED, signals, policy=replace(POLICY, verify=False)).outcome is GateOutcome.PASS


def test_a_poor_monolith_widens_the_error_gate() -> None:
    signals = replace(ALL_WELL, canary=CanarySignal(NOW, 400, 9, tolerated=0.03))
    assert gate(GateName.ERRORS, signals).outcome is GateOutcome.PASS


def test_results_carry_their_numbers() -> None:
    shape = gate(GateName.REQUESTS, replace(ALL_WELL, canary=CanarySignal(NOW, 7, 0, 0.01))).as_dict()
    assert shape == {
        "gate": "requests", "outcome": "hold", "value": 7, "limit": 200,
        "text": "7 canary requests at this percentage, 200 needed",
    }  # fmt: skip
