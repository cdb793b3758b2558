"""What every source promises, asked of the real ones (the log, Debezium through Kafka, Debezium's engine) and of the
fake; and that one history comes out of each real one as the same rows of a target.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest

from cdc import schema
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
from cdc.sinks.postgres import PostgresSink
from cdc.sources.memory import MemorySource
from tests.cdc_shop import admin, shop_mapping
from tests.debezium_lab import QUICK_JAVA, engine_role, make_bench, over_tcp, read_history
from tests.kafka_lab import KafkaLab
from workshop.postgres import EmbeddedPostgres

TABLE = TableName("public", "item")


@dataclass
class Bench:
    """A source with the means to make things happen on it."""

    source: Source
    begin: Lsn
    commit: Callable[[int], object]
    noise: Callable[[], object]


DDL = "CREATE TABLE item (id integer PRIMARY KEY); CREATE TABLE other (id integer)"


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    with engine_role(postgres) as name:
        yield name


@pytest.fixture(autouse=True)
def quick_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Java spends less on compiling what runs for seconds only."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)


@pytest.fixture(params=["memory", "slot", "kafka", "engine"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield _memory()
        return
    postgres: EmbeddedPostgres = request.getfixturevalue("postgres")
    database = over_tcp(postgres, request.getfixturevalue("database"), request.getfixturevalue("role"))
    made = make_bench(database, ddl=DDL, keys={"item": ("id",)})
    with ExitStack() as stack, admin(database) as connection:
        match request.param:
            case "slot":
                source: Source = made.slot()
            case "engine":
                source = made.engine()
            case _:
                source = stack.enter_context(made.kafka(request.getfixturevalue("kafka")))
        yield Bench(
            source,
            made.begin,
            lambda number: connection.execute("INSERT INTO item VALUES (%s)", [number]),
            lambda: connection.execute("INSERT INTO other SELECT g FROM generate_series(1, 100) g"),
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
    """Those that change rows: Debezium's heartbeats are transactions of one message."""
    return [event for event in events if isinstance(event, Transaction) and event.changes]


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


# a topic is read again from its beginning by a target that says it has less than was confirmed
@pytest.mark.parametrize("bench", ["memory", "slot", "engine"], indirect=True)
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
            event.position > done[-1].position for event in events if not transactions([event])
        )

    events = read_until(bench.source, passed)
    highest = Lsn(0)
    for event in events:
        if not isinstance(event, Watermark):
            assert event.position > highest, "a watermark ran ahead of a transaction"
        highest = max(highest, event.position)


def test_an_idle_read_returns_in_time(bench: Bench) -> None:
    bench.source.start(bench.begin)
    began = time.monotonic()
    for _ in range(3):
        assert not transactions(bench.source.read(0.05))
    bench.source.answer()
    assert time.monotonic() - began < 10


ITEMS = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE item (
    id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2), body text, note text DEFAULT 'none',
    mood mood NOT NULL DEFAULT 'ok', at timestamptz(3), raw bytea, tags text[] DEFAULT '{}');
ALTER TABLE item ALTER body SET STORAGE EXTERNAL;
"""
THINGS = """
CREATE TABLE thing (
    thing_id bigint PRIMARY KEY, title text NOT NULL, cents bigint, body text, note text, mood text NOT NULL,
    at timestamptz, raw bytea, tags text[], label text);
"""
MAPPING = """
tables:
  item:
    target: thing
    key: {thing_id: id}
    columns:
      title: name
      cents: {sql: (price * 100)::bigint, inverse: {price: "(cents::numeric / 100)::numeric(10,2)"}}
      body: body
      note: note
      mood: mood
      at: at
      raw: raw
      tags: tags
      label: {sql: "upper(name) || ': ' || length(coalesce(body, ''))", derived: true}
"""
EXPECTED = """
SELECT id::bigint, name, (price * 100)::bigint, body, note, mood::text, at, raw, tags,
       upper(name) || ': ' || length(coalesce(body, '')) FROM item ORDER BY id
"""
ITEM_HISTORY = (
    """INSERT INTO item SELECT g, 'name ' || g, g + 0.99, repeat('x', 5000) || g, nullif('n' || g % 3, 'n0'), 'sad',
    '2024-02-29 10:00:00.123+00', '\\x00ff', ARRAY['a', NULL, 'b"c'] FROM generate_series(1, 40) g""",
    "INSERT INTO item (id, name, tags) VALUES (50, 'näme', NULL)",
    "UPDATE item SET name = 'renamed' WHERE id % 4 = 0",
    "UPDATE item SET note = NULL, price = NULL WHERE id % 5 = 0",
    "UPDATE item SET id = id + 100 WHERE id IN (7, 8)",
    "UPDATE item SET id = id + 100, body = 'short' WHERE id = 9",
    "DELETE FROM item WHERE id IN (1, 2, 107)",
    """BEGIN; INSERT INTO item (id, name) VALUES (1, 'again'); UPDATE item SET id = 2 WHERE id = 1;
    INSERT INTO item (id, name, body) VALUES (1, 'third', ''); DELETE FROM item WHERE id = 2; COMMIT""",
    "BEGIN; DELETE FROM item; ROLLBACK",
    "UPDATE item SET mood = 'ok', tags = '{}' WHERE id > 30",
)


def test_one_history_through_each_source_is_one_target(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab
) -> None:
    database = over_tcp(postgres, make_database(), role)
    made = make_bench(database, ddl=ITEMS, keys={"item": ("id",)})
    made.write(*ITEM_HISTORY)
    made.end()
    with admin(database) as connection:
        expected = connection.execute(EXPECTED).fetchall()
    assert len(expected) == 39
    with made.kafka(kafka) as topic:
        sources: dict[str, Source] = {"slot": made.slot(), "engine": made.engine(), "kafka": topic}
        for name, source in sources.items():
            target = make_database()
            _apply(target, read_history(source, made.begin), after=made.begin)
            with admin(target) as connection:
                assert connection.execute("SELECT * FROM thing ORDER BY thing_id").fetchall() == expected, (
                    name
                )


def _apply(target: str, history: list[Transaction], *, after: Lsn) -> None:
    """All of it into new tables of `target`, three transactions at a time."""
    with admin(target) as connection:
        connection.execute(THINGS)
        schema.create(connection)
        connection.execute(
            "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES ('one', %s::pg_lsn, '0/0')",
            [str(after)],
        )
    sink = PostgresSink(target, stream="one", mapping=shop_mapping(MAPPING))
    try:
        assert sink.position() == after
        for start in range(0, len(history), 3):
            sink.apply(history[start : start + 3])
        assert sink.position() == history[-1].position
    finally:
        sink.close()
