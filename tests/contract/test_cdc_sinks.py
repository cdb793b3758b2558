"""The PostgreSQL sink does what the fake does, for any history, in any batches."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cdc.sinks.postgres
from cdc import schema
from cdc.changes import Key, Lsn, Row, TableName, Transaction
from cdc.mapping import parse_mapping
from cdc.sinks.memory import MemorySink
from cdc.sinks.postgres import LostPositionError, PostgresSink
from chassis.yamlfile import parse
from tests.cdc_histories import KEYS, START, TABLES, histories, meaning
from tests.cdc_shop import admin

MAPPING = """
tables:
  product:
    target: copy_product
    key: {id: id}
    columns: {id: id, name: name, body: body, both: {sql: "name || body", derived: true}}
  stock: {target: copy_stock, key: {id: id}, columns: {id: id, name: name, body: body}}
"""
FIXTURE = [HealthCheck.function_scoped_fixture]


@contextmanager
def postgres_sink(database: str) -> Iterator[PostgresSink]:
    """A sink on fresh tables."""
    data, places = parse(MAPPING, "plan.yaml")
    stream = f"contract_{secrets.token_hex(4)}"
    with admin(database) as connection:
        connection.execute("DROP TABLE IF EXISTS copy_product, copy_stock")
        connection.execute(
            "CREATE TABLE copy_product (id bigint PRIMARY KEY, name text, body text, both_ text)"
        )
        connection.execute('ALTER TABLE copy_product RENAME both_ TO "both"')
        connection.execute("CREATE TABLE copy_stock (id bigint PRIMARY KEY, name text, body text)")
        schema.create(connection)
        connection.execute(
            "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES (%s, %s::pg_lsn, '0/0')",
            [stream, str(START)],
        )
        sink = PostgresSink(database, stream=stream, mapping=parse_mapping(data["tables"], places))
        try:
            yield sink
        finally:
            sink.close()


def held(database: str) -> dict[TableName, dict[Key, Row]]:
    found: dict[TableName, dict[Key, Row]] = {}
    with admin(database) as connection:
        for table in TABLES:
            rows = connection.execute(
                f"SELECT id::text, name, body FROM copy_{table.name}".encode()
            ).fetchall()
            found[table] = {
                (row[0].encode(),): tuple(None if value is None else value.encode() for value in row)
                for row in rows
            }
        mixed = connection.execute(
            'SELECT count(*) FROM copy_product WHERE "both" IS DISTINCT FROM name || body'
        ).fetchone()
        assert mixed == (0,), "an expression over an unchanged value was not kept up to date"
    return found


@pytest.mark.parametrize("few", [32, 0], ids=["prepared statements", "COPY"])
@given(history=histories(), batch=st.integers(1, 8))
@settings(deadline=None, max_examples=40, suppress_health_check=FIXTURE)
def test_any_history_means_the_same_to_both_sinks(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int, history: list[Transaction], batch: int
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    memory = MemorySink(KEYS, START)
    with postgres_sink(database) as sink:
        assert sink.position() == START
        for start in range(0, len(history), batch):
            part: Sequence[Transaction] = history[start : start + batch]
            sink.apply(part)
            memory.apply(part)
        assert held(database) == memory.tables == meaning(history)
        assert sink.position() == memory.position()


def test_the_position_is_stored_and_never_goes_back(database: str) -> None:
    with postgres_sink(database) as sink:
        assert sink.position() == START
        sink.advance(Lsn(50))
        assert sink.position() == Lsn(50)
        with pytest.raises(AssertionError, match="go back"):
            sink.advance(Lsn(49))


def test_a_position_written_by_somebody_else_stops_the_sink(database: str) -> None:
    with postgres_sink(database) as sink:
        sink.position()
        with admin(database) as connection:
            connection.execute("UPDATE strangler_cdc.position SET lsn = '0/30'")
        with pytest.raises(LostPositionError, match="another process wrote it"):
            sink.advance(Lsn(50))
