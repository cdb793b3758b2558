"""Which differences between two configurations of a connector spoil its records."""

import pytest

from cdc.connect import connector_config
from cdc.connector_drift import Drift, SpoiledError, drift, refuse_spoiled, told

OURS = connector_config(
    name="s", source_dsn="host=db dbname=shop user=reader", publication="p", keys={}, topic="s"
)
RUNNING = OURS | {"name": "s"}


def test_what_connect_adds_is_no_difference() -> None:
    assert drift(RUNNING, OURS) == Drift()
    refuse_spoiled(RUNNING, OURS, stream="s")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time.precision.mode", "microseconds"),
        ("decimal.handling.mode", "double"),
        ("binary.handling.mode", "base64"),
        ("interval.handling.mode", "numeric"),
        ("include.unknown.datatypes", "false"),
        ("unavailable.value.placeholder", "-"),
        ("skipped.operations", "t"),
        ("converters", "mine"),
        ("column.mask.with.3.chars", "public.t.a"),
    ],
)
def test_what_spoils_records_is_refused_and_named(name: str, value: str) -> None:
    running = RUNNING | {name: value}
    assert drift(running, OURS) == Drift(spoiling=(name,))
    with pytest.raises(SpoiledError, match=f"runs with {name}={value} instead of"):
        refuse_spoiled(running, OURS, stream="s")


def test_a_mode_left_to_its_default_is_another_mode() -> None:
    running = {name: value for name, value in RUNNING.items() if name != "decimal.handling.mode"}
    with pytest.raises(SpoiledError, match=r"decimal.handling.mode=\(its default\) instead of string"):
        refuse_spoiled(running, OURS, stream="s")


def test_other_differences_spoil_nothing_and_additions_stay() -> None:
    running = RUNNING | {"heartbeat.interval.ms": "0", "max.queue.size": "9", "database.password": "secret"}
    found = drift(running, OURS)
    assert found == Drift(harmless=("database.password", "heartbeat.interval.ms"))
    assert told(found.harmless, running, OURS) == (
        "another database.password, heartbeat.interval.ms=0 instead of 250"
    )
