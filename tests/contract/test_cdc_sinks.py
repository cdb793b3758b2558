"""The PostgreSQL sink does what the fake does, for any history, in any batches."""

import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cdc.sinks.postgres
from cdc import schema
from cdc.changes import (
    UNCHANGED,
    Change,
    Key,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Transaction,
    Value,
)
from cdc.mapping import parse_mapping
from cdc.seams import StreamError
from cdc.sinks.memory import MemorySink
from cdc.sinks.postgres import ApplyError, LostPositionError, PostgresSink
from cdc.sinks.roundtrip import Bound, RoundTrips
from chassis.yamlfile import parse
from tests.cdc_histories import KEYS, MOMENT, RELATIONS, START, TABLES, histories, in_pieces, meaning
from tests.cdc_shop import admin
from workshop.postgres import EmbeddedPostgres

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
def postgres_sink(database: str, mapping: str = MAPPING) -> Iterator[PostgresSink]:
    """A sink on fresh tables."""
    data, places = parse(mapping, "plan.yaml")
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
@given(
    history=st.tuples(histories(), st.sampled_from([1, 2, 10])).map(lambda drawn: in_pieces(*drawn)),
    batch=st.integers(1, 8),
    prepares=st.booleans(),
)
@settings(deadline=None, max_examples=40, suppress_health_check=FIXTURE)
def test_any_history_means_the_same_to_both_sinks(
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    few: int,
    history: list[Transaction],
    batch: int,
    prepares: bool,
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    memory = MemorySink(KEYS, START)
    with postgres_sink(database) as sink:
        assert sink.position() == START
        parts = [history[start : start + batch] for start in range(0, len(history), batch)]
        for part, following in zip_longest(parts, parts[1:], fillvalue=[]):
            sink.apply(part, meanwhile=partial(sink.prepare, following) if prepares else None)
            memory.apply(part, meanwhile=partial(memory.prepare, following))
        assert held(database) == memory.tables == meaning(history)
        assert sink.position() == memory.position()


def piece(*changes: Change, more: bool, at: int = 20) -> Transaction:
    return Transaction(Lsn(at), MOMENT, 7, changes, more=more)


def fresh(number: int) -> Change:
    return change((str(number).encode(), b"a", b"b"), RELATIONS[1])


def test_nothing_of_a_transaction_is_seen_before_its_end(database: str) -> None:
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply([Transaction(Lsn(10), MOMENT, 6, (fresh(1),)), piece(fresh(2), more=True)])
        sink.apply([piece(fresh(3), more=True)])
        assert held(database)[TABLES[1]] == {}
        sink.apply([piece(fresh(4), more=False, at=30), Transaction(Lsn(40), MOMENT, 8, (fresh(5),))])
        assert sorted(held(database)[TABLES[1]]) == [(b"1",), (b"2",), (b"3",), (b"4",), (b"5",)]
        assert sink.position() == Lsn(40)
        with admin(database) as connection:
            found = connection.execute("SELECT transactions, changes FROM strangler_cdc.position").fetchone()
        assert found == (3, 5)


def test_a_transaction_that_breaks_off_leaves_nothing(database: str) -> None:
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply([piece(fresh(1), more=True)])
        with pytest.raises(StreamError, match="broke off"):
            sink.apply([Transaction(Lsn(50), MOMENT, 9, (fresh(2),))])
        assert held(database)[TABLES[1]] == {}
        # the tables staged within it are gone too, and are made anew
        sink.apply([piece(*map(fresh, range(1, 60)), more=True), piece(fresh(60), more=False, at=30)])
        assert len(held(database)[TABLES[1]]) == 60


def test_a_refused_piece_is_written_again_row_by_row_inside_its_transaction(database: str) -> None:
    with postgres_sink(database) as sink, admin(database) as connection:
        sink.position()
        connection.execute("ALTER TABLE copy_stock ADD UNIQUE (name)")
        sink.apply([piece(change((b"1", b"x", None), RELATIONS[1]), more=True)])
        # folded, row 2 would take the name while row 1 still has it
        swap = (
            change((b"2", b"y", None), RELATIONS[1]),
            change((b"1", b"z", None), RELATIONS[1], (b"1", None, None)),
            change((b"2", b"x", None), RELATIONS[1], (b"2", None, None)),
            change((b"1", b"y", None), RELATIONS[1], (b"1", None, None)),
        )
        sink.apply([piece(*swap, more=True)])
        sink.apply([piece(more=False, at=30)])
        assert held(database)[TABLES[1]] == {(b"1",): (b"1", b"y", None), (b"2",): (b"2", b"x", None)}
        sink.apply([piece(fresh(8), more=True, at=40)])
        with pytest.raises(ApplyError, match="duplicate key") as refused:
            sink.apply([piece(change((b"9", b"x", None), RELATIONS[1]), more=True, at=40)])
        assert refused.value.key == "id=9"
        assert len(held(database)[TABLES[1]]) == 2
        assert sink.position() == Lsn(30)


def test_what_fails_after_the_last_piece_takes_the_whole_transaction_along(database: str) -> None:
    lacking = Relation(TABLES[1], (RelationColumn("id", 20, key=True), RelationColumn("body", 25)))
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply([piece(fresh(1), more=True)])
        wrong = Transaction(Lsn(40), MOMENT, 8, (change((b"3", b"x"), lacking),))
        with pytest.raises(ApplyError):
            sink.apply([piece(fresh(2), more=False, at=30), wrong])
        assert held(database)[TABLES[1]] == {}, "the last piece was stored without the first"
        assert sink.position() == START
        # all of it in one batch: what came before is whole
        with pytest.raises(ApplyError):
            sink.apply([piece(fresh(1), more=True), piece(fresh(2), more=False, at=30), wrong])
        assert len(held(database)[TABLES[1]]) == 2
        assert sink.position() == Lsn(30)


def test_a_deferred_constraint_that_fails_at_the_end_is_told(database: str) -> None:
    with postgres_sink(database) as sink, admin(database) as connection:
        sink.position()
        connection.execute("ALTER TABLE copy_stock ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
        # as a role that may not switch constraint triggers off
        sink.replica_role = False
        sink.connection.execute("RESET session_replication_role")
        sink.apply([piece(change((b"1", b"x", None), RELATIONS[1]), more=True)])
        sink.apply([piece(change((b"2", b"x", None), RELATIONS[1]), more=True)])
        with pytest.raises(
            ApplyError, match=r"duplicate key .*deferred constraint copy_stock_name_key"
        ) as refused:
            sink.apply([piece(more=False, at=30)])
        assert (refused.value.table, refused.value.position) == (TABLES[1], Lsn(30))
        assert held(database)[TABLES[1]] == {}
        assert sink.position() == START


@contextmanager
def deferred_sink(database: str, constraint: str) -> Iterator[PostgresSink]:
    """A sink of a role that may not switch constraint triggers off, on a target with a deferrable `constraint`."""
    with postgres_sink(database) as sink, admin(database) as connection:
        sink.position()
        connection.execute("ALTER TABLE copy_product ADD UNIQUE (name)")  # what a foreign key may name
        connection.execute(
            f"ALTER TABLE copy_stock ADD CONSTRAINT kept {constraint} DEFERRABLE INITIALLY DEFERRED".encode()
        )
        sink.replica_role = False
        sink.connection.execute("RESET session_replication_role")
        yield sink


DEFERRED = [
    ("UNIQUE (name)", "duplicate key", (b"2", b"a", None)),
    ("EXCLUDE USING btree (name WITH =)", "conflicting key", (b"2", b"a", None)),
    ("FOREIGN KEY (body) REFERENCES copy_product (name)", "not present", (b"2", b"c", b"nobody")),
]


@pytest.mark.parametrize(("constraint", "why", "row"), DEFERRED, ids=["unique", "exclude", "foreign key"])
def test_a_deferred_constraint_stops_the_stream_at_the_change_that_breaks_it(
    database: str, constraint: str, why: str, row: Row
) -> None:
    with deferred_sink(database, constraint) as sink:
        good = Transaction(Lsn(20), MOMENT, 1, (change((b"1", b"a", None), RELATIONS[1]),))
        passing = change((b"5", b"e", None), RELATIONS[1])
        last = change((b"6", b"f", None), RELATIONS[1])
        bad = Transaction(Lsn(30), MOMENT, 2, (passing, change(row, RELATIONS[1]), last))
        with pytest.raises(ApplyError, match=why) as refused:
            sink.apply([good, bad])
        told = refused.value
        assert (told.table, told.key, told.position) == (TABLES[1], "id=2", Lsn(30))
        assert "constraint kept" in str(told)
        # what came before is there, nothing of the transaction is, and it comes again after a repair
        assert sink.position() == Lsn(20)
        assert list(held(database)[TABLES[1]]) == [(b"1",)]
        with admin(database) as connection:
            connection.execute("ALTER TABLE copy_stock DROP CONSTRAINT kept")
        sink.apply([bad])
        assert len(held(database)[TABLES[1]]) == 4


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


@pytest.mark.parametrize("few", [32, 0], ids=["prepared statements", "COPY"])
def test_no_row_is_written_where_somebody_else_wrote_the_position(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    with postgres_sink(database) as sink:
        sink.position()
        with admin(database) as connection:
            connection.execute("UPDATE strangler_cdc.position SET lsn = '0/30'")
        with pytest.raises(LostPositionError, match="another process wrote it"):
            sink.apply(transactions(fresh(1), fresh(2)))
        assert held(database)[TABLES[1]] == {}


@pytest.mark.parametrize("few", [32, 0], ids=["prepared statements", "COPY"])
def test_an_updated_row_that_somebody_deleted_comes_back(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    stock = RELATIONS[1]
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply(transactions(fresh(1), fresh(2)))
        with admin(database) as connection:
            connection.execute("DELETE FROM copy_stock WHERE id = 1")
        sink.apply(
            [
                piece(
                    Change(Operation.UPDATE, stock, None, (b"1", b"c", b"d")),
                    Change(Operation.UPDATE, stock, None, (b"2", b"e", b"f")),
                    more=False,
                    at=30,
                )
            ]
        )
        assert held(database)[TABLES[1]] == {(b"1",): (b"1", b"c", b"d"), (b"2",): (b"2", b"e", b"f")}
        assert sink.position() == Lsn(30)


@pytest.mark.parametrize("few", [200, 0], ids=["prepared statements", "COPY"])
@pytest.mark.parametrize("parts", [0, 2], ids=["one table", "partitions"])
def test_each_row_is_looked_up_whatever_statistics_say_of_the_target(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int, parts: int
) -> None:
    """While a target is filled its statistics may say that it is empty: what walks it would do so for each row."""
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    rows, each = 5_000, 30
    product = RELATIONS[0]

    def update(number: int, body: Value) -> Change:
        return Change(Operation.UPDATE, product, None, (b"%d" % number, b"new", body))

    def numbers(start: int) -> range:
        return range(start, start + each)

    with postgres_sink(database) as sink, admin(database) as connection:
        if parts:
            connection.execute("ALTER TABLE copy_product RENAME TO whole")
            connection.execute("CREATE TABLE copy_product (LIKE whole INCLUDING ALL) PARTITION BY HASH (id)")
            for part in range(parts):
                connection.execute(
                    f"CREATE TABLE copy_product_{part} PARTITION OF copy_product "
                    f"FOR VALUES WITH (MODULUS {parts}, REMAINDER {part})".encode()
                )
        sink.position()
        # plans are made, and kept, while the target is all but empty
        for number in range(1, 8):
            made = [change((b"%d" % n, b"a", b"b"), product) for n in (number, 100 + number)]
            sink.apply([Transaction(Lsn(10 * number), MOMENT, number, tuple(made))])
            rest = [update(number, b"c"), update(number, UNCHANGED)]
            rest += [Change(Operation.DELETE, product, (b"%d" % (100 + number), None, None))]
            for n, one in enumerate(rest, start=1):
                sink.apply([Transaction(Lsn(10 * number + n), MOMENT, number, (one,))])
        connection.execute(
            "INSERT INTO copy_product SELECT n, 'old', 'large', 'oldlarge' FROM generate_series(1000, %s) AS n",
            [1000 + rows],
        )
        connection.execute(
            "UPDATE pg_class SET reltuples = 0, relpages = 1 WHERE relname LIKE 'copy_product%'"
        )
        connection.execute("SELECT pg_stat_reset()")
        changes = [
            *[Change(Operation.DELETE, product, (b"%d" % n, None, None)) for n in numbers(1000)],
            *[update(n, UNCHANGED) for n in numbers(2000)],
            *[update(n, b"small") for n in numbers(3000)],
            *[Change(Operation.UPDATE, product, (b"%d" % n, None, None), (b"%d" % -n, b"moved", UNCHANGED))
              for n in numbers(4000)[:3]],
        ]  # fmt: skip
        sink.apply([Transaction(Lsn(1000), MOMENT, 100, tuple(changes))])
        sink.connection.execute("SELECT pg_stat_force_next_flush()")
        read = connection.execute(
            "SELECT coalesce(sum(seq_scan), 0), coalesce(sum(idx_tup_fetch), 0) FROM pg_stat_user_tables"
            " WHERE relname LIKE 'copy_product%'"
        ).fetchone()
        found = held(database)[TABLES[0]]
        told = connection.execute(
            'SELECT count(*), min(name || body || "both") FROM copy_product WHERE id < 0'
        ).fetchone()
    assert read is not None
    assert read[0] == 0
    assert 0 < read[1] < 20 * each
    assert len(found) == 7 + rows + 1 - each
    assert all(found[(b"%d" % n,)][1:] == (b"new", b"large") for n in numbers(2000))
    assert all(found[(b"%d" % n,)][1:] == (b"new", b"small") for n in numbers(3000))
    assert told == (3, "movedlargemovedlarge")


@pytest.mark.parametrize("few", [32, 0], ids=["prepared statements", "COPY"])
@pytest.mark.parametrize("value", [b"y", UNCHANGED], ids=["whole rows", "rows with holes"])
def test_a_column_that_reads_nothing_has_its_own_type(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int, value: Value
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    mapping = """
tables:
  stock:
    target: copy_stock
    key: {id: id}
    columns:
      {id: id, name: name, body: body, kind: {sql: "'new'", derived: true}, since: {sql: "(NULL)", derived: true}}
"""
    with postgres_sink(database, mapping) as sink:
        with admin(database) as connection:
            connection.execute("DROP TYPE IF EXISTS kind CASCADE")
            connection.execute("CREATE TYPE kind AS ENUM ('old', 'new')")
            connection.execute("ALTER TABLE copy_stock ADD kind kind, ADD since date")
        sink.position()
        sink.apply(transactions(change((b"1", b"x", b"y"), RELATIONS[1])))
        with admin(database) as connection:
            connection.execute("UPDATE copy_stock SET kind = 'old', since = now()")
        update = Change(Operation.UPDATE, RELATIONS[1], None, (b"1", b"z", value))
        sink.apply([Transaction(Lsn(30), MOMENT, 3, (update,))])
    with admin(database) as connection:
        assert connection.execute("SELECT name, body, kind::text, since FROM copy_stock").fetchall() == [
            ("z", "y", "new", None)
        ]


def test_a_statement_that_is_refused_when_it_is_prepared_is_prepared_again(database: str) -> None:
    with postgres_sink(database) as sink:
        sink.position()
        with admin(database) as connection:
            connection.execute("ALTER TABLE copy_stock RENAME body TO text")
        trips = RoundTrips(sink.connection)
        insert = Bound("INSERT INTO copy_stock (id, body) VALUES ($1, $2)", [b"1", b"a"])
        for _ in range(2):
            with pytest.raises(psycopg.errors.UndefinedColumn):
                trips.run([Bound("BEGIN"), insert, Bound("SELECT 1"), Bound("COMMIT")])
            sink.connection.rollback()
        with admin(database) as connection:
            connection.execute("ALTER TABLE copy_stock RENAME text TO body")
        trips.run([Bound("BEGIN"), insert, Bound("SELECT 1"), Bound("COMMIT")])
        with pytest.raises(psycopg.errors.DivisionByZero):
            trips.run([Bound("DELETE FROM copy_stock WHERE id = $1", [b"2"], rows=1)])
        assert list(held(database)[TABLES[1]]) == [(b"1",)]


def test_prepared_statements_do_not_become_more_and_more(database: str) -> None:
    with postgres_sink(database) as sink:
        trips = RoundTrips(sink.connection)
        for number in range(1_100):
            trips.run([Bound(f"SELECT {number}")])
        kept = sink.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert kept is not None
        assert 50 < kept[0] <= 500


def test_what_was_prepared_behind_a_refused_batch_means_what_it_meant(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", 0)
    one, two = (b"1", b"x", None), (b"2", b"y", None)
    first = transactions(change(one, RELATIONS[1]), change(two, RELATIONS[1]))
    # folded, each row would take the name that the other one still has
    swap = [
        Transaction(
            Lsn(30 + n), MOMENT, 30 + n, (change((row, name, None), RELATIONS[1], (row, None, None)),)
        )
        for n, (row, name) in enumerate([(b"1", b"z"), (b"2", b"x"), (b"1", b"y")])
    ]
    last = [Transaction(Lsn(40), MOMENT, 40, (change((b"3", b"z", None), RELATIONS[1]),))]
    with postgres_sink(database) as sink, admin(database) as connection:
        sink.position()
        connection.execute("ALTER TABLE copy_stock ADD UNIQUE (name)")
        sink.apply(first, meanwhile=partial(sink.prepare, swap))
        asked: list[object] = []
        sink.apply(swap, meanwhile=lambda: asked.append(sink.prepare(last)))
        sink.apply(last)
        assert len(asked) == 1
        assert sorted(row[:2] for row in held(database)[TABLES[1]].values()) == [
            (b"1", b"y"),
            (b"2", b"x"),
            (b"3", b"z"),
        ]
        assert sink.position() == Lsn(40)


def test_an_exception_meanwhile_comes_out_and_leaves_a_session_that_works(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", 0)

    def fail() -> None:
        raise KeyError("meanwhile")

    with postgres_sink(database) as sink:
        sink.position()
        with pytest.raises(KeyError, match="meanwhile"):
            sink.apply(transactions(fresh(1)), meanwhile=fail)
        with pytest.raises(KeyError, match="meanwhile"):
            sink.apply([piece(fresh(2), more=True)], meanwhile=fail)
        assert sink.position() == Lsn(10), "the commit was on its way"
        sink.apply([piece(fresh(3), more=False)])
        assert sorted(held(database)[TABLES[1]]) == [(b"1",), (b"3",)]


def test_more_rows_than_a_socket_holds_go_in_one_message(database: str) -> None:
    body = b"b" * 2_000
    rows = [change((str(n).encode(), b"a", body), RELATIONS[1]) for n in range(2_000)]
    moved = [
        change((str(n).encode(), b"c", UNCHANGED), RELATIONS[1], (str(n).encode(), None, None))
        for n in range(2_000)
    ]
    gone = [Change(Operation.DELETE, RELATIONS[1], (str(n).encode(), None, None)) for n in range(1_000)]
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply([Transaction(Lsn(10), MOMENT, 1, tuple(rows))])
        sink.apply([Transaction(Lsn(20), MOMENT, 2, tuple(moved))])
        sink.apply([Transaction(Lsn(30), MOMENT, 3, tuple(gone))])
        assert held(database)[TABLES[1]] == {
            (str(n).encode(),): (str(n).encode(), b"c", body) for n in range(1_000, 2_000)
        }


def change(row: Row, relation: Relation = RELATIONS[0], before: Row | None = None) -> Change:
    return Change(Operation.UPDATE if before else Operation.INSERT, relation, before, row)


def transactions(*changes: Change) -> list[Transaction]:
    """One transaction each, at positions 10, 20, …"""
    return [Transaction(Lsn(10 * n), MOMENT, n, (each,)) for n, each in enumerate(changes, start=1)]


@pytest.mark.parametrize("few", [32, 0], ids=["prepared statements", "COPY"])
def test_a_table_may_change_its_columns_within_a_batch(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(cdc.sinks.postgres, "_FEW_ROWS", few)
    identity, *others = RELATIONS[0].columns
    wider = Relation(TABLES[0], (identity, RelationColumn("dropped", 25), *others))
    with postgres_sink(database) as sink:
        sink.position()
        sink.apply(
            transactions(
                change((b"1", b"gone", b"before", b"x"), wider),
                change((b"2", b"after", b"y")),
                change((b"3", b"gone", b"again", b"z"), wider),
            )
        )
    assert held(database)[TABLES[0]] == {
        (b"1",): (b"1", b"before", b"x"),
        (b"2",): (b"2", b"after", b"y"),
        (b"3",): (b"3", b"again", b"z"),
    }


def test_an_error_names_the_transaction_that_has_it(database: str) -> None:
    lacking = Relation(TABLES[1], (RelationColumn("id", 20, key=True), RelationColumn("body", 25)))
    for wrong in (change((b"2", b"b"), lacking), change((UNCHANGED, b"b", None), RELATIONS[1])):
        with postgres_sink(database) as sink:
            sink.position()
            with pytest.raises(ApplyError) as refused:
                sink.apply(
                    transactions(
                        change((b"1", b"a", None), RELATIONS[1]),
                        wrong,
                        change((b"3", b"c", None), RELATIONS[1]),
                    )
                )
            assert sink.position() == Lsn(10), "what came before it is stored"
        assert (b"1",) in held(database)[TABLES[1]]
        assert refused.value.position == Lsn(20)
        assert refused.value.table == TABLES[1]


def test_a_row_that_an_index_of_the_target_cannot_hold_is_named(database: str) -> None:
    with postgres_sink(database) as sink:
        sink.position()
        with admin(database) as connection:
            connection.execute("CREATE INDEX ON copy_stock (body)")
        large = secrets.token_hex(5000).encode()
        with pytest.raises(ApplyError, match="index row") as refused:
            sink.apply(transactions(change((b"7", b"a", large), RELATIONS[1])))
    assert refused.value.key == "id=7"


def test_a_restored_value_has_its_source_type(database: str) -> None:
    mapping = """
tables:
  product:
    target: copy_product
    key: {id: id}
    columns: {id: id, name: name, body: body, both: {sql: "name || (body->>'a')", derived: true}}
"""
    json = Relation(TABLES[0], (*RELATIONS[0].columns[:2], RelationColumn("body", 3802)))
    with postgres_sink(database, mapping) as sink:
        sink.position()
        sink.apply(
            transactions(
                change((b"1", b"x", b'{"a": "y"}'), json),
                Change(Operation.DELETE, json, (b"2", None, None)),
            )
        )
        sink.apply(
            [
                Transaction(
                    Lsn(30), MOMENT, 3, (Change(Operation.UPDATE, json, None, (b"1", b"z", UNCHANGED)),)
                )
            ]
        )
    with admin(database) as connection:
        assert connection.execute('SELECT "both" FROM copy_product').fetchall() == [("zy",)]


@pytest.mark.timeout(60)
def test_a_crash_takes_back_nothing_that_was_called_durable(tmp_path: Path) -> None:
    """And it does take something back, or this would prove nothing: the server is slow to flush."""
    with EmbeddedPostgres(tmp_path / "crash", settings={"wal_writer_delay": "10s"}) as server:
        with admin(server.dsn()) as connection:
            connection.execute("CREATE DATABASE target")
        database = server.dsn(dbname="target")
        with postgres_sink(database) as sink:
            sink.position()
            assert sink.durable() is None
            number = 0
            # the first commit wakes the flushing process, which then sleeps for ten seconds
            while (durable := sink.durable()) is None or durable == sink._position:
                number += 1
                sink.apply([Transaction(Lsn(10 * number), MOMENT, number, (fresh(number),))])
                time.sleep(0.01)
            before = sink._position
            server.stop(how=signal.SIGKILL)
        server.start()
        with admin(database) as connection:
            row = connection.execute("SELECT lsn::text, transactions FROM strangler_cdc.position").fetchone()
        assert row is not None
        assert durable <= Lsn.parse(row[0])
        assert before is not None
        assert Lsn.parse(row[0]) < before
        assert len(held(database)[TABLES[1]]) == row[1]


@pytest.mark.timeout(60)
def test_commits_wait_where_standbys_are_waited_for(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "standby", settings={"synchronous_standby_names": "nobody"}) as server:
        data, places = parse(MAPPING, "plan.yaml")
        sink = PostgresSink(server.dsn(), stream="s", mapping=parse_mapping(data["tables"], places))
        try:
            assert sink.connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        finally:
            sink.close()


def test_the_session_has_its_own_settings_whatever_the_database_prefers(database: str) -> None:
    with admin(database) as connection:
        name = connection.info.dbname
        for setting in ("statement_timeout = 5000", "lc_monetary = 'C.UTF-8'"):
            connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    with postgres_sink(database) as sink:
        shown = [
            sink.connection.execute(f"SHOW {setting}".encode()).fetchone()
            for setting in ("statement_timeout", "lc_monetary")
        ]
    assert shown == [("0",), ("C",)]
