"""The change stream between two real databases: every operation, every trap, restarts, faults."""

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc.pipeline
from cdc.changes import Lsn, Transaction
from cdc.mapping import Mapping
from cdc.meter import Phase, SnapshotProgress
from cdc.pipeline import StreamConfig, StreamError, run
from cdc.prepare import prepare, teardown
from cdc.sinks.postgres import ApplyError, PostgresSink
from cdc.sinks.session import AlreadyRunningError
from cdc.snapshot import TargetNotEmptyError, take_snapshot
from cdc.sources.slot import SlotSource, created_slot, drop_slot, slot_state
from cdc.status import read_status
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, Writer, admin, make_shop, shop_mapping, until, with_config
from workshop.postgres import EmbeddedPostgres


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    source, target = make_database(), make_database()
    return make_shop(source, target, f"stream_{secrets.token_hex(4)}")


def phase(shop: Shop) -> Phase | None:
    status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    return status.phase if status else None


def wait_for_stream(shop: Shop) -> None:
    until(lambda: phase(shop) == Phase.STREAMING)


def assert_equal(shop: Shop) -> None:
    report = verify(shop.config)
    assert report.equal, report


def test_every_operation_arrives(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        wait_for_stream(shop)
        source.execute("INSERT INTO catalog_product (sku, name, price) VALUES ('NEW', 'a new one', 12.34)")
        source.execute("UPDATE catalog_product SET name = 'other', description = NULL WHERE id = 2")
        source.execute("DELETE FROM catalog_product WHERE id = 3")
        source.execute("UPDATE catalog_product SET id = 900 WHERE id = 5")
        source.execute("UPDATE catalog_stock SET warehouse = 'moved', quantity = 7 WHERE product_id = 9")
        shop.settle()
        assert_equal(shop)
        one = target.execute(
            "SELECT price_cents, initial, summary, body FROM product WHERE sku = 'NEW'"
        ).fetchone()
        assert one == (1234, "A", "NEW: ", None)
        assert target.execute("SELECT title, body FROM product WHERE product_id = 2").fetchone() == (
            "other",
            None,
        )
        assert target.execute("SELECT count(*) FROM product WHERE product_id IN (3, 5)").fetchone() == (0,)
        assert target.execute("SELECT place, quantity FROM stock WHERE product_id = 9").fetchone() == (
            "moved",
            7,
        )


def test_truncate_is_honoured_in_its_place(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        with source.transaction():
            source.execute("INSERT INTO catalog_stock VALUES ('before', 1, 1)")
            source.execute("TRUNCATE catalog_stock")
            source.execute("INSERT INTO catalog_stock VALUES ('after', 1, 1)")
        shop.settle()
        assert_equal(shop)
    with admin(shop.config.target_dsn) as target:
        assert target.execute("SELECT place FROM stock").fetchall() == [("after",)]


@pytest.mark.parametrize("rows", [1, 60], ids=["prepared statements", "COPY"])
def test_unchanged_large_values_are_kept(shop: Shop, rows: int) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        wait_for_stream(shop)
        source.execute(
            "UPDATE catalog_product SET description = repeat('L', 9000) || id WHERE id <= %s", [rows]
        )
        shop.settle()
        # the large value is not in the log of any of these; `summary` mixes it with `sku`
        source.execute("UPDATE catalog_product SET price = price + 1 WHERE id <= %s", [rows])
        source.execute("UPDATE catalog_product SET sku = 'X' || id WHERE id <= %s", [rows])
        shop.settle()
        # with a change of the key, alone and together with others
        source.execute("UPDATE catalog_product SET id = id + 5000 WHERE id <= %s", [rows])
        source.execute(
            "UPDATE catalog_product SET id = id + 5000, sku = 'Y' || id WHERE id BETWEEN 5001 AND 5001 + %s",
            [rows],
        )
        shop.settle()
        assert_equal(shop)
        kept = target.execute("SELECT body, summary FROM product WHERE product_id = 10001").fetchone()
        assert kept == ("L" * 9000 + "1", "Y5001: " + "L" * 20)


def test_a_large_value_inserted_and_moved_in_one_transaction(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        with source.transaction():
            source.execute(
                "INSERT INTO catalog_product (id, sku, name, description, price)"
                " VALUES (7001, 'M', 'm', repeat('m', 9000), 1)"
            )
            source.execute("UPDATE catalog_product SET id = 7002 WHERE id = 7001")
            source.execute("UPDATE catalog_product SET price = 2 WHERE id = 7002")
            source.execute("UPDATE catalog_product SET id = 7003, price = 3 WHERE id = 7002")
        shop.settle()
        assert_equal(shop)


def test_null_is_not_unchanged(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        wait_for_stream(shop)
        source.execute("UPDATE catalog_product SET description = NULL WHERE id = 4")  # was large
        shop.settle()
        assert target.execute("SELECT body FROM product WHERE product_id = 4").fetchone() == (None,)
        assert_equal(shop)


def test_what_was_rolled_back_never_arrives(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        wait_for_stream(shop)
        with source.transaction(force_rollback=True):
            source.execute("UPDATE catalog_product SET name = 'GHOST'")
        with source.transaction():
            source.execute("UPDATE catalog_product SET name = 'real' WHERE id = 1")
            with source.transaction(force_rollback=True):
                source.execute("UPDATE catalog_product SET name = 'GHOST' WHERE id = 2")
        shop.settle()
        assert target.execute("SELECT count(*) FROM product WHERE title = 'GHOST'").fetchone() == (0,)
        assert target.execute("SELECT title FROM product WHERE product_id = 1").fetchone() == ("real",)
        assert_equal(shop)


def test_unique_values_may_change_hands_within_a_batch(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        with source.transaction():
            source.execute("UPDATE catalog_product SET sku = 'tmp' WHERE id = 1")
            source.execute("UPDATE catalog_product SET sku = 'S1' WHERE id = 2")
            source.execute("UPDATE catalog_product SET sku = 'S2' WHERE id = 1")
        shop.settle()
        assert_equal(shop)


def test_a_snapshot_taken_while_the_shop_writes_has_neither_gap_nor_overlap(shop: Shop) -> None:
    stop = threading.Event()
    writer = Writer(shop.config.source_dsn, seed=1)

    def write() -> None:
        while not stop.is_set():
            writer.step()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with shop.running():
            wait_for_stream(shop)
            until(lambda: writer.committed > 300)
            stop.set()
            thread.join()
            shop.settle()
            assert_equal(shop)
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert writer.key_changes
    assert writer.rolled_back


def test_the_target_knows_its_size_after_the_snapshot(shop: Shop) -> None:
    with admin(shop.config.target_dsn) as target:
        # so it looks when autovacuum comes while rows are copied
        target.execute("UPDATE pg_class SET reltuples = 0 WHERE relname = 'product'")
        with shop.running():
            wait_for_stream(shop)
        found = target.execute(
            "SELECT reltuples, (SELECT count(*) FROM product) FROM pg_class WHERE relname = 'product'"
        ).fetchone()
    assert found is not None
    assert found[0] == found[1] > 0


def test_a_stopped_stream_resumes_and_a_lost_slot_is_refused(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
    assert phase(shop) == Phase.STOPPED
    with admin(shop.config.source_dsn) as source:
        source.execute("UPDATE catalog_product SET price = 77 WHERE id = 8")
        with shop.running():
            shop.settle()
            assert_equal(shop)
        source.execute("SELECT pg_drop_replication_slot(%s)", [shop.config.slot])
        with pytest.raises(StreamError, match="does not exist on the source"), shop.running():
            until(lambda: phase(shop) == Phase.FAILED)


def test_a_cut_off_snapshot_is_taken_again(shop: Shop) -> None:
    stop = threading.Event()

    def stop_at_once(progress: SnapshotProgress) -> None:
        if progress.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(shop.config, stop, on_progress=stop_at_once)
    with admin(shop.config.target_dsn) as target, admin(shop.config.source_dsn) as source:
        assert target.execute("SELECT count(*) FROM product").fetchone() == (0,)
        assert source.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [shop.config.slot]
        ).fetchone() == (1,)
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)


def test_a_failed_snapshot_leaves_no_slot_that_keeps_the_log(shop: Shop) -> None:
    with admin(shop.config.target_dsn) as target, admin(shop.config.source_dsn) as source:
        target.execute("ALTER TABLE product ADD CHECK (product_id <> 77)")
        with pytest.raises(ApplyError, match="the snapshot failed"):
            run(shop.config, threading.Event())
        assert source.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [shop.config.slot]
        ).fetchone() == (0,)
        assert target.execute("SELECT count(*) FROM category").fetchone() == (0,)


def test_an_expression_that_fails_on_the_source_is_told_and_leaves_nothing(shop: Shop) -> None:
    text = MAPPING.replace(
        "listed: is_active", 'listed: {sql: "10 / (id - 100) > 0", inverse: {is_active: listed}}'
    )
    broken = with_config(shop, mapping=shop_mapping(text))
    with pytest.raises(ApplyError, match="division by zero") as failed:
        run(broken.config, threading.Event())
    assert str(failed.value.table) == "catalog_product"
    with admin(shop.config.source_dsn) as source:
        assert slot_state(source, shop.config.slot) is None
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)


def test_a_snapshot_whose_commit_was_not_heard_keeps_its_slot(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the target has committed and before we know."""
    real = take_snapshot
    calls: list[int] = []

    def unheard(**arguments: Any) -> Lsn:
        calls.append(1)
        real(**arguments)
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(cdc.pipeline, "take_snapshot", unheard)
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)
    assert len(calls) == 1


def test_a_stream_that_waits_for_writers_can_be_stopped(shop: Shop) -> None:
    with psycopg.connect(shop.config.source_dsn) as writer, admin(shop.config.source_dsn) as source:
        writer.execute("UPDATE catalog_product SET price = 2 WHERE id = 2")

        def waits() -> bool:
            return source.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
                [f"strangler_cdc create {shop.config.slot}"],
            ).fetchone() == (1,)

        with shop.running():
            until(waits)
        assert phase(shop) == Phase.STOPPED
        assert slot_state(source, shop.config.slot) is None


def test_a_second_process_leaves_the_status_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdc.pipeline, "_WAIT_FOR_PREDECESSOR", 1.0)
    seen: set[str] = set()
    with shop.running(), admin(shop.config.target_dsn) as target:
        wait_for_stream(shop)
        stop = threading.Event()
        watcher = threading.Thread(target=lambda: _watch(shop, seen, stop))
        watcher.start()
        with pytest.raises(AlreadyRunningError):
            run(shop.config, threading.Event())
        stop.set()
        watcher.join()
        assert target.execute("SELECT count(*) FROM strangler_cdc.status").fetchone() == (1,)
    assert seen == {Phase.STREAMING}


def _watch(shop: Shop, seen: set[str], stop: threading.Event) -> None:
    while not stop.wait(0.01):
        found = phase(shop)
        assert found is not None
        seen.add(found)


@pytest.mark.parametrize(
    "change",
    ["SET (publish = 'insert')", "SET TABLE catalog_category, catalog_product WHERE (id > 5), catalog_stock"],
)
def test_a_publication_that_leaves_changes_out_is_refused_and_repaired(shop: Shop, change: str) -> None:
    with admin(shop.config.source_dsn) as source:
        source.execute(f"ALTER PUBLICATION {shop.config.publication} {change}".encode())
        with pytest.raises(StreamError, match="leaves out"):
            run(shop.config, threading.Event())
    prepare(
        shop.config.mapping,
        source_owner_dsn=shop.config.source_dsn,
        target_owner_dsn=shop.config.target_dsn,
        cdc_role="postgres",
        publication=shop.config.publication,
    )
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)


def test_a_slot_of_another_database_is_not_ours_to_drop(shop: Shop, make_database: Callable[[], str]) -> None:
    other = make_database()
    with created_slot(other, shop.config.slot):
        pass
    with pytest.raises(StreamError, match="belongs to database"):
        run(shop.config, threading.Event())
    with admin(shop.config.source_dsn) as source:
        assert not drop_slot(source, shop.config.slot)
    with admin(other) as elsewhere:
        assert slot_state(elsewhere, shop.config.slot) is not None
        assert drop_slot(elsewhere, shop.config.slot)


def test_a_stream_that_has_ended_is_not_reported_as_up_to_date(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
    with admin(shop.config.target_dsn) as target:
        target.execute("UPDATE strangler_cdc.status SET heartbeat = clock_timestamp() - interval '60 s'")
    status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    assert status is not None
    assert status.lag_seconds is not None
    assert status.lag_seconds >= 60


def test_a_table_that_joins_the_mapping_later_is_not_taken_for_copied(shop: Shop) -> None:
    first = with_config(shop, mapping=Mapping(shop.config.mapping.tables[:2]))
    with first.running():
        wait_for_stream(first)
    with pytest.raises(StreamError, match="catalog_stock was not mapped when the snapshot was taken"):
        run(shop.config, threading.Event())
    with first.running():
        first.settle()


def test_what_another_stream_wrote_can_be_left_out(shop: Shop) -> None:
    config = shop.config
    origin = f"back_{config.slot}"
    with admin(config.source_dsn) as source:
        with created_slot(config.source_dsn, config.slot) as created:
            begin = created.consistent_point
        source.execute("SELECT pg_replication_origin_create(%s)", [origin])
        try:
            source.execute("SELECT pg_replication_origin_session_setup(%s)", [origin])
            source.execute("UPDATE catalog_product SET price = 1 WHERE id = 1")
            source.execute("SELECT pg_replication_origin_session_reset()")
            source.execute("UPDATE catalog_product SET price = 2 WHERE id = 2")
            assert _origins(config, begin, local_only=False) == [origin, None]
            assert _origins(config, begin, local_only=True) == [None]
        finally:
            source.execute("SELECT pg_replication_origin_drop(%s)", [origin])


def _origins(config: StreamConfig, begin: Lsn, *, local_only: bool) -> list[str | None]:
    source = SlotSource(
        config.source_dsn,
        slot=config.slot,
        publication=config.publication,
        tables=config.mapping.sources(),
        local_only=local_only,
    )
    source.start(begin)
    found: list[Transaction] = []

    def both() -> bool:
        found.extend(event for event in source.read(0.1) if isinstance(event, Transaction) and event.changes)
        return any(each.origin is None for each in found)

    until(both)
    source.close()
    return [each.origin for each in found]


def test_rows_of_somebody_else_are_not_overwritten(shop: Shop) -> None:
    with admin(shop.config.target_dsn) as target:
        target.execute("INSERT INTO stock VALUES ('elsewhere', 1, 1)")
    with pytest.raises(TargetNotEmptyError, match="stock is not empty"):
        run(shop.config, threading.Event())
    forced = with_config(shop, replace_target=True)
    with forced.running():
        wait_for_stream(forced)
        assert_equal(forced)


def test_a_stream_has_one_applier(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
        with pytest.raises(AlreadyRunningError, match="already being applied"):
            PostgresSink(shop.config.target_dsn, stream=shop.config.slot, mapping=shop.config.mapping)


def test_an_unwritable_change_stops_the_stream_and_names_it(shop: Shop) -> None:
    with admin(shop.config.target_dsn) as target, admin(shop.config.source_dsn) as source:
        target.execute("ALTER TABLE product ADD CHECK (price_cents < 1000000)")
        with pytest.raises(ApplyError) as stopped, shop.running():  # noqa: PT012  (raised at its end)
            wait_for_stream(shop)
            source.execute("UPDATE catalog_product SET name = 'fine' WHERE id = 1")
            source.execute("UPDATE catalog_product SET price = 99999 WHERE id = 17")
            until(lambda: phase(shop) == Phase.FAILED)
        error = stopped.value
        assert error.key == "id=17"
        assert "check constraint" in error.reason
        assert str(error.table) == "catalog_product"
        assert error.position is not None
        status = read_status(shop.config.target_dsn, stream=shop.config.slot)
        assert status is not None
        assert not status.running
        assert "id=17" in status.error
        target.execute("ALTER TABLE product DROP CONSTRAINT product_price_cents_check")
        with shop.running():
            shop.settle()
            assert_equal(shop)


def test_a_new_source_column_does_not_matter_a_vanished_one_stops_the_stream(shop: Shop) -> None:
    with (  # noqa: PT012  (the stream raises where its block ends)
        admin(shop.config.source_dsn) as source,
        pytest.raises(ApplyError) as stopped,
        shop.running(),
    ):
        wait_for_stream(shop)
        source.execute("UPDATE catalog_product SET price = 3 WHERE id = 1")
        source.execute("ALTER TABLE catalog_product ADD COLUMN weight integer DEFAULT 5")
        source.execute("UPDATE catalog_product SET price = 4 WHERE id = 1")
        shop.settle()
        assert_equal(shop)
        source.execute("ALTER TABLE catalog_product DROP COLUMN is_active")
        source.execute("UPDATE catalog_product SET price = 5 WHERE id = 1")
        until(lambda: phase(shop) == Phase.FAILED)
    assert stopped.value.column == "listed"
    assert "is_active" in stopped.value.reason


def test_the_status_of_an_idle_stream_is_not_stale(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        source.execute("UPDATE catalog_stock SET quantity = quantity + 1")
        # log that is none of our business must not count as lag, and must be let go
        source.execute("CREATE TABLE elsewhere AS SELECT g FROM generate_series(1, 20000) g")
        shop.settle()

        def caught_up() -> bool:
            status = read_status(shop.config.target_dsn, stream=shop.config.slot)
            return (
                status is not None
                and status.lag_bytes == 0
                and status.lag_seconds == 0.0
                and status.changes == 50
                and sum(status.latencies) >= 1
            )

        until(caught_up)
        status = read_status(shop.config.target_dsn, stream=shop.config.slot)
        assert status is not None
        assert status.running
        assert status.heartbeat_age < 2.0
        assert status.latency_ms_p50 is not None
        assert status.snapshot is not None
        assert status.snapshot.rows == status.snapshot_rows == 259
        assert status.snapshot.seconds_left == 0.0

        def let_go() -> bool:
            row = source.execute(
                "SELECT confirmed_flush_lsn::text, pg_current_wal_flush_lsn()::text FROM pg_replication_slots"
                " WHERE slot_name = %s",
                [shop.config.slot],
            ).fetchone()
            assert row is not None
            return Lsn.parse(row[1]) - Lsn.parse(row[0]) < 100_000

        until(let_go)


def test_status_of_a_stream_that_never_ran(database: str) -> None:
    assert read_status(database, stream="nothing") is None


def test_prepare_and_teardown_can_be_repeated(shop: Shop) -> None:
    config = shop.config

    def prepare_again() -> None:
        prepare(
            config.mapping,
            source_owner_dsn=config.source_dsn,
            target_owner_dsn=config.target_dsn,
            cdc_role="postgres",
            publication=config.publication,
        )

    def tear_down() -> None:
        teardown(
            config.mapping,
            slot=config.slot,
            publication=config.publication,
            source_dsn=config.source_dsn,
            source_owner_dsn=config.source_dsn,
            target_owner_dsn=config.target_dsn,
            empty_target=True,
        )

    prepare_again()
    with shop.running():
        wait_for_stream(shop)
    tear_down()
    tear_down()
    with admin(config.source_dsn) as source, admin(config.target_dsn) as target:
        assert source.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
        assert source.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [config.slot]
        ).fetchone() == (0,)
        assert target.execute("SELECT to_regnamespace('strangler_cdc')::text").fetchone() == (None,)
    prepare_again()
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)


def test_least_privilege_and_no_replica_role(
    postgres: EmbeddedPostgres, make_database: Callable[[], str]
) -> None:
    """The stream's own role: no ownership, no superuser, foreign keys checked."""
    source_dsn, target_dsn = make_database(), make_database()
    shop = make_shop(source_dsn, target_dsn, f"least_{secrets.token_hex(4)}")
    suffix = shop.config.slot
    password = "s3cret"
    with admin(source_dsn) as source, admin(target_dsn) as target:
        source.execute(f"CREATE ROLE cdc_{suffix} LOGIN REPLICATION PASSWORD '{password}'".encode())
        for connection in (source, target):
            name = connection.info.dbname
            connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC".encode())
            connection.execute(f"GRANT CONNECT ON DATABASE {name} TO cdc_{suffix}".encode())
        prepare(
            shop.config.mapping,
            source_owner_dsn=source_dsn,
            target_owner_dsn=target_dsn,
            cdc_role=f"cdc_{suffix}",
            publication=shop.config.publication,
        )
        try:
            limited = with_config(
                shop,
                source_dsn=postgres.dsn(dbname=source.info.dbname, user=f"cdc_{suffix}", password=password),
                target_dsn=postgres.dsn(dbname=target.info.dbname, user=f"cdc_{suffix}", password=password),
            )
            with limited.running():
                Shop(shop.config).settle()
                with source.transaction():
                    # child before parent: only deferred keys allow it
                    source.execute(
                        "INSERT INTO catalog_product (sku, name, price, category_id) VALUES ('c', 'c', 1, 77)"
                    )
                    source.execute("INSERT INTO catalog_category VALUES (77, 76, 'c')")
                    source.execute("INSERT INTO catalog_category VALUES (76, NULL, 'p')")
                source.execute("UPDATE catalog_product SET category_id = NULL WHERE category_id = 5")
                with source.transaction():
                    source.execute("DELETE FROM catalog_category WHERE id = 5")
                Shop(shop.config).settle()
                report = verify(limited.config)
                assert report.equal, report
                sink_role = target.execute(
                    "SELECT usename FROM pg_stat_activity WHERE application_name = %s",
                    [f"strangler_cdc apply {suffix}"],
                ).fetchone()
                assert sink_role == (f"cdc_{suffix}",)
        finally:
            # the server notices only after a moment that the stream has gone
            source.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s",
                [suffix],
            )
            source.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                [suffix],
            )
            for connection in (source, target):
                connection.execute(f"DROP OWNED BY cdc_{suffix}".encode())
            source.execute(f"DROP ROLE cdc_{suffix}".encode())


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_restarted_server_is_waited_for(
    tmp_path: Path, postgres: EmbeddedPostgres, make_database: Callable[[], str], which: str
) -> None:
    other = EmbeddedPostgres(tmp_path / which, durable=False)
    other.start()
    try:
        with admin(other.dsn()) as connection:
            connection.execute("CREATE DATABASE elsewhere")
        there, here = other.dsn(dbname="elsewhere"), make_database()
        source, target = (there, here) if which == "source" else (here, there)
        shop = make_shop(source, target, f"restart_{which}_{secrets.token_hex(4)}")
        with shop.running():
            wait_for_stream(shop)
            other.stop()
            if which == "target":
                with admin(source) as connection:
                    connection.execute("UPDATE catalog_product SET price = 5 WHERE id = 1")
            other.start()
            with admin(source) as connection:
                connection.execute("UPDATE catalog_product SET price = 6 WHERE id = 2")
            shop.settle()
            assert_equal(shop)
    finally:
        other.destroy()
