"""Laws of the read-your-writes guard: against a model of a log that one side writes and the other follows."""

import os

from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.freshness import Applied, Mark, cookie_text, is_fresh, parse_lsn, read_cookie
from strangler_proxy.write_table import SLOTS, WriteTable, make_write_table

POSITIONS = st.integers(1, 2**64 - 1)
MARKS = st.builds(Mark, st.one_of(st.just(0), POSITIONS), st.one_of(st.just(0.0), st.floats(1, 1e10)))
SIDES = st.from_regex(rb"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(written=POSITIONS, applied=POSITIONS)
def test_a_position_that_is_not_applied_is_never_fresh(written: int, applied: int) -> None:
    fresh = is_fresh(Mark(written), Applied(applied), now=1e9, pin=0.0)
    assert fresh is (applied >= written)


@given(mark=MARKS, pin=st.floats(0, 1e6), now=st.floats(1, 1e11))
def test_unknown_is_not_fresh_for_who_wrote_at_a_position(mark: Mark, pin: float, now: float) -> None:
    assert is_fresh(Mark(), None, now=now, pin=pin)
    if mark.position:
        assert not is_fresh(mark, None, now=now, pin=pin)


@given(mark=MARKS, other=MARKS, applied=POSITIONS, now=st.floats(1, 1e11), pin=st.floats(0, 100))
def test_more_writes_never_make_a_side_fresh(
    mark: Mark, other: Mark, applied: int, now: float, pin: float
) -> None:
    if is_fresh(mark.merged(other), Applied(applied), now=now, pin=pin):
        assert is_fresh(mark, Applied(applied), now=now, pin=pin)
        assert is_fresh(other, Applied(applied), now=now, pin=pin)


@given(at=st.floats(1000, 2000), now=st.floats(1000, 3000), lag=st.floats(0, 100), pin=st.floats(0, 100))
def test_a_write_without_a_position_is_pinned(at: float, now: float, lag: float, pin: float) -> None:
    fresh = is_fresh(Mark(at=at), Applied(1, committed_at=at - 1, lag=lag), now=now, pin=pin)
    assert fresh is (now - at > max(pin, 2 * lag))
    assert is_fresh(Mark(at=at), Applied(1, committed_at=at + 0.001), now=now, pin=pin)


@given(
    marks=st.dictionaries(
        SIDES, st.builds(Mark, POSITIONS, st.integers(0, 10**13).map(lambda n: n / 1000)), max_size=8
    )
)
def test_the_cookie_gives_back_what_was_put_in(marks: dict[bytes, Mark]) -> None:
    assert read_cookie(cookie_text(marks)) == marks


@given(st.binary(max_size=200))
def test_no_cookie_is_a_fault(text: bytes) -> None:
    for mark in read_cookie(text).values():
        assert mark.position < 2**64


@given(st.binary(max_size=30))
def test_what_is_no_position_is_unknown(text: bytes) -> None:
    number = parse_lsn(text)
    assert 0 <= number < 2**64
    assert parse_lsn(b"%X/%X" % (number >> 32, number & 0xFFFFFFFF)) == number


@given(
    writes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**64 - 1), MARKS), max_size=30),
    reader=st.integers(0, 2**64 - 1),
)
def test_no_write_is_forgotten_by_any_worker(writes: list[tuple[int, int, Mark]], reader: int) -> None:
    descriptor = make_write_table(3)
    tables = [WriteTable(os.dup(descriptor), row=row, rows=3) for row in range(3)]
    os.close(descriptor)
    try:
        for row, key, mark in writes:
            tables[row].write(key, mark)
        for table in tables:
            for _, key, mark in writes:
                found = table.read(key)
                assert found.merged(mark) == found
                assert table.latest().merged(found) == table.latest()
            if all(key % (SLOTS - 1) != reader % (SLOTS - 1) for _, key, _ in writes):
                assert table.read(reader) == Mark()
    finally:
        for table in tables:
            table.close()
