"""Whatever history the target refuses parts of: keys that are not parked are right at once, the others after a
retry.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cdc.sinks.postgres
from cdc import schema
from cdc.changes import UNCHANGED, Change, Key, Lsn, Operation, Row, TableName, Transaction
from cdc.mapping import Mapping, parse_mapping
from cdc.parked import Address
from cdc.release import NotParkedError, find, read_parked, retry, skip
from cdc.seams import StreamError
from cdc.sinks.parking import TooManyParkedError
from cdc.sinks.postgres import ApplyError, PostgresSink
from chassis.yamlfile import parse
from tests.cdc_histories import MOMENT, RELATIONS, START, TABLES, histories, in_pieces, meaning
from tests.cdc_shop import admin

PRODUCT, STOCK = TABLES
MAPPING = """
tables:
  product: {target: copy_product, key: {id: id}, columns: {id: id, name: name, body: body}}
  stock: {target: copy_stock, key: {id: id}, columns: {id: id, name: name, body: body}}
"""
REFUSE = """
ALTER TABLE copy_product ADD CONSTRAINT no_a CHECK (name <> 'a');
ALTER TABLE copy_stock ADD CONSTRAINT short CHECK (body IS NULL OR body <> 'c'), ALTER name SET NOT NULL;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN IF OLD.id = 2 AND current_query() LIKE '%USING%' THEN RAISE 'row 2 stays'; END IF; RETURN OLD; END$$;
CREATE TRIGGER keep BEFORE DELETE ON copy_product FOR EACH ROW EXECUTE FUNCTION keep();
ALTER TABLE copy_product ENABLE ALWAYS TRIGGER keep;
"""
REPAIR = """
ALTER TABLE copy_product DROP CONSTRAINT no_a;
ALTER TABLE copy_stock DROP CONSTRAINT short, ALTER name DROP NOT NULL;
DROP TRIGGER keep ON copy_product;
DROP FUNCTION keep;
"""
FIXTURE = [HealthCheck.function_scoped_fixture]
Held = dict[TableName, dict[Key, Row]]


@dataclass(slots=True)
class Target:
    """A target database of one stream."""

    dsn: str
    stream: str
    mapping: Mapping
    connection: psycopg.Connection[Any]

    def sink(self, *, max_parked: int | None = 100) -> PostgresSink:
        """An applier that knows its position."""
        sink = PostgresSink(self.dsn, stream=self.stream, mapping=self.mapping, max_parked=max_parked)
        sink.position()
        return sink

    def held(self) -> Held:
        """The rows as they are."""
        found: Held = {}
        for table in TABLES:
            rows = self.connection.execute(f"SELECT id::text, name, body FROM copy_{table.name}".encode())
            found[table] = {
                (row[0].encode(),): tuple(None if value is None else value.encode() for value in row)
                for row in rows
            }
        return found

    def parked(self) -> set[Address]:
        """The keys that wait."""
        return {each for lot in read_parked(self.dsn, stream=self.stream) for each in lot.addresses}

    def retry(self, address: Address | None = None) -> list[str]:
        """The errors of what is still refused."""
        done = retry(self.dsn, stream=self.stream, mapping=self.mapping, address=address)
        return [each.error for each in done if each.error]

    def run(self, statements: str) -> None:
        """Any statements."""
        self.connection.execute(statements.encode())


@contextmanager
def made(database: str) -> Iterator[Target]:
    data, places = parse(MAPPING, "plan.yaml")
    stream = f"parked_{secrets.token_hex(4)}"
    with admin(database) as connection:
        for table in TABLES:
            connection.execute(
                f"DROP TABLE IF EXISTS copy_{table.name};"
                f"CREATE TABLE copy_{table.name} (id bigint PRIMARY KEY, name text, body text)".encode()
            )
        schema.create(connection)
        connection.execute(
            "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES (%s, %s::pg_lsn, '0/0')",
            [stream, str(START)],
        )
        yield Target(database, stream, parse_mapping(data["tables"], places), connection)
        connection.execute("DROP FUNCTION IF EXISTS keep CASCADE")


@pytest.fixture(params=[32, 0], ids=["prepared statements", "COPY"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Up to how many rows travel as parameters."""
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", request.param)
    return int(request.param)


@pytest.fixture
def target(database: str, few: int) -> Iterator[Target]:
    del few
    with made(database) as target:
        yield target


def without(rows: Held, parked: set[Address]) -> Held:
    return {
        table: {key: row for key, row in of.items() if f"{table.name}/{key[0].decode()}" not in parked}
        for table, of in rows.items()
    }


@pytest.mark.usefixtures("few")
@given(
    history=st.tuples(histories(), st.sampled_from([2, 10])).map(lambda drawn: in_pieces(*drawn)),
    batch=st.integers(1, 8),
    repaired_after=st.integers(0, 8),
)
@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
def test_what_is_not_parked_is_right_at_once_and_the_rest_after_a_retry(
    database: str, history: list[Transaction], batch: int, repaired_after: int
) -> None:
    with made(database) as target:
        target.run(REFUSE)
        sink = target.sink()
        try:
            play(target, sink, history, batch=batch, repaired_after=repaired_after, repair=REPAIR)
        finally:
            sink.close()


@pytest.mark.usefixtures("few")
@given(history=histories(), batch=st.integers(1, 8), repaired_after=st.integers(0, 8))
@settings(deadline=None, max_examples=40, suppress_health_check=FIXTURE)
def test_the_same_where_constraints_are_asked_at_the_end_of_a_transaction(
    database: str, history: list[Transaction], batch: int, repaired_after: int
) -> None:
    with made(database) as target:
        target.run("ALTER TABLE copy_stock ADD CONSTRAINT one UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
        target.run("ALTER TABLE copy_product ADD CONSTRAINT no_a CHECK (name <> 'a')")
        sink = target.sink()
        as_plain_role(sink)
        repair = "ALTER TABLE copy_stock DROP CONSTRAINT one; ALTER TABLE copy_product DROP CONSTRAINT no_a"
        try:
            play(target, sink, history, batch=batch, repaired_after=repaired_after, repair=repair)
        finally:
            sink.close()


def play(
    target: Target,
    sink: PostgresSink,
    history: Sequence[Transaction],
    *,
    batch: int,
    repaired_after: int,
    repair: str,
) -> None:
    """Apply `history`, with a retry after each batch; the cause is repaired after some, or at the end."""
    broken = True
    for start in range(0, len(history), batch):
        seen = history[: start + batch]
        sink.apply(history[start : start + batch])
        if seen[-1].more:
            continue
        parked = target.parked()
        assert without(target.held(), parked) == without(meaning(seen), parked)
        assert sink.position() == seen[-1].position
        if broken and start // batch >= repaired_after:
            target.run(repair)
            broken = False
        target.retry()  # beside the stream, which learns of it
    if broken:
        target.run(repair)
    assert target.retry() == []
    assert target.parked() == set()
    assert target.held() == meaning(history)


def as_plain_role(sink: PostgresSink) -> None:
    """As a role that may not switch constraint triggers off."""
    sink.replica_role = False
    sink.connection.execute("RESET session_replication_role")


def at(number: int, *changes: Change, more: bool = False) -> Transaction:
    return Transaction(Lsn(10 * number), MOMENT, number, changes, more=more)


def put(id_: int, name: str | None, body: str | None = None, was: int | None = None) -> Change:
    """A row of the table stock; `was`: updated, from this id."""
    row = (str(id_).encode(), name and name.encode(), body and body.encode())
    if was is None:
        return Change(Operation.INSERT, RELATIONS[1], None, row)  # type: ignore[arg-type]  # "" is not used
    return Change(Operation.UPDATE, RELATIONS[1], (str(was).encode(), None, None), row)  # type: ignore[arg-type]  # as above


def names(target: Target) -> dict[str, str]:
    rows = target.connection.execute("SELECT id::text, name FROM copy_stock ORDER BY id").fetchall()
    return dict(rows)


def test_a_parked_change_tells_what_and_why(target: Target) -> None:
    target.run(
        "ALTER TABLE copy_stock ADD CONSTRAINT short CHECK (length(name) < 5), ALTER name SET NOT NULL"
    )
    sink = target.sink()
    sink.apply([at(1, put(1, "good"), put(2, "too long")), at(2, put(2, "fine", was=2)), at(3, put(3, None))])
    sink.close()
    first, second = read_parked(target.dsn, stream=target.stream)
    assert first.addresses == ("stock/2",)
    assert [entry.position for entry in first.entries] == [Lsn(10), Lsn(20)]
    refused, behind = first.entries
    assert refused.refusal is not None
    assert refused.refusal.sqlstate == "23514"
    assert "short" in refused.refusal.reason
    assert refused.commit_time == MOMENT
    assert behind.refusal is None
    assert behind.change == put(2, "fine", was=2)
    assert second.entries[0].refusal is not None
    assert second.entries[0].refusal.column == "name"
    assert names(target) == {"1": "good"}


def test_a_change_that_mends_the_row_is_enough(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT short CHECK (length(name) < 5)")
    sink = target.sink()
    sink.apply([at(1, put(2, "too long"))])
    assert "short" in target.retry("stock/2")[0]
    assert target.parked() == {"stock/2"}
    sink.apply([at(2, put(2, "fine", was=2))])
    assert target.retry("stock/2") == []
    assert names(target) == {"2": "fine"}
    sink.apply([at(3, put(2, "on", was=2))])
    assert names(target) == {"2": "on"}
    sink.close()


def test_a_unique_value_that_another_parked_key_holds(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD UNIQUE (name), ADD CONSTRAINT no CHECK (name <> 'x')")
    sink = target.sink()
    sink.apply([at(1, put(1, "a"), put(2, "b"))])
    sink.apply([at(2, put(1, "x", was=1)), at(3, put(2, "a", was=2)), at(4, put(3, "c"))])
    assert target.parked() == {"stock/1", "stock/2"}
    assert names(target) == {"1": "a", "2": "b", "3": "c"}
    assert len(target.retry()) == 2
    target.run("ALTER TABLE copy_stock DROP CONSTRAINT no")
    assert "duplicate key" in target.retry("stock/2")[0]
    assert target.retry() == []
    assert names(target) == {"1": "x", "2": "a", "3": "c"}
    sink.close()


def test_a_key_that_is_skipped_goes_on_with_its_next_change(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT short CHECK (length(name) < 5)")
    sink = target.sink()
    sink.apply([at(1, put(1, "one"))])
    sink.apply([at(2, put(1, "too long", was=1))])
    sink.apply([at(3, put(9, "nine", was=1))])
    assert target.parked() == {"stock/1", "stock/9"}
    with pytest.raises(NotParkedError, match="parked are stock/1, stock/9"):
        find(target.dsn, stream=target.stream, address="stock/7")
    assert skip(target.dsn, find(target.dsn, stream=target.stream, address="stock/9")) == 2
    assert target.parked() == set()
    sink.apply([at(4, put(9, "new", was=9))])
    assert names(target) == {"1": "one", "9": "new"}
    sink.close()


def test_deferred_constraints_park_the_change_that_breaks_them(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    sink = target.sink()
    as_plain_role(sink)
    # a swap is fine at its end, though not in the middle
    sink.apply([at(1, put(1, "a"), put(2, "b"))])
    sink.apply([at(2, put(1, "b", was=1), put(2, "a", was=2), put(3, "c"), put(4, "c"), put(5, "e"))])
    assert names(target) == {"1": "b", "2": "a", "3": "c", "5": "e"}
    assert target.parked() == {"stock/4"}
    sink.apply([at(3, put(3, "d", was=3))])
    assert target.retry() == []
    assert names(target) == {"1": "b", "2": "a", "3": "d", "4": "c", "5": "e"}
    sink.close()


def test_a_broken_mapping_does_not_park_a_whole_table(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT never CHECK (id = 0)")
    sink = target.sink(max_parked=3)
    sink.apply([at(1, put(1, "a"), put(2, "b"))])
    with pytest.raises(TooManyParkedError, match=r"4 keys would be parked with 4 changes \(4 of stock\)"):
        sink.apply([at(2, put(3, "c"), put(4, "d"), put(5, "e"))])
    assert target.parked() == {"stock/1", "stock/2"}
    assert sink.position() == Lsn(10)
    target.run("ALTER TABLE copy_stock DROP CONSTRAINT never")
    sink.apply([at(2, put(3, "c"), put(4, "d"), put(5, "e"))])
    assert names(target) == {"3": "c", "4": "d", "5": "e"}
    sink.close()


@pytest.mark.parametrize(
    "broken",
    ["ALTER TABLE copy_stock DROP COLUMN body", "DROP TABLE copy_stock"],
)
def test_what_every_row_would_be_refused_for_stops_the_stream(target: Target, broken: str) -> None:
    target.run(broken)
    sink = target.sink()
    with pytest.raises(ApplyError):
        sink.apply([at(1, put(1, "a"))])
    assert target.parked() == set()
    sink.close()


def test_a_truncation_that_is_refused_stops_the_stream(target: Target) -> None:
    target.run(REFUSE.replace("AND current_query() LIKE '%USING%'", ""))
    sink = target.sink()
    product = RELATIONS[0]
    sink.apply([at(1, Change(Operation.INSERT, product, None, (b"2", b"b", None)))])
    with pytest.raises(StreamError, match="TRUNCATE is refused: row 2 stays"):
        sink.apply([at(2, Change(Operation.TRUNCATE, product))])
    assert sink.position() == Lsn(10)
    sink.close()


def test_who_retries_and_the_applier_wait_for_each_other(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT no CHECK (name <> 'x')")
    sink = target.sink()
    sink.apply([at(1, put(1, "x"))])
    target.run("ALTER TABLE copy_stock DROP CONSTRAINT no")
    # the stream is within a large transaction, which waits with nothing but rows
    sink.apply([at(2, put(2, "b"), more=True)])
    errors: list[Sequence[str]] = []
    retrying = threading.Thread(target=lambda: errors.append(target.retry()))
    retrying.start()
    sink.apply([at(2, put(1, "y", was=1), put(2, "c", was=2))])
    retrying.join(30)
    assert errors == [[]]
    assert names(target) == {"1": "y", "2": "c"}
    sink.apply([at(3, put(1, "z", was=1))])
    assert names(target)["1"] == "z"
    sink.close()


def test_an_applier_that_was_in_somebody_s_way_lets_others_retry(target: Target) -> None:
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT no CHECK (name <> 'x')")
    sink = target.sink()
    sink.apply([at(1, put(1, "x"), put(2, "b"))])
    target.run("ALTER TABLE copy_stock DROP CONSTRAINT no")
    sink.connection.execute("SET lock_timeout = '50ms'")
    with target.connection.transaction():
        target.run("UPDATE copy_stock SET body = 'mine' WHERE id = 2")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sink.apply([at(2, put(2, "c", was=2))])
    # the same process, as one that applies a partition does it
    assert target.retry() == []
    sink.apply([at(2, put(2, "c", was=2))])
    assert names(target) == {"1": "x", "2": "c"}
    sink.close()


def test_a_schema_from_before_keys_could_be_parked_is_completed(database: str) -> None:
    with admin(database) as connection:
        schema.create(connection)
        connection.execute("DROP TABLE strangler_cdc.parked")
        assert schema.exists(connection)
        assert not schema.complete(connection)
        assert read_parked(connection, stream="any") == ()
        connection.execute("INSERT INTO strangler_cdc.position VALUES ('kept', '0/5', '0/1')")
        schema.create(connection)
        assert schema.complete(connection)
        assert connection.execute("SELECT stream FROM strangler_cdc.position").fetchall() == [("kept",)]


def test_values_come_back_as_they_were_parked(target: Target) -> None:
    strange = b"\xff\xfe not UTF-8"
    relation = RELATIONS[1]
    changes = (
        Change(Operation.INSERT, relation, None, (b"1", strange, None)),
        Change(Operation.UPDATE, relation, (b"1", None, None), (b"a/b %\xc3\xa4", b"", UNCHANGED)),
    )
    target.run("ALTER TABLE copy_stock ADD CONSTRAINT never CHECK (false)")
    sink = target.sink()
    sink.apply([at(1, *changes)])
    sink.close()
    (lot,) = read_parked(target.dsn, stream=target.stream)
    assert tuple(entry.change for entry in lot.entries) == changes
    assert lot.addresses == ("stock/1", "stock/a%2Fb%20%25%C3%A4")
