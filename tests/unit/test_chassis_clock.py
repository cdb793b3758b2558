"""Both clocks keep the same promises."""

from datetime import UTC, datetime, timedelta

import pytest

from chassis.clock import Clock, ManualClock, SystemClock

_START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(_START)])
def test_time_has_a_zone_and_never_goes_back(clock: Clock) -> None:
    before, elapsed = clock.now(), clock.monotonic()
    assert before.utcoffset() == timedelta(0)
    assert clock.monotonic() >= elapsed


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(_START)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (_START + timedelta(seconds=1.5), 1.5)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
