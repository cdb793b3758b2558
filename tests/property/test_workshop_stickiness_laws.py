"""The stickiness judge never accuses a proxy that keeps its promise, and finds one that does not."""

from bisect import bisect_right
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from workshop.traffic.stickiness import Change, Sighting, Timeline, stickiness

PERCENTS = st.lists(st.integers(0, 100).map(Decimal), min_size=1, max_size=8)


def timeline_of(percents: list[Decimal], spread: float) -> tuple[Timeline, list[Change]]:
    changes = [Change(first=10.0 * i, last=10.0 * i + spread, percent=p) for i, p in enumerate(percents)]
    return Timeline(changes), changes


def side_at(bucket: int, percent: Decimal) -> str:
    return "canary" if bucket < percent * 100 else "control"


@given(
    PERCENTS,
    st.floats(0, 3),
    st.lists(
        st.tuples(st.integers(0, 9_999), st.floats(0, 80), st.floats(0, 15), st.booleans()), max_size=60
    ),
)
def test_a_proxy_that_decides_by_bucket_is_never_accused(
    percents: list[Decimal], spread: float, requests: list[tuple[int, float, float, bool]]
) -> None:
    timeline, changes = timeline_of(percents, spread)
    firsts = [change.first for change in changes]
    sightings = []
    for bucket, sent, length, late_worker in requests:
        decided = sent + length / 2
        place = bisect_right(firsts, decided) - 1
        if place and late_worker and decided < changes[place].last:
            place -= 1  # this worker has not heard of the change yet
        side = side_at(bucket, percents[place])
        sightings.append(Sighting(str(bucket), side, sent, sent + length))  # type: ignore[arg-type]
    found = stickiness(sightings, timeline)
    assert (found.flipped_back, found.jumped_ahead) == (0, 0)


@given(st.integers(1, 99), st.integers(0, 9_999), st.floats(1, 8))
def test_a_proxy_that_draws_anew_for_each_request_is_found(percent: int, bucket: int, at: float) -> None:
    timeline, _ = timeline_of([Decimal(percent)], 0.0)
    drawn = [
        Sighting(str(bucket), "canary", at, at + 0.1),
        Sighting(str(bucket), "control", at + 0.2, at + 0.3),
    ]
    assert stickiness(drawn, timeline).flipped_back == 1
