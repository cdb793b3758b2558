"""What every source promises, asked of the real one and of the fake."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest

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
from cdc.seams import Source
from cdc.sources.memory import MemorySource
from cdc.sources.slot import SlotSource, created_slot
from tests.cdc_shop import admin

TABLE = TableName("public", "item")


@dataclass
class Bench:
    """A source with the means to make things happen on it."""

    source: Source
    begin: Lsn
    commit: Callable[[int], None]
    noise: Callable[[], None]


@pytest.fixture(params=["memory", "slot"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield _memory()
        return
    database: str = request.getfixturevalue("database")
    slot = f"contract_{secrets.token_hex(4)}"
    with admin(database) as connection:
        connection.execute("CREATE TABLE item (id integer PRIMARY KEY)")
        connection.execute("CREATE TABLE other (id integer)")
        connection.execute("CREATE PUBLICATION items FOR TABLE item")
        with created_slot(database, slot) as created:
            begin = created.consistent_point
        source = SlotSource(database, slot=slot, publication="items", tables=[TABLE])
        yield Bench(
            source,
            begin,
            lambda number: connection.execute("INSERT INTO item VALUES (%s)", [number]) and None,
            lambda: connection.execute("INSERT INTO other SELECT g FROM generate_series(1, 100) g") and None,
        )
        source.close()


def _memory() -> Bench:
    source = MemorySource(patience=0.01)
    relation = Relation(TABLE, (RelationColumn("id", 23, key=True),))
    end = [100]

    def commit(number: int) -> None:
        end[0] += 10
        row = (str(number).encode(),)
        change = Change(Operation.INSERT, relation, None, row)
        source.commit(Transaction(Lsn(end[0]), datetime.now(UTC), number, (change,)))

    def noise() -> None:
        end[0] += 10
        source.pass_time(Lsn(end[0]))

    return Bench(source, Lsn(100), commit, noise)


def read_until(source: Source, enough: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + 20
    while not enough(events):
        assert time.monotonic() < deadline, events
        events += source.read(0.1)
    return events


def transactions(events: list[Event]) -> list[Transaction]:
    return [event for event in events if isinstance(event, Transaction)]


def numbers(events: list[Event]) -> list[int]:
    found = []
    for transaction in transactions(events):
        for change in transaction.changes:
            assert change.after is not None
            assert isinstance(change.after[0], bytes)
            found.append(int(change.after[0]))
    return found


def some(count: int) -> Callable[[list[Event]], bool]:
    return lambda events: len(transactions(events)) >= count


def restart(bench: Bench, *, after: Lsn) -> None:
    """Let go and begin again; a server notices only after a moment that its reader has gone."""
    bench.source.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            return bench.source.start(after)
        except psycopg.errors.ObjectInUse:
            assert time.monotonic() < deadline, "the slot was not let go"
            time.sleep(0.01)


def test_transactions_come_whole_in_commit_order(bench: Bench) -> None:
    bench.source.start(bench.begin)
    for number in range(5):
        bench.commit(number)
    events = read_until(bench.source, some(5))
    assert numbers(events) == [0, 1, 2, 3, 4]
    positions = [each.position for each in transactions(events)]
    assert positions == sorted(set(positions))
    assert all(position > bench.begin for position in positions)
    assert abs((datetime.now(UTC) - transactions(events)[0].commit_time).total_seconds()) < 60


def test_what_was_not_confirmed_comes_again(bench: Bench) -> None:
    bench.source.start(bench.begin)
    for number in range(3):
        bench.commit(number)
    first = transactions(read_until(bench.source, some(3)))
    restart(bench, after=bench.begin)
    assert transactions(read_until(bench.source, some(3))) == first


def test_what_was_confirmed_does_not_come_again(bench: Bench) -> None:
    bench.source.start(bench.begin)
    for number in range(3):
        bench.commit(number)
    first = transactions(read_until(bench.source, some(3)))
    bench.source.confirm(first[1].position)
    restart(bench, after=bench.begin)
    again = transactions(read_until(bench.source, some(1)))
    assert again[0] == first[2]


def test_start_leaves_out_what_the_caller_has(bench: Bench) -> None:
    bench.source.start(bench.begin)
    for number in range(3):
        bench.commit(number)
    first = transactions(read_until(bench.source, some(3)))
    restart(bench, after=first[0].position)
    assert transactions(read_until(bench.source, some(2))) == first[1:]


def test_watermarks_pass_what_does_not_concern_us_but_never_a_transaction(bench: Bench) -> None:
    bench.source.start(bench.begin)
    bench.commit(1)
    bench.noise()
    bench.commit(2)
    bench.noise()

    def passed(events: list[Event]) -> bool:
        done = transactions(events)
        return len(done) == 2 and any(
            isinstance(event, Watermark) and event.position > done[-1].position for event in events
        )

    events = read_until(bench.source, passed)
    highest = Lsn(0)
    for event in events:
        if isinstance(event, Transaction):
            assert event.position > highest, "a watermark ran ahead of a transaction"
        highest = max(highest, event.position)


def test_an_idle_read_returns_in_time(bench: Bench) -> None:
    bench.source.start(bench.begin)
    began = time.monotonic()
    for _ in range(3):
        assert not transactions(bench.source.read(0.05))
    bench.source.answer()
    assert time.monotonic() - began < 10
