"""A snapshot in binary brings what one in text brings, for every type that may travel so, and refuses the same."""

import threading
from collections.abc import Callable

import psycopg
import pytest

from cdc.copyformat import binary_fits
from cdc.mapping import parse_mapping
from cdc.meter import SnapshotProgress
from cdc.prepare import prepare
from cdc.sessions import connect
from cdc.sinks.postgres import ApplyError, PostgresSink
from cdc.snapshot import take_snapshot
from cdc.sources.slot import drop_slot
from chassis.yamlfile import parse

# type → values at the edges of it
VALUES = {
    "boolean": ["t", "f"],
    "bytea": ["\\x", "\\x00ff5c0a09"],
    "smallint": ["-32768"],
    "integer": ["2147483647"],
    "bigint": ["-9223372036854775808"],
    "oid": ["4294967295"],
    "text": ["", "a\tb\nc\\d\\N", "\\N", "ünïcode \U0001f600"],
    "varchar(20)": ["trailing  "],
    "char(5)": ["ab"],
    "json": ['{"b": 1,  "a": [1.0]}'],
    "jsonb": ['{"b": 1.00, "a": null}'],
    "real": ["0.1", "NaN", "-Infinity", "-0"],
    "double precision": ["0.1", "4.9e-324", "1.7976931348623157e308"],
    "numeric": ["NaN", "Infinity", "-0.000", "1e100", "123456789012345678901234567890.123456789"],
    "numeric(10,2)": ["-99999999.99", "0.10"],
    "inet": ["10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "varbit": ["", "10101010101"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "date": ["infinity", "4713-01-01 BC", "5874897-12-31"],
    "time": ["24:00:00", "00:00:00.000001"],
    "timetz": ["10:00:00+05:30"],
    "timestamp": ["-infinity", "0044-03-15 00:00:00 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["infinity", "2026-01-01 12:00:00.123456+03"],
    "interval": ["-1 year 2 mons -3 days +04:05:06.789"],
    "bigint[]": ["{}", "{1,NULL,3}", "[2:3]={4,5}"],
    "text[]": ['{"",NULL,"NULL","a,b"}', "{{a,b},{c,d}}"],
    "numeric[]": ["{1.50,NaN}"],
    "timestamptz[]": ['{"2026-01-01 00:00:00+00"}'],
    "uuid[]": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"],
    "jsonb[]": ['{"{\\"a\\": 1}"}'],
}  # fmt: skip


def _snapshot(source_dsn: str, target_dsn: str, mapping_text: str) -> tuple[int, SnapshotProgress]:
    """Take one and forget its slot; the rows it stored as its count, and what it told last."""
    data, places = parse(mapping_text, "mapping.yaml")
    mapping = parse_mapping(data["tables"], places)
    slot = f"format_{threading.get_native_id()}"
    prepare(
        mapping,
        source_owner_dsn=source_dsn,
        target_owner_dsn=target_dsn,
        cdc_role="postgres",
        publication=slot,
    )
    told: list[SnapshotProgress] = []
    sink = PostgresSink(target_dsn, mapping=mapping, stream=slot)
    try:
        take_snapshot(
            source_dsn=source_dsn,
            target=sink.connection,
            defer=False,
            mapping=mapping,
            slot=slot,
            replace_target=False,
            stop=threading.Event(),
            report=told.append,
        )
        row = sink.connection.execute("SELECT snapshot_rows FROM strangler_cdc.position").fetchone()
    finally:
        sink.close()
        with connect(source_dsn, name="test") as source:
            drop_slot(source, slot)
    assert row is not None
    return int(row[0]), told[-1]


def _typed(source_dsn: str) -> tuple[str, int]:
    """A table `typed` with a column of every type, and the mapping that copies it as it is."""
    names = {f"c{number}": type_ for number, type_ in enumerate(VALUES)}
    columns = ", ".join(f"{name} {type_}" for name, type_ in names.items())
    rows = max(len(values) for values in VALUES.values()) + 1
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute(f"CREATE TABLE typed (id bigint PRIMARY KEY, {columns})".encode())
        for number in range(rows):
            # behind a type's last value come NULLs
            values = [dict(enumerate(each)).get(number) for each in VALUES.values()]
            source.execute(
                f"INSERT INTO typed VALUES ({', '.join(['%s'] * (len(values) + 1))})".encode(),
                [number, *values],
            )
    listed = "\n".join(f"      {name}: {name}" for name in names)
    return f"tables:\n  typed:\n    target: typed\n    key: {{id: id}}\n    columns:\n{listed}\n", rows


def _rows(dsn: str, table: str = "typed") -> list[str]:
    with connect(dsn, name="test") as connection:
        found = connection.execute(f"SELECT t::text FROM {table} t ORDER BY id".encode())
        return [row[0] for row in found]


@pytest.mark.parametrize("binary", [True, False])
def test_every_type_arrives_as_it_is(make_database: Callable[[], str], *, binary: bool) -> None:
    source_dsn, target_dsn = make_database(), make_database()
    mapping, rows = _typed(source_dsn)
    columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(VALUES))
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn, autocommit=True) as target:
        target.execute(f"CREATE TABLE typed (id bigint PRIMARY KEY, {columns})".encode())
        if not binary:  # one column that has to be read anew takes the whole table to text
            target.execute("ALTER TABLE typed ALTER c3 TYPE numeric")
        types = [
            [
                column.type_code
                for column in connection.execute("SELECT * FROM typed LIMIT 0").description or ()
            ]
            for connection in (source, target)
        ]
    assert binary_fits(*types) is binary

    count, told = _snapshot(source_dsn, target_dsn, mapping)

    assert count == rows
    assert [(table.rows, table.done) for table in told.tables] == [(rows, True)]
    assert _rows(target_dsn) == _rows(source_dsn)


def test_an_empty_table_and_one_of_many_blocks_are_counted(make_database: Callable[[], str]) -> None:
    source_dsn, target_dsn = make_database(), make_database()
    for dsn in (source_dsn, target_dsn):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE none (id bigint PRIMARY KEY, note text)")
            connection.execute("CREATE TABLE many (id bigint PRIMARY KEY, note text)")
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("INSERT INTO many SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
    tables = "".join(
        f"  {name}:\n    target: {name}\n    key: {{id: id}}\n    columns: {{note: note}}\n"
        for name in ("none", "many")
    )
    count, told = _snapshot(source_dsn, target_dsn, f"tables:\n{tables}")
    assert count == 20_000
    assert [table.rows for table in told.tables] == [0, 20_000]
    assert _rows(target_dsn, "many") == _rows(source_dsn, "many")


def test_a_value_too_long_for_the_target_is_refused_in_binary_too(make_database: Callable[[], str]) -> None:
    source_dsn, target_dsn = make_database(), make_database()
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE short (id bigint PRIMARY KEY, note text, price numeric)")
        source.execute("INSERT INTO short VALUES (1, 'fits', 1.005), (2, 'does not fit', 2)")
    with psycopg.connect(target_dsn, autocommit=True) as target:
        target.execute("CREATE TABLE short (id bigint PRIMARY KEY, note varchar(5), price numeric(10,2))")
    mapping = (
        "tables:\n  short:\n    target: short\n    key: {id: id}\n    columns: {note: note, price: price}\n"
    )
    with pytest.raises(ApplyError, match=r"too long.*line 2, column note"):
        _snapshot(source_dsn, target_dsn, mapping)
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("DELETE FROM short WHERE id = 2")
    assert _snapshot(source_dsn, target_dsn, mapping)[0] == 1
    assert _rows(target_dsn, "short") == ["(1,fits,1.01)"]
