"""Laws of reading what one wrote: the rule, what is known, the cookie, the shared table."""

import os
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from strangler_proxy.freshness import (
    LAG_MARGIN,
    NEVER,
    NOTHING,
    Applied,
    Guarding,
    Mark,
    may_answer,
    parse_lsn,
)
from strangler_proxy.write_table import SLOTS, WriteTable, make_write_table
from strangler_proxy.wrote_cookie import Clocks, read_marks, write_marks

moments = st.floats(0, 1000, allow_nan=False)
maybe = st.one_of(st.just(NEVER), moments)
positions = st.integers(0, 2**64 - 1)
marks = st.builds(Mark, positions, maybe, maybe)
policies = st.builds(Guarding, st.floats(0.001, 100), st.floats(0.001, 100), st.just(3600.0))


@st.composite
def knowledge(draw: st.DrawFn) -> Applied:
    asked = draw(moments)
    heard = asked + draw(st.floats(0, 10))
    lag = draw(st.one_of(st.none(), st.floats(0, 100)))
    return Applied(draw(positions), asked, heard, NEVER if lag is None else asked - lag)


@given(st.one_of(st.none(), knowledge()), st.booleans(), policies, moments)
def test_no_guard_without_a_write(
    applied: Applied | None, tells: bool, guarding: Guarding, now: float
) -> None:
    assert may_answer(NOTHING, applied, tells=tells, guarding=guarding, now=now)


@given(marks, st.one_of(st.none(), knowledge()), policies, moments)
def test_a_write_of_known_position_is_never_missing(
    mark: Mark, applied: Applied | None, guarding: Guarding, now: float
) -> None:
    assume(mark.position)
    if may_answer(mark, applied, tells=True, guarding=guarding, now=now):
        assert applied is not None
        assert applied.position >= mark.position
        assert now - applied.asked_at <= guarding.age


@given(moments, st.one_of(st.none(), knowledge()), policies, moments)
def test_a_write_of_unknown_position_is_waited_for(
    written: float, applied: Applied | None, guarding: Guarding, now: float
) -> None:
    answered = may_answer(Mark(unplaced_at=written), applied, tells=True, guarding=guarding, now=now)
    if applied is not None and applied.caught_up != NEVER:
        assert answered == (applied.caught_up >= written + LAG_MARGIN)
    else:
        assert answered == (now >= written + guarding.pin)


@given(st.tuples(marks, marks), st.one_of(st.none(), knowledge()), st.booleans(), policies, moments)
def test_more_writes_never_loosen_the_guard(
    both: tuple[Mark, Mark], applied: Applied | None, tells: bool, guarding: Guarding, now: float
) -> None:
    one, other = both

    def may(mark: Mark) -> bool:
        return may_answer(mark, applied, tells=tells, guarding=guarding, now=now)

    assert one.merged(other) == other.merged(one)
    assert one.merged(one) == one
    if may(one.merged(other)):
        assert may(one)
        assert may(other)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_what_is_known_was_always_true_in_one_log(asked: list[tuple[int, int, int]]) -> None:
    """Answers overtake one another; a log of one life only grows. `asked`: when, how long the answer took, and
    how far behind its cache was."""

    def log(at: int) -> int:
        return max(0, at) * 10

    answers = [Applied(log(at - behind), at, at + took) for at, took, behind in asked]
    known: Applied | None = None
    for answer in sorted(answers, key=lambda each: each.heard_at):
        known = answer if known is None else known.then(answer)
        assert known.position <= log(int(known.heard_at))
        assert known.asked_at <= answer.heard_at


@given(st.lists(knowledge(), min_size=1), knowledge())
def test_another_log_is_believed_at_once(past: list[Applied], told: Applied) -> None:
    known = past[0]
    for answer in past[1:]:
        known = known.then(answer)
    later = known.heard_at
    told = replace(told, asked_at=later + told.asked_at, heard_at=later + told.heard_at)
    after = known.then(told)
    if told.position < known.position:
        assert after == told
    else:
        assert after.position == told.position


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(st.dictionaries(names, marks, max_size=8), moments, st.floats(1e9, 2e9), st.floats(0, 1e5))
def test_a_mark_survives_its_journey_in_a_cookie(
    written: dict[str, Mark], now: float, wall: float, later: float
) -> None:
    now += 1000
    value = write_marks(written, Clocks(now, wall))
    # another machine: its monotonic clock began somewhere else
    found = read_marks(value, Clocks(77.0, wall + later))
    assert found.keys() == written.keys()
    for name, mark in written.items():
        assert found[name].position == mark.position
        for before, after in (
            (mark.placed_at, found[name].placed_at),
            (mark.unplaced_at, found[name].unplaced_at),
        ):
            if before == NEVER:
                assert after == NEVER
            else:  # never older than it is, and at most a few milliseconds younger
                age = now - before + later
                assert age - 0.005 <= 77.0 - after <= age + 1e-4


@given(st.binary(max_size=80))
def test_what_is_no_cookie_says_nothing(value: bytes) -> None:
    for mark in read_marks(value, Clocks(100.0, 1e9)).values():
        assert mark.last <= 100.0


@given(st.binary(max_size=30))
def test_what_is_no_position_is_unknown(text: bytes) -> None:
    number = parse_lsn(text)
    assert 0 <= number < 2**64
    assert parse_lsn(b"%X/%X" % (number >> 32, number & 0xFFFFFFFF)) == number


TABLED = st.builds(Mark, positions, st.floats(1, 1000), st.floats(1, 1000))


@given(
    writes=st.lists(st.tuples(st.integers(0, 2), positions, TABLED), max_size=30),
    reader=positions,
)
def test_no_write_is_forgotten_by_any_worker(writes: list[tuple[int, int, Mark]], reader: int) -> None:
    descriptor = make_write_table(3, born=5.0)
    tables = [WriteTable(os.dup(descriptor), row=row, rows=3) for row in range(3)]
    os.close(descriptor)
    try:
        for row, key, mark in writes:
            tables[row].write(key, mark)
        for table in tables:
            assert table.born == 5.0
            for _, key, mark in writes:
                found = table.read(key)
                assert found.merged(mark) == found
                assert table.latest().merged(found) == table.latest()
            if all(key % (SLOTS - 1) != reader % (SLOTS - 1) for _, key, _ in writes):
                assert table.read(reader) == NOTHING
        tables[1].begin(7.0)
        tables[2].begin(6.0)
        assert [table.born for table in tables] == [7.0, 7.0, 7.0]
    finally:
        for table in tables:
            table.close()
