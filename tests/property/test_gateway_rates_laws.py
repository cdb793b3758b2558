"""The law of a rate limit, held by the shared table: in any window of t seconds at most burst + rate x t."""

import os

from hypothesis import given
from hypothesis import strategies as st

from chassis.resilience.limiter import Rate
from strangler_proxy.gateway.rate_table import RateTable, make_table

GAPS = st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60)


@given(gaps=GAPS, per_second=st.sampled_from([0.25, 1.0, 3.0, 50.0]), burst=st.integers(1, 5), data=st.data())
def test_no_window_holds_more_than_burst_and_rate_allow(
    gaps: list[float], per_second: float, burst: int, data: st.DataObject
) -> None:
    descriptor = make_table()
    views = [RateTable(descriptor)]
    rate = Rate(per_second, burst)
    now, admitted, refused = 1000.0, [], []
    for gap in gaps:
        now += gap
        key = 9
        noise = data.draw(st.integers(1, 3))  # other clients change nothing
        views[0].take_all([(key + noise, rate)], now)
        (taken,) = views[0].take_all([(key, rate)], now)
        (admitted if taken.allowed else refused).append((now, taken.retry_after))
    times = [at for at, _ in admitted]
    for first in range(len(times)):
        for last in range(first, len(times)):
            seconds = times[last] - times[first]
            assert last - first + 1 <= burst + per_second * seconds + 1e-6
    # and nobody is refused for nothing: what it says about the next chance is true
    for at, retry_after in refused:
        assert retry_after > 0
        assert not any(at < other < at + retry_after - 1e-6 for other in times)
    views[0].close()
    os.close(descriptor)
