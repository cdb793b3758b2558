"""One history through the slot, Debezium's real engine, and Kafka Connect with a broker: the same transactions, change
by change.

Where the two differ, the difference stands here by name. What Debezium loses and the decoder refuses is shown to be
lost: were it carried one day, these tests say so.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cdc.changes import UNCHANGED, Change, Identity, Operation, Row, Transaction
from cdc.decode.debezium_values import DebeziumError
from cdc.seams import AwayError
from tests.debezium_lab import (
    QUICK_JAVA,
    Bench,
    engine_role,
    make_bench,
    over_tcp,
    read_history,
    read_records,
)
from tests.kafka_lab import KafkaLab
from workshop.postgres import EmbeddedPostgres

DDL = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s');
CREATE DOMAIN price AS numeric(8,3);
CREATE TABLE value (
    id bigint PRIMARY KEY, i2 smallint, i4 integer, r real, d double precision, n2 numeric(10,2), n numeric,
    n0 numeric(5,0), pr price, m money, b boolean, b1 bit(1), b8 bit(8), b20 bit(20), vc varchar(20), c3 char(3),
    tx text, nm name, ch "char", ts timestamp, ts3 timestamp(3), ts0 timestamp(0), tz timestamptz, tz3 timestamptz(3),
    dt date, tm time, tm3 time(3), iv interval, js json, jb jsonb, u uuid, ip inet, ci cidr, mac macaddr,
    mac8 macaddr8, en mood, ba bytea, i4r int4range, tzr tstzrange, nr numrange, dr daterange, tsv tsvector,
    tsq tsquery, pt point, o oid, lsn pg_lsn, jp jsonpath, x8 xid8, mr int4multirange,
    ia int[], i8a bigint[], i2a smallint[], ta text[], vca varchar(5)[], c3a char(3)[], ba2 boolean[], fa float8[],
    ra real[], tsa timestamp[], ts3a timestamp(3)[], tza timestamptz[], da date[], tma time(3)[], ua uuid[], ja jsonb[],
    baa bytea[], ipa inet[], oa oid[], ra4 int4range[],
    gen int GENERATED ALWAYS AS (i4 * 2) STORED);
CREATE TABLE big (id int, sub text, body text, raw bytea, arr text[], jb jsonb, nums bigint[], days date[], ids uuid[],
    plain text, PRIMARY KEY (id, sub));
ALTER TABLE big ALTER body SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL, ALTER arr SET STORAGE EXTERNAL,
    ALTER jb SET STORAGE EXTERNAL, ALTER nums SET STORAGE EXTERNAL, ALTER days SET STORAGE EXTERNAL,
    ALTER ids SET STORAGE EXTERNAL;
CREATE TABLE whole (id int PRIMARY KEY, a text NOT NULL DEFAULT 'd', b text);
ALTER TABLE whole ALTER b SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE part (id int PRIMARY KEY, a text NOT NULL DEFAULT 'd', b text);
CREATE TABLE preset (id int PRIMARY KEY, n int DEFAULT 7, t text DEFAULT 'd', b boolean DEFAULT true,
    p numeric(10,2) DEFAULT 1, ts timestamptz DEFAULT '2024-02-29 10:00:00+00', j jsonb DEFAULT '{}',
    i2 smallint NOT NULL DEFAULT -3, i8 bigint DEFAULT 9, s bigserial, r real DEFAULT 1.5,
    d double precision DEFAULT -0.1, n2 numeric NOT NULL DEFAULT 2.50, m money DEFAULT 5, c char(3) DEFAULT 'ab',
    v varchar(5) NOT NULL DEFAULT 'it''s', e text DEFAULT '', call text DEFAULT lower('A'),
    at timestamp DEFAULT '2024-02-29 10:00:00.5', now timestamptz NOT NULL DEFAULT now(),
    today date DEFAULT CURRENT_DATE, day date DEFAULT '2024-01-01', clock time DEFAULT '10:00',
    at3 timestamp(3) DEFAULT '2024-01-01 00:00:00.123', iv interval DEFAULT '1 day', js json DEFAULT '{}',
    u uuid DEFAULT gen_random_uuid(), u1 uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    mood mood DEFAULT 'sad', pr price DEFAULT 1.5, ta text[] DEFAULT '{}', ba bytea DEFAULT '',
    nul text DEFAULT NULL::text, ident int GENERATED ALWAYS AS IDENTITY);
"""
KEYS = {"value": ("id",), "big": ("id", "sub"), "whole": ("id",), "part": ("id",), "preset": ("id",)}

HISTORY = (
    """INSERT INTO value VALUES (1, -2, 1073741823, 1.5, 0.1, 19.99, 12345678901234567890.123456, -99999, 1.25,
    -1234.56, true, B'1', B'10100101', B'10000000000000000001', 'väl', 'ab', E'tab\tq"\\\\\n', 'nm', 'x',
    '2024-02-29 10:34:56.789012', '2024-02-29 10:34:56.789', '2024-02-29 10:34:56', '2024-02-29 10:34:56.789012+02',
    '2024-02-29 10:34:56.7+00', '2024-02-29', '13:14:15.678901', '13:14:15.6', '1 year 2 mons 3 days 04:05:06.7',
    '{"a": 1,  "b":[1]}', '{"a": 1.50, "ü": null}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.1.2.3/24',
    '10.1.0.0/16', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', 'it''s', '\\xdeadbeef00', '[1,5)',
    '["2024-01-01 00:00:00+00",)', '(1.5,2]', '[2024-01-01,2024-02-01)', '''a'':1 ''fat'':2B', '''fat'' & ''cat''',
    '(1.5,-2)', 4000000000, '16/B374D848', '$."a"', '12345', '{[1,3),[5,7)}',
    '{1,NULL,3}', '{9007199254740993}', '{-1,2}', '{a,"b,c",NULL,"q\\"\\\\","","null"}', '{abc}', '{abc,d}',
    '{t,f,NULL}', '{1.5,NaN,1e-30}', '{0.002,1.1}', '{"2024-02-29 10:34:56.789012",infinity}',
    '{"2024-02-29 10:34:56.789"}', '{"2024-02-29 10:34:56.789012+02"}', '{2024-02-29,NULL}', '{10:00:00.5}',
    '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', '{"{\\"a\\": 1}"}', '{"\\\\xdead",NULL}', '{10.0.0.1,10.0.0.0/8}',
    '{4000000000}', '{"[1,3)"}')""",
    "INSERT INTO value (id) VALUES (2)",
    """INSERT INTO value (id, r, d, n, ts, ts3, tz, dt, tm, iv) VALUES
    (3, 'NaN', 'Infinity', 'NaN', 'infinity', 'infinity', '-infinity', 'infinity', '24:00:00',
     '-1 mons +3 days -00:00:00.000001'),
    (4, 1e-30, 1.7976931348623157e308, 'Infinity', '-infinity', '-infinity', 'infinity', '-infinity', '00:00:00', '0'),
    (5, 16777216, 1e15, '-Infinity', '0044-03-15 01:02:03 BC', '1969-12-31 23:59:59.999',
     '0044-03-15 01:02:03+00 BC', '0044-03-15 BC', '00:00:00.001', '-1 year -2 mons +3 days 100:00:00'),
    (6, 1e15, 123456789012345, 0.0000000000000000000100, '4714-11-24 BC', '10000-01-01', '0001-01-01 00:00:00+00 BC',
     '5874897-12-31', '23:59:59.999999', '1 day -01:00:00'),
    (7, 123456.7, 0.00001, 1e40, '1582-10-10', '0001-01-01', '294276-12-31 23:59:59.999999+00', '1582-10-10',
     '12:00', '178000000 years')""",
    "INSERT INTO value (id, ia, ta, i4r, jb, js, n2, m) VALUES (8, '{}', '{}', 'empty', 'null', '\"s\"', 0, 0)",
    "UPDATE value SET tx = 'changed', ta = NULL WHERE id = 1",
    "INSERT INTO preset VALUES (1, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO preset (id) VALUES (2)",
    "UPDATE preset SET n = NULL, t = NULL WHERE id = 2",
    """INSERT INTO big SELECT 1, 'a', repeat('x', 9000), decode(repeat('ab', 9000), 'hex'),
    array_agg(md5(g::text)), to_jsonb(repeat('y', 9000)), array_agg(g::bigint), array_agg(current_date + g),
    array_agg(md5(g::text)::uuid), 'p' FROM generate_series(1, 2000) g""",
    "UPDATE big SET plain = 'q'",
    "UPDATE big SET sub = 'b'",
    "UPDATE big SET id = 2, body = 'new'",
    "DELETE FROM big",
    "INSERT INTO whole VALUES (1, 'a', repeat('b', 9000)), (2, 'c', NULL)",
    "UPDATE whole SET a = 'z' WHERE id = 1",
    "UPDATE whole SET id = 9 WHERE id = 1",
    "DELETE FROM whole WHERE id = 9",
    "INSERT INTO part VALUES (1, 'a', 'b'), (2, 'c', NULL)",
    "UPDATE part SET a = 'z' WHERE id = 1",
    "UPDATE part SET id = 9 WHERE id = 1",
    "DELETE FROM part WHERE id = 9",
    """BEGIN; INSERT INTO part VALUES (20, 'a', 'b'); INSERT INTO whole VALUES (20, 'a', 'b');
    SELECT pg_logical_emit_message(true, 'fence', 'epoch=1'); UPDATE part SET b = 'q' WHERE id = 20; COMMIT""",
    "BEGIN; INSERT INTO part VALUES (77); ROLLBACK",
    "SELECT pg_logical_emit_message(false, 'outside', 'hello')",
    "SELECT pg_logical_emit_message(true, 'alone', 'hello')",
    "TRUNCATE part, whole",
    "ALTER TABLE part ADD extra int DEFAULT 7; INSERT INTO part VALUES (30, 'a', 'b', 8)",
    "ALTER TABLE part DROP b; INSERT INTO part VALUES (31, 'a', 8)",
    "ALTER TABLE part RENAME a TO aa; INSERT INTO part VALUES (32, 'a', 8)",
    "ALTER TABLE part ALTER extra TYPE bigint; INSERT INTO part VALUES (33, 'a', 8000000000)",
)

MODES: dict[str, dict[str, str]] = {
    "the connector's own": {},
    "schemas, microseconds, bytes": {
        "converter.schemas.enable": "true",
        "time.precision.mode": "microseconds",
        "binary.handling.mode": "bytes",
    },
    "ISO 8601": {"time.precision.mode": "isostring"},
}
MIDNIGHT = {"ISO 8601": (b"24:00:00", b"00:00:00")}
"""With isostring the end of a day comes as its beginning."""


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    with engine_role(postgres) as name:
        yield name


@pytest.fixture(autouse=True)
def quick_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Java spends less on compiling what runs for seconds only."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)


@pytest.fixture
def bench_of(make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str) -> Callable[..., Bench]:
    return lambda **tables: make_bench(over_tcp(postgres, make_database(), role), **tables)


def comparable(transaction: Transaction) -> tuple[Any, ...]:
    """What must be equal. Debezium tells the time of a commit in milliseconds, and by column names what a row is: types
    of columns that a table no longer has are not known. Empty transactions of other tables' changes are no news.
    """
    return (
        transaction.position,
        transaction.xid,
        int(transaction.commit_time.timestamp() * 1000),
        transaction.origin,
        tuple((message.prefix, message.content) for message in transaction.messages),
        tuple(_change(change) for change in transaction.changes),
    )


def _change(change: Change) -> tuple[Any, ...]:
    names = change.relation.names()
    return (change.operation, change.relation.table, named(names, change.before), named(names, change.after))


def named(names: tuple[str, ...], row: Row | None) -> dict[str, Any] | None:
    return None if row is None else {name: same(name, value) for name, value in zip(names, row, strict=True)}


def same(name: str, value: Any) -> Any:
    """Money is printed with sign and separators, and read without them."""
    return re.sub(rb"[$,]", b"", value) if name == "m" and isinstance(value, bytes) else value


def news(transactions: list[Transaction]) -> list[Transaction]:
    heartbeat = "strangler-heartbeat"
    return [
        each
        for each in transactions
        if each.changes or any(message.prefix != heartbeat for message in each.messages)
    ]


@pytest.mark.parametrize("modes", MODES)
def test_debezium_tells_the_same_history_as_the_log(bench_of: Callable[..., Bench], modes: str) -> None:
    bench, ours = written(bench_of, modes)
    assert_same(ours, news(read_history(bench.engine(MODES[modes]), bench.begin)), modes)


@pytest.mark.parametrize("modes", ["the connector's own", "schemas, microseconds, bytes"])
def test_kafka_tells_the_same_history_as_the_log(
    bench_of: Callable[..., Bench], kafka: KafkaLab, modes: str
) -> None:
    bench, ours = written(bench_of, modes)
    with bench.kafka(kafka, MODES[modes]) as source:
        assert_same(ours, news(read_history(source, bench.begin)), modes)


def written(bench_of: Callable[..., Bench], modes: str) -> tuple[Bench, list[Transaction]]:
    """The history, and how the log has it."""
    # an unchanged array of dates shows as NULL there, and is refused
    bench = bench_of(ddl=DDL, keys=KEYS, ignored=left_out(modes))
    bench.write(*HISTORY)
    bench.end()
    return bench, news(read_history(bench.slot(), bench.begin))


def left_out(modes: str) -> dict[str, frozenset[str]]:
    return {"big": frozenset({"days"})} if modes == "ISO 8601" else {}


def assert_same(ours: list[Transaction], theirs: list[Transaction], modes: str) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        expected = comparable(mine)
        if modes in MIDNIGHT and b"24:00:00" in repr(expected).encode():
            for *_, after in expected[-1]:
                if after and after.get("tm") == MIDNIGHT[modes][0]:
                    after["tm"] = MIDNIGHT[modes][1]
        actual = comparable(other)
        for name in left_out(modes).get("big", ()):
            for *_, after in (*actual[-1], *expected[-1]):
                if after:
                    after.pop(name, None)
        assert actual == expected
    kinds = {change.operation for each in theirs for change in each.changes}
    assert kinds == set(Operation)
    assert any(
        change.before is not None and change.after is not None and UNCHANGED in change.after
        for each in theirs
        for change in each.changes
        if change.relation.identity is Identity.DEFAULT
    ), "a key change that left large values alone"


LOSSY: dict[str, tuple[dict[str, str], list[tuple[str, str, str]]]] = {
    "the connector's own": (
        {},
        [
            ("timetz", "'13:14:15.5+05:30'", "zone"),
            ("varbit(12)", "B'00101'", "long"),
            ("mood[]", "'{sad,ok}'", "arrays"),
            ("numeric[]", "'{1.50,NaN}'", "arrays"),
            ("time[]", "'{13:14:15.678901}'", "microseconds"),
            ("timestamp", "'294276-01-01'", "no further"),
            ("timestamp[]", "'{294276-01-01}'", "no further"),
            ("timestamp[]", "'{1500-01-01}'", "other days"),
            ("timestamptz[]", "'{-infinity}'", "other days"),
            ("timestamptz[]", "'{0044-03-15 BC}'", "other days"),
            ("date[]", "'{0044-03-15 BC}'", "other days"),
            ("date[]", "'{infinity}'", "does not have"),
            ("text[]", "'{{a,b}}'", "several dimensions"),
            ("float8[]", "ARRAY(SELECT generate_series(1, 4000)::float8)", "NULL after an update"),
            ("timestamptz[]", "array_fill(now(), ARRAY[4000])", "NULL after an update"),
        ],
    ),
    "lossy": (
        {
            "interval.handling.mode": "numeric",
            "time.precision.mode": "connect",
            "decimal.handling.mode": "double",
            "binary.handling.mode": "base64",
            "include.unknown.datatypes": "false",
        },
        [
            ("interval", "'1 mon'", "months"),
            ("timestamp", "'2024-02-29 10:34:56.789012'", "microseconds"),
            ("numeric(30,2)", "12345678901234567890.12", "rounds"),
            ("name", "'nm'", "include.unknown"),
            ("bytea", "decode(repeat('ab', 9000), 'hex')", "NULL after an update"),
        ],
    ),
    "more of them": (
        {"time.precision.mode": "nanoseconds", "decimal.handling.mode": "precise"},
        [("timestamp(3)", "'0044-03-15 BC'", "1677"), ("numeric", "'NaN'", "NaN")],
    ),
}


@pytest.mark.parametrize("modes", LOSSY)
def test_what_debezium_loses_is_refused_by_name(bench_of: Callable[..., Bench], modes: str) -> None:
    more, columns = LOSSY[modes]
    tables = {f"t{number}": column for number, column in enumerate(columns)}
    ddl = "CREATE TYPE mood AS ENUM ('sad', 'ok');" + ";".join(
        f"CREATE TABLE {name} (id int PRIMARY KEY, k int, lossy {type_})"
        for name, (type_, _, _) in tables.items()
    )
    bench = bench_of(ddl=ddl, keys=dict.fromkeys(tables, ("id",)))
    for name, (type_, literal, _) in tables.items():
        if "[]" in type_ or type_ == "bytea":
            bench.write(f"ALTER TABLE {name} ALTER lossy SET STORAGE EXTERNAL")
        bench.write(f"INSERT INTO {name} VALUES (1, 1, {literal})", f"UPDATE {name} SET k = 2")
    bench.end()
    records = read_records(bench, more)
    decoder = bench.decoder(more)
    for name, (_, _, why) in tables.items():
        said = [value for topic, _, value, _ in records if topic.endswith(f".{name}")]
        assert [each["op"] for each in said] == ["c", "u"]
        if why.startswith("NULL"):
            assert said[1]["after"] == {"id": 1, "k": 2, "lossy": None}, "Debezium's own record"
            decoder.decode(b'{"id": 1}', json.dumps(said[0]).encode())
        with pytest.raises(DebeziumError, match=rf"column {name}\.lossy.*{why}.*source: slot"):
            decoder.decode(b'{"id": 1}', json.dumps(said[1]).encode())
    # what the mapping ignores stops nothing
    ignoring = replace(bench, ignored=dict.fromkeys(bench.keys, frozenset({"lossy"}))).decoder(more)
    for topic, key, value, _ in records:
        if ".public." in topic:
            record = ignoring.decode(json.dumps(key).encode(), json.dumps(value).encode())
            assert record.change is not None
            assert record.change.after is not None
            assert record.change.after[:2] in ((b"1", b"1"), (b"1", b"2"))


VALUES = (
    """INSERT INTO every VALUES (1, 19.99, -99999, 1.25, 12345678.1234, '2024-02-29 10:34:56.789',
    '2024-02-29 10:34:56', '2024-02-29 10:34:56.789012', '2024-02-29 10:34:56.789012+02', '2024-02-29', '13:14:15.678',
    '13:14:15.678901', '{"2024-02-29 10:34:56.789"}', '1 year 2 mons -3 days 04:05:06.7', '\\xfbefbe00ff', 'a')""",
    "INSERT INTO every (id, k) VALUES (2, 'b')",
    """INSERT INTO every VALUES (3, 0.00, 0, -0.001, -0.0001, '1969-12-31 23:59:59.999', '1970-01-01',
    '1999-01-01', '1969-12-31 23:59:59.999999+00', '1969-12-31', '00:00:00',
    '23:59:59.999999', '{}', '-1 mons +3 days', '', 'c')""",
    """INSERT INTO every (id, n2, r4, ts3, ts0, dt, ba, k) VALUES (4, -9999999999.99, -99999999999999.9999,
    '2099-12-31 23:59:59.999', '0001-01-01', '9999-12-31', decode(repeat('00ff7f80', 50), 'hex'), 'd')""",
    "UPDATE every SET k = 'e' WHERE id IN (1, 3)",  # elsewhere NULL might be a large value that was left alone
    "UPDATE every SET id = 5, ba = '\\x3e3f', n2 = 0.10 WHERE id = 1",
    "DELETE FROM every WHERE id = 2",
)
EVERY = """CREATE TABLE every (id int PRIMARY KEY, n2 numeric(12,2), n0 numeric(5,0), r3 numeric(8,3), r4 numeric(18,4),
    ts3 timestamp(3), ts0 timestamp(0), ts timestamp, tz timestamptz, dt date, tm3 time(3), tm time,
    tsa timestamp(3)[], iv interval, ba bytea, k text)"""
NUMBERS = frozenset({"n2", "n0", "r3", "r4"})
COMBINED: dict[str, tuple[dict[str, str], frozenset[str]]] = {
    "precise, microseconds of a day, base64": (
        {
            "decimal.handling.mode": "precise",
            "time.precision.mode": "adaptive_time_microseconds",
            "binary.handling.mode": "base64",
        },
        frozenset(),
    ),
    "precise, connect, base64 for URLs, numeric intervals, schemas": (
        {
            "decimal.handling.mode": "precise",
            "time.precision.mode": "connect",
            "binary.handling.mode": "base64-url-safe",
            "interval.handling.mode": "numeric",
            "converter.schemas.enable": "true",
        },
        frozenset({"ts", "tm", "iv"}),
    ),
    "double, nanoseconds, bytes": (
        {
            "decimal.handling.mode": "double",
            "time.precision.mode": "nanoseconds",
            "binary.handling.mode": "bytes",
        },
        NUMBERS | {"ts3", "ts0", "ts", "tsa"},
    ),
}
"""Modes that no test above has, and the columns that they lose, which `loss` refuses."""


@pytest.mark.parametrize("modes", COMBINED)
def test_every_mode_gives_the_values_of_the_log(bench_of: Callable[..., Bench], modes: str) -> None:
    more, lossy = COMBINED[modes]
    bench = bench_of(ddl=EVERY, keys={"every": ("id",)}, ignored={"every": lossy})
    bench.write(*VALUES)
    bench.end()
    ours = news(read_history(bench.slot(), bench.begin))
    theirs = news(read_history(bench.engine(more), bench.begin))
    for mine, other in zip(ours, theirs, strict=True):
        expected, actual = comparable(mine), comparable(other)
        for row in (row for *_, before, after in (*expected[-1], *actual[-1]) for row in (before, after)):
            for name in lossy if row else ():
                row.pop(name, None)
        assert actual == expected


NOT_KEPT = {"lsn", "sequence", "id", "ts_ms", "ts_us", "ts_ns"}
"""Single rows' positions, and the time at which Debezium's process handled a record (the source's own is compared)."""


def envelope(topic: str, key: Any, value: Any, headers: Any) -> Any:
    if value is None or "source" not in value:
        return (topic, None if "transaction" in topic else key, _without(value), _marks(headers))
    if value.get("before") and value["source"]["table"] != "whole":
        # where the log has nothing of the old row Debezium shows defaults of NOT NULL columns, we show nothing
        key_names = KEYS[value["source"]["table"]]
        value["before"] = {
            name: said if name in key_names else None for name, said in value["before"].items()
        }
    if value.get("after") and isinstance(value["after"].get("r"), float):
        # Java 17 prints other digits of the same single-precision number
        (value["after"]["r"],) = struct.unpack("f", struct.pack("f", value["after"]["r"]))
    source = {name: said for name, said in value["source"].items() if name not in ("lsn", "sequence")}
    return (
        topic,
        key,
        _without(value) | {"source": source, "transaction": _without(value["transaction"])},
        _marks(headers),
    )


def _without(said: Any) -> Any:
    for counted in (said and said.get("data_collections")) or ():
        # Debezium forgot to give its messages' collection a name: it shows a Java object's address
        if "LogicalDecodingMessageId@" in counted["data_collection"]:
            counted["data_collection"] = "message"
    return said and {name: each for name, each in said.items() if name not in NOT_KEPT}


def _marks(headers: Any) -> Any:
    """What a key change says; the other headers name the connector's run."""
    return {
        name: json.loads(said) if isinstance(said, str) else said
        for name, said in headers.items()
        if name in ("__debezium.newkey", "__debezium.oldkey")
    }


@pytest.mark.parametrize("schemas", [False, True], ids=["without schemas", "with schemas"])
def test_our_envelopes_are_debeziums(bench_of: Callable[..., Bench], schemas: bool) -> None:
    bench = bench_of(ddl=DDL, keys=KEYS)
    history = HISTORY[
        : HISTORY.index("TRUNCATE part, whole") + 1
    ]  # types are those of the tables as they are now
    # a transaction keeps its messages apart from its changes: their order is not told
    bench.write(*[each for each in history if "pg_logical_emit_message" not in each or "'alone'" in each])
    bench.end()
    encoder = bench.encoder(schemas=schemas)
    ours = [
        each
        for transaction in read_history(bench.slot(), bench.begin)
        for each in encoder.encode(transaction, now=transaction.commit_time)
    ]
    said = read_records(bench, {"converter.schemas.enable": str(schemas).lower()})
    theirs = [record for record in said if "heartbeat" not in record[0]]
    assert [each.topic for each in ours] == [topic for topic, *_ in theirs][: len(ours)]
    for mine, other in zip(ours, theirs, strict=False):
        assert_same_record((mine.topic, mine.key, mine.value, mine.headers), other, schemas=schemas)
    beat = encoder.heartbeat(now=datetime.now(UTC))
    other_beat = next(record for record in said if "heartbeat" in record[0])
    assert_same_record((beat.topic, beat.key, beat.value, beat.headers), other_beat, schemas=schemas)


def assert_same_record(ours: Any, theirs: Any, *, schemas: bool) -> None:
    """Schemas to the letter, payloads but for what is not kept."""
    if schemas:
        (mine, mine_payload), (other, other_payload) = unwrapped(*ours), unwrapped(*theirs)
        assert json.dumps(mine, sort_keys=True) == json.dumps(other, sort_keys=True)
        ours, theirs = mine_payload, other_payload
    assert json.dumps(envelope(*ours), sort_keys=True) == json.dumps(envelope(*theirs), sort_keys=True)


def unwrapped(topic: str, key: Any, value: Any, headers: Any) -> tuple[Any, Any]:
    for part in (key, value):
        assert part is None or set(part) == {"schema", "payload"}
    schemas = [part and part["schema"] for part in (key, value)]
    key, value = (part and part["payload"] for part in (key, value))
    marks = _marks(headers)
    schemas += [(name, mark["schema"]) for name, mark in sorted(marks.items())]
    return schemas, (topic, key, value, {name: mark["payload"] for name, mark in marks.items()})


def test_an_incremental_snapshot_brings_rows_as_inserts(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(
        ddl="CREATE TABLE t (id int PRIMARY KEY, a text);"
        "CREATE TABLE debezium_signal (id varchar(42) PRIMARY KEY, type varchar(32), data varchar(2048))",
        keys={"t": ("id",), "debezium_signal": ("id",)},
    )
    bench.write(
        "INSERT INTO t SELECT g, 'r' || g FROM generate_series(1, 5) g",
        """INSERT INTO debezium_signal VALUES ('s', 'execute-snapshot',
        '{"data-collections": ["public.t"], "type": "incremental"}')""",
    )
    source = bench.engine(
        {"signal.data.collection": "public.debezium_signal", "incremental.snapshot.chunk.size": "2"}
    )
    source.start(bench.begin)
    rows: list[Change] = []
    try:
        while len(rows) < 10:
            for event in source.read(0.2):
                if isinstance(event, Transaction):
                    rows += [each for each in event.changes if each.relation.table.name == "t"]
    finally:
        source.close()
    assert [(each.operation, each.after) for each in rows[5:]] == [
        (Operation.INSERT, (b"%d" % number, b"r%d" % number)) for number in range(1, 6)
    ]


def test_an_engine_that_cannot_begin_says_why(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(ddl="CREATE TABLE t (id int PRIMARY KEY)", keys={"t": ("id",)})
    source = bench.engine({"publication.name": "none_such"})
    with pytest.raises(AwayError, match="Publication autocreation is disabled"):
        read_history(source, bench.begin)
