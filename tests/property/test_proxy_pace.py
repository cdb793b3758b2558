"""The pace of a body: who keeps the rate is never ended, who stays below it always is."""

from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.pace import WINDOW, Pace

RATES = st.integers(1, 1_000_000)
STARTS = st.floats(0, 1e6)


@given(rate=RATES, start=STARTS, pieces=st.lists(st.floats(0.1, 3.0), max_size=60))
def test_who_keeps_the_rate_goes_on(rate: int, start: float, pieces: list[float]) -> None:
    pace, now = Pace(size=1), start
    assert not pace.too_slow(now, rate)
    for seconds in pieces:
        now += seconds
        pace.size += int(rate * (seconds + 1e-6)) + 1
        assert not pace.too_slow(now, rate)


@given(rate=RATES, start=STARTS, share=st.floats(0, 0.99))
def test_who_stays_below_it_ends_within_two_windows(rate: int, start: float, share: float) -> None:
    pace = Pace(size=1)
    ended_at = None
    for tick in range(int(2 * WINDOW) + 2):
        if pace.too_slow(start + tick, rate):
            ended_at = tick
            break
        pace.size += int(rate * share)
    assert ended_at is not None
    assert ended_at <= WINDOW + 1


@given(rate=RATES, start=STARTS, gaps=st.lists(st.floats(0, 100), max_size=20))
def test_time_in_which_the_proxy_did_not_read_is_not_counted(
    rate: int, start: float, gaps: list[float]
) -> None:
    pace, now = Pace(size=1), start
    for gap in gaps:
        assert not pace.too_slow(now, rate)
        pace.pause()
        now += gap


def test_body_of_which_nothing_came_is_left_to_the_time_out() -> None:
    pace = Pace()
    assert not any(pace.too_slow(float(second), 1000) for second in range(100))
