"""Laws of the stream: folding changes nothing, replaying changes nothing, every interrupted prefix heals."""

import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdc.changes import (
    Change,
    Event,
    Identity,
    Lsn,
    Operation,
    Relation,
    Transaction,
)
from cdc.hold import Limit
from cdc.meter import Meter
from cdc.pipeline import pump
from cdc.sinks.memory import MemorySink
from cdc.sources.memory import MemorySource
from tests.cdc_histories import KEYS, MOMENT, RELATIONS, START, TABLES, histories, in_pieces, meaning


@given(histories(), st.integers(1, 8))
@settings(deadline=None)
def test_folding_does_not_change_the_meaning(history: list[Transaction], batch: int) -> None:
    sink = MemorySink(KEYS, START)
    for start in range(0, len(history), batch):
        sink.apply(history[start : start + batch])
    assert sink.tables == meaning(history)


@given(histories(), st.integers(1, 3), st.integers(1, 8))
@settings(deadline=None)
def test_pieces_mean_the_same_as_the_whole(history: list[Transaction], size: int, batch: int) -> None:
    whole, pieces = MemorySink(KEYS, START), MemorySink(KEYS, START)
    cut = in_pieces(history, size)
    for transaction in history:
        whole.apply([transaction])
    for start in range(0, len(cut), batch):
        before = (pieces.position(), {table: dict(rows) for table, rows in pieces.tables.items()})
        pieces.apply(cut[start : start + batch])
        if cut[start : start + batch][-1].more:
            assert (pieces.position(), pieces.tables) == before, "half of a transaction was stored"
    assert pieces.tables == whole.tables == meaning(history)
    assert pieces.position() == whole.position()


@given(histories(), st.data())
@settings(deadline=None)
def test_replaying_any_suffix_changes_nothing(history: list[Transaction], data: st.DataObject) -> None:
    sink = MemorySink(KEYS, START)
    stream(MemorySource(history, patience=0.001), sink, history)
    before = {table: dict(rows) for table, rows in sink.tables.items()}
    suffix = history[data.draw(st.integers(0, len(history))) :]
    source = Repeating(suffix, patience=0.001)
    stream(source, sink, history)
    assert sink.tables == before == meaning(history)


class Repeating(MemorySource):
    """Sends everything that was not confirmed again, as a broker does: what is applied already is ours to know."""

    def start(self, after: Lsn) -> None:
        super().start(min(after, self.confirmed))


class Killed(Exception):  # noqa: N818  (a crash, not an error of ours)
    """The process dies here."""


class Fuse:
    """Burns down by one at each step; kills at zero."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                raise Killed


class FaultySource:
    """A source that may die before or after each step."""

    def __init__(self, inner: MemorySource, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def start(self, after: Lsn) -> None:
        self._fuse.step()
        self._inner.start(after)
        self._fuse.step()

    def read(self, timeout: float) -> list[Event]:
        self._fuse.step()
        events = self._inner.read(timeout)
        self._fuse.step()
        return events

    def confirm(self, position: Lsn) -> None:
        self._fuse.step()
        self._inner.confirm(position)
        self._fuse.step()

    def answer(self) -> None:
        self._inner.answer()

    def close(self) -> None:
        self._inner.close()


class FaultySink:
    """A sink that may die before or after each step; a step itself is whole or nothing."""

    def __init__(self, inner: MemorySink, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def position(self) -> Lsn | None:
        self._fuse.step()
        return self._inner.position()

    def durable(self) -> Lsn | None:
        return self._inner.durable()

    def apply(
        self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        self._fuse.step()
        self._inner.apply(transactions, meanwhile=meanwhile)
        self._fuse.step()

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        self._fuse.step()
        self._inner.prepare(transactions)

    def advance(self, position: Lsn) -> None:
        self._fuse.step()
        self._inner.advance(position)
        self._fuse.step()

    def close(self) -> None:
        self._inner.close()


def stream(source: MemorySource, sink: MemorySink, history: Sequence[Transaction]) -> None:
    pump(
        source, sink, threading.Event(), until=history[-1].position if history else START, max_batch_changes=3
    )


@given(histories(), st.lists(st.integers(1, 25), max_size=6), st.integers(1, 7))
@settings(deadline=None)
def test_every_interrupted_prefix_heals(history: list[Transaction], fuses: list[int], size: int) -> None:
    source, sink = Repeating(in_pieces(history, size), patience=0.001), MemorySink(KEYS, START)
    until = history[-1].position if history else START
    for steps in fuses:
        fuse = Fuse(steps)
        try:
            pump(
                FaultySource(source, fuse),
                FaultySink(sink, fuse),
                threading.Event(),
                until=until,
                max_batch_changes=3,
            )
        except Killed:
            position = sink.position()
            assert position is not None
            # what the source has forgotten is in the target, and the target is exactly a prefix
            assert source.confirmed <= position
            assert sink.tables == meaning([each for each in history if each.position <= position])
        source.close()
        sink.close()
    stream(source, sink, history)
    assert sink.tables == meaning(history)


class HoldsNowAndThen:
    """A gate with scripted answers, then open. Looks at the sink when the applier says that it stands still."""

    def __init__(
        self, answers: Sequence[int | None], sink: MemorySink, history: Sequence[Transaction]
    ) -> None:
        self._answers = list(answers)
        self._sink = sink
        self._history = history
        self._most: Lsn | None = None  # that may be stored while this hold lasts

    def limit(self) -> Limit | None:
        if not self._answers:
            return None
        answer = self._answers.pop(0)
        if answer is None:
            self._most = None
            return None
        stood = self._sink.position() or START
        self._most = max(stood if self._most is None else self._most, Lsn(answer))
        return Limit(Lsn(answer))

    def arrived(self, position: Lsn) -> None:
        stored = self._sink.position()
        assert stored is not None
        assert self._most is not None
        assert stored <= min(position, self._most), "what was prepared before the hold was applied within it"
        ended = {each.xid for each in self._history if not each.more and each.position <= position}
        assert self._sink.tables == meaning([each for each in self._history if each.xid in ended])


@st.composite
def holds(draw: st.DrawFn) -> tuple[list[Transaction], list[int | None]]:
    """A history, and what a gate says about it. No server tells a position within a record, such as a commit's."""
    history = draw(histories())
    ends = {int(each.position) for each in history}
    places = st.integers(0, 200).filter(lambda place: place + 1 not in ends)
    likely = st.sampled_from(sorted(ends)) if ends else places
    return history, draw(st.lists(st.none() | likely | places, max_size=12))


def behind_pieces() -> tuple[list[Transaction], list[int | None]]:
    """A hold at the end of a transaction that comes in pieces, with others behind it."""
    row = Change(Operation.INSERT, RELATIONS[0], None, (b"1", b"a", b"b"))
    end, *later = [Lsn(START + n) for n in (10, 20, 30)]
    small = [Transaction(position, MOMENT, int(position), (row,)) for position in later]
    return [Transaction(end, MOMENT, 1, (row, row, row)), *small], [end, end]


@given(holds(), st.integers(1, 7))
@example(behind_pieces(), 1)
@settings(deadline=None)
def test_a_hold_finds_all_up_to_its_position_and_nothing_that_was_prepared(
    held: tuple[list[Transaction], list[int | None]], size: int
) -> None:
    history, answers = held
    cut = in_pieces(history, size)
    source, sink = MemorySource(cut, patience=0.001), MemorySink(KEYS, START)
    gate = HoldsNowAndThen(answers, sink, cut)
    until = history[-1].position if history else START
    pump(source, sink, threading.Event(), gate=gate, until=until, max_batch_changes=4)
    assert sink.tables == meaning(history)


def test_a_full_identity_is_no_key_change() -> None:
    relation = Relation(TABLES[0], RELATIONS[0].columns, Identity.FULL)
    changes = (
        Change(Operation.INSERT, relation, None, (b"1", b"a", b"b")),
        Change(Operation.UPDATE, relation, (b"1", b"a", b"b"), (b"1", b"c", b"b")),
    )
    sink = MemorySink(KEYS, START)
    sink.apply([Transaction(Lsn(9), MOMENT, 1, changes)])
    assert sink.tables[TABLES[0]] == {(b"1",): (b"1", b"c", b"b")}


def test_the_meter_knows_what_was_applied_before_a_fault() -> None:
    """It is told of a batch while the next one is at work; here that one fails before it is."""

    class Breaks(MemorySink):
        applied = 0

        def apply(
            self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
        ) -> None:
            if self.applied:
                raise ConnectionError
            self.applied = len(transactions)
            super().apply(transactions, meanwhile=meanwhile)

    history = [Transaction(Lsn(START + 10 * n), MOMENT, n, ()) for n in range(1, 21)]
    meter, sink = Meter(), Breaks(KEYS, START)
    with pytest.raises(ConnectionError):
        pump(MemorySource(history, patience=0.001), sink, threading.Event(), meter=meter, max_batch_changes=4)
    assert meter.facts(0.0).transactions == sink.applied > 0
