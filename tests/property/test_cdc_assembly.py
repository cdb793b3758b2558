"""Debezium's records, cut and repeated as Connect may: the transactions come out whole, once, in commit order."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.assembly import Assembly, GapError
from cdc.changes import (
    Change,
    Event,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    TableName,
    Transaction,
    Watermark,
)
from cdc.decode.debezium import Kind, Record

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RELATION = Relation(TableName("public", "item"), (RelationColumn("id", 23, key=True),))


def row(number: int) -> Change:
    return Change(Operation.INSERT, RELATION, None, (str(number).encode(),))


def snapshot(number: int) -> Record:
    return Record(Kind.SNAPSHOT, change=row(number))


def transaction(number: int, rows: int) -> list[Record]:
    """The records of the `number`th commit, from 1: it lies at 100 times its number."""
    end = 100 * number
    before = Lsn(end - 100)
    changes = [
        Record(
            Kind.CHANGE,
            xid=number,
            order=order,
            position=Lsn(end - 50),
            commit_time=NOON,
            after=before,
            change=row(1_000 * number + order),
        )
        for order in range(1, rows + 1)
    ]
    finish = Record(Kind.END, xid=number, position=Lsn(end), count=rows, commit_time=NOON)
    return [Record(Kind.BEGIN, xid=number), *changes, finish]


@dataclass(frozen=True, slots=True)
class History:
    """`sizes` of the transactions, and the topic that holds them, with every repetition."""

    sizes: tuple[int, ...]
    topic: tuple[Record, ...]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """The log is written until the connector dies, at any record; it goes on from any commit, or from within any
    transaction, at or before where it was, until all is written.
    """
    sizes = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=6)))
    log = [record for number, size in enumerate(sizes, 1) for record in transaction(number, size)]
    topic: list[Record] = []
    begin = 0
    for _ in range(draw(st.integers(0, 4))):
        died = draw(st.integers(begin, len(log)))
        topic += log[begin:died]
        begin = draw(st.integers(0, died))
    return History(sizes, (*topic, *log[begin:]))


def read(assembly: Assembly, records: tuple[Record, ...]) -> list[Event]:
    return [event for record in records for event in assembly.feed(record)]


def stored(events: list[Event]) -> dict[int, list[int]]:
    """Rows by transaction as a target stores them: pieces with the last one."""
    whole: dict[int, list[int]] = {}
    pieces: list[int] = []
    for event in events:
        if isinstance(event, Transaction):
            pieces += [int(bytes(change.after[0])) for change in event.changes if change.after]  # type: ignore[arg-type]  # a row of ours is bytes
            if not event.more:
                assert event.xid not in whole, "given twice"
                whole[event.xid], pieces = pieces, []
    assert not pieces, "a piece without an end"
    return whole


def expected(sizes: tuple[int, ...], *, beyond: int = 0) -> dict[int, list[int]]:
    return {
        number: [1_000 * number + order for order in range(1, size + 1)]
        for number, size in enumerate(sizes, 1)
        if size and number > beyond
    }


@given(histories(), st.integers(1, 8))
def test_any_history_cut_and_repeated_gives_each_transaction_once_and_whole(
    history: History, piece: int
) -> None:
    events = read(Assembly(Lsn(0), piece_changes=piece), history.topic)
    assert list(stored(events).items()) == list(expected(history.sizes).items())
    positions = [event.position for event in events if not (isinstance(event, Transaction) and event.more)]
    assert positions == [Lsn(100 * number) for number in range(1, len(history.sizes) + 1)]


@given(histories(), st.integers(1, 8), st.data())
def test_a_reader_that_begins_anew_gives_what_its_target_lacks(
    history: History, piece: int, data: st.DataObject
) -> None:
    """Begun anew at the first record, or behind the END of any commit that the target holds."""
    beyond = data.draw(st.integers(0, len(history.sizes)))
    ends = [
        offset + 1
        for offset, record in enumerate(history.topic)
        if record.kind is Kind.END
        and record.xid <= beyond
        # what follows an END that was given away; a repeated one is never confirmed
        and all(earlier.xid < record.xid for earlier in history.topic[:offset] if earlier.kind is Kind.END)
    ]
    begin = data.draw(st.sampled_from([0, *ends]))
    events = read(Assembly(Lsn(100 * beyond), piece_changes=piece), history.topic[begin:])
    assert stored(events) == expected(history.sizes, beyond=beyond)


@given(st.integers(1, 6), st.data())
def test_a_record_that_never_came_is_noticed(rows: int, data: st.DataObject) -> None:
    records = transaction(1, rows)
    del records[data.draw(st.integers(1, rows))]
    with pytest.raises(GapError, match=f"has {rows} records"):
        read(Assembly(Lsn(0)), tuple(records))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 8), st.data())
def test_a_record_that_comes_later_with_all_behind_it_is_as_good(
    rows: list[int], piece: int, data: st.DataObject
) -> None:
    """A connector that could not send a record may send others before it fails, and then sends all from there again."""
    topic = [record for number, size in enumerate(rows, 1) for record in transaction(number, size)]
    missing = data.draw(
        st.sampled_from([place for place, each in enumerate(topic) if each.kind is not Kind.BEGIN])
    )
    noticed = data.draw(st.integers(missing, len(topic)))
    again = data.draw(st.integers(0, missing))
    written = [*topic[:missing], *topic[missing + 1 : noticed], *topic[again:]]
    assembly, events, gaps = Assembly(Lsn(0), piece_changes=piece), list[Event](), 0
    for record in written:
        try:
            events += assembly.feed(record)
        except GapError:
            gaps += 1
    assert list(stored(events).items()) == list(expected(tuple(rows)).items())
    ends = [record.xid for record in topic[missing + 1 : noticed] if record.kind is Kind.END]
    assert gaps == len(ends)
    assert assembly.between


def test_an_end_that_never_came_is_noticed() -> None:
    with pytest.raises(GapError, match="was never finished"):
        read(Assembly(Lsn(0)), (*transaction(1, 2)[:-1], *transaction(2, 1)))


def test_what_was_never_finished_is_never_given() -> None:
    assembly = Assembly(Lsn(0))
    assert read(assembly, tuple(transaction(1, 3)[:-1])) == []
    assert not assembly.between


def test_a_commit_that_says_nothing_is_a_watermark() -> None:
    assert read(Assembly(Lsn(0)), tuple(transaction(1, 0))) == [Watermark(Lsn(100))]


def test_rows_of_a_snapshot_go_with_the_next_commit_and_before_its_changes() -> None:
    events = read(Assembly(Lsn(0)), (snapshot(7), *transaction(1, 1)))
    assert stored(events) == {1: [7, 1001]}


def test_rows_of_a_snapshot_that_were_stored_do_not_undo_what_followed() -> None:
    """The topic holds a row as it was, its later update, and a commit that the target lacks."""
    topic = (snapshot(7), *transaction(1, 1), *transaction(2, 1))
    assert stored(read(Assembly(Lsn(100)), topic)) == {2: [2001]}
