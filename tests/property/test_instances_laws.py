"""Laws of choosing an instance."""

from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.cluster.choose import EXACT, Standing, choose

standings = st.lists(
    st.builds(
        Standing,
        pending=st.integers(0, 5),
        up=st.booleans(),
        admits=st.booleans(),
        proven=st.booleans(),
        share=st.sampled_from([0.1, 0.5, 1.0]),
    ),
    max_size=EXACT + 6,
)


@given(standings, st.integers(0, 2**40), st.booleans(), st.sets(st.integers(0, EXACT + 6)))
def test_who_is_chosen_may_be_and_somebody_is_when_somebody_may(
    given_standings: list[Standing], turn: int, safe: bool, tried: set[int]
) -> None:
    panic = not any(standing.up for standing in given_standings)
    able = {
        place
        for place, standing in enumerate(given_standings)
        if standing.admits and (standing.up or panic) and place not in tried
    }
    chosen = choose(given_standings, turn=turn, safe=safe, tried=tried)
    assert chosen in able if able else chosen is None
    if chosen is not None and not safe and any(given_standings[place].proven for place in able):
        assert given_standings[chosen].proven


@given(st.lists(st.integers(0, 4), min_size=1, max_size=EXACT), st.integers(0, 2**40))
def test_up_to_a_few_the_fewest_pending_win_exactly(pending: list[int], turn: int) -> None:
    chosen = choose([Standing(each) for each in pending], turn=turn, safe=True)
    assert chosen is not None
    assert pending[chosen] == min(pending)


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 2**30))
def test_load_that_stays_is_spread_evenly(count: int, each: int, first: int) -> None:
    """Requests that never end: exact choice keeps the instances within one of each other, pairs within the
    power of two choices' bound."""
    pending = [0] * count
    for turn in range(first, first + count * each):
        place = choose([Standing(number) for number in pending], turn=turn, safe=True)
        assert place is not None
        pending[place] += 1
    assert max(pending) <= each + (0 if count <= EXACT else 4)
