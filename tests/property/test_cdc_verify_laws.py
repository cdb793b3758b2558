"""Laws of the comparison: the stretches cover every row in whatever order the other side sorts."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cdc.compare_sql import Stretch
from cdc.verify_chunk import wrong_keys


@given(keys=st.sets(st.integers(0, 60), min_size=1), data=st.data())
def test_stretches_cover_every_row_whatever_the_other_sides_order(
    keys: set[int], data: st.DataObject
) -> None:
    ours = sorted(keys)
    edges = data.draw(st.sets(st.sampled_from(ours)).map(sorted))
    bounds = [None, *((str(edge),) for edge in edges), None]
    stretches = [Stretch(after, upto) for after, upto in pairwise(bounds)]
    theirs = data.draw(st.permutations(range(61)))  # any total order

    def within(key: int, stretch: Stretch) -> bool:
        above = stretch.after is None or theirs[key] > theirs[int(stretch.after[0])]
        return above and (stretch.upto is None or theirs[key] <= theirs[int(stretch.upto[0])])

    for key in range(61):
        assert any(within(key, stretch) for stretch in stretches), (key, stretches)


rows = st.lists(st.tuples(st.tuples(st.sampled_from("abc")), st.integers(0, 3)), max_size=12)


@given(ours=rows, theirs=rows)
def test_wrong_keys_are_empty_exactly_for_equal_bags(
    ours: list[tuple[tuple[str], int]], theirs: list[tuple[tuple[str], int]]
) -> None:
    assert (wrong_keys(ours, theirs) == []) is (sorted(ours) == sorted(theirs))
