"""Alarms: when they are raised, when they are over, and that nothing known changes nothing."""

from dataclasses import replace

import pytest

from migration_plans.alarms import AlarmName, alarms
from migration_plans.gates import GatePolicy, SlotSignal, StreamSignal

POLICY = GatePolicy(max_retained=1_000)
STREAM = StreamSignal(0.0, "streaming", streaming=True, lag_seconds=0.0, lag_bytes=0, parked=0)
SLOT = SlotSignal(0.0, "catalog", exists=True, active=True, retained=999, status="reserved")
NONE: frozenset[AlarmName] = frozenset()


def test_all_well_is_no_alarm() -> None:
    assert alarms(NONE, STREAM, SLOT, POLICY) == {}
    assert alarms(NONE, STREAM, replace(SLOT, retained=400, disk_free=500, keep_at_most=820), POLICY) == {}
    assert alarms(frozenset(AlarmName), STREAM, replace(SLOT, retained=0), POLICY) == {}


def test_nothing_known_changes_nothing() -> None:
    assert alarms(NONE, None, None, POLICY) == {}
    assert set(alarms(frozenset(AlarmName), None, None, POLICY)) == set(AlarmName)
    assert set(alarms(frozenset({AlarmName.PARKED}), replace(STREAM, parked=None), None, POLICY)) == {
        "parked"
    }


@pytest.mark.parametrize(("parked", "said"), [(1, "1 key parked"), (3, "3 keys parked")])
def test_parked_keys(parked: int, said: str) -> None:
    found = alarms(NONE, replace(STREAM, parked=parked), SLOT, POLICY)
    assert said in found[AlarmName.PARKED]


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (replace(SLOT, retained=1_000), "connected but behind"),
        (replace(SLOT, retained=1_000, active=False), "nobody reads it"),
        (replace(SLOT, retained=1_000, safe=500), "500 B until it loses its log"),
        (replace(SLOT, retained=400, keep_at_most=800), "50% of max_slot_wal_keep_size"),
        (replace(SLOT, retained=400, disk_free=390), "50% of what the source's disk has room for"),
        (replace(SLOT, retained=0, status="unreserved"), "the source keeps"),
        (replace(SLOT, retained=0, status="lost"), "strangler reset"),
    ],
)
def test_a_slot_that_keeps_much(slot: SlotSignal, said: str) -> None:
    assert said in alarms(NONE, STREAM, slot, POLICY)[AlarmName.SLOT]


def test_an_alarm_does_not_flutter() -> None:
    raised = frozenset({AlarmName.SLOT})
    assert alarms(NONE, STREAM, replace(SLOT, retained=900), POLICY) == {}
    assert set(alarms(raised, STREAM, replace(SLOT, retained=900), POLICY)) == {"slot"}
    assert alarms(raised, STREAM, replace(SLOT, retained=799), POLICY) == {}
    assert alarms(raised, STREAM, SlotSignal(0.0, "catalog", exists=False), POLICY) == {}
