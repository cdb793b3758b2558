"""A claim that holds is true: everything that was acknowledged when it was made is stored."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.changes import Lsn
from cdc.sharded.claim import Claim, partition_of, partition_stream

PARTITIONS = 3


@given(
    # records in the connector's order: the partition each lies in
    records=st.lists(st.integers(0, PARTITIONS - 1), max_size=30),
    acknowledged=st.integers(0, 30),
    overtaken=st.sets(st.integers(0, 30)),
    stored=st.lists(st.integers(0, 30), min_size=PARTITIONS, max_size=PARTITIONS),
)
def test_a_claim_that_holds_is_true(
    records: list[int], acknowledged: int, overtaken: set[int], stored: list[int]
) -> None:
    # acknowledged are all up to a point, and some that overtook the others
    there = [place < acknowledged or place in overtaken for place in range(len(records))]
    logs: list[list[int]] = [[] for _ in range(PARTITIONS)]
    for place, partition in enumerate(records):
        if not there[place]:
            records = [*records[:place], -1, *records[place + 1 :]]
        else:
            logs[partition].append(place)
    delivered = min(acknowledged, len(records))
    claim = Claim(Lsn(delivered), {number: len(log) for number, log in enumerate(logs)})
    offsets = {number: min(offset, len(logs[number])) for number, offset in enumerate(stored)}
    if claim.holds(offsets):
        applied = {place for number, log in enumerate(logs) for place in log[: offsets[number]]}
        assert applied >= set(range(delivered))


def test_a_partition_that_is_not_known_bears_nothing_out() -> None:
    assert not Claim(Lsn(5), {0: 0, 1: 0}).holds({0: 3})


@given(st.integers(0, 10_000))
def test_names_of_partitions_are_read_back(number: int) -> None:
    assert partition_of("catalog", partition_stream("catalog", number)) == number
    assert partition_of("other", partition_stream("catalog", number)) is None
    assert partition_of("catalog", "catalog") is None
