"""Verification on real databases: finds what is wrong and names it, and nothing else."""

import secrets
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from cdc.sources.slot import slot_state
from cdc.status import read_status
from cdc.verify import Difference, Kind, VerifyError, VerifyProgress, verify
from tests.cdc_shop import MAPPING, Shop, Writer, admin, make_shop, shop_mapping, until, with_config


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), f"verify_{secrets.token_hex(4)}", products=3000)


@pytest.fixture
def streaming(shop: Shop) -> Iterator[Shop]:
    with shop.running():
        until(lambda: stored(shop))
        yield shop


def stored(shop: Shop) -> bool:
    status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    return status is not None and status.position is not None


def test_differences_are_named_by_key_and_column(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("UPDATE product SET price_cents = 1, title = 'wrong' WHERE product_id = 17")
        target.execute("DELETE FROM product WHERE product_id = 18")
        target.execute("INSERT INTO stock VALUES ('nowhere', 1, 1)")
    report = verify(streaming.config)
    assert report.tables["category"].differing == 0
    assert report.tables["product"].rows == 3000
    assert report.tables["product"].differing == 2
    assert set_of(report.tables["product"].differences) == {
        ("17", Kind.DIFFERENT, "title", "näme 17", "wrong"),
        ("17", Kind.DIFFERENT, "price_cents", "1799", "1"),
        ("18", Kind.MISSING, "", None, None),
    }
    extra = Difference({"place": "nowhere", "product_id": "1"}, Kind.EXTRA)
    assert report.tables["stock"].differences == (extra,)
    assert not report.equal
    assert report.differing == 3


def set_of(differences: tuple[Difference, ...]) -> set[tuple[str | None, Kind, str, str | None, str | None]]:
    return {
        (each.key["product_id"], each.kind, each.column, each.source, each.target) for each in differences
    }


def test_null_and_empty_are_different(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("UPDATE product SET body = '' WHERE product_id = 1")  # NULL on the source
    (difference,) = verify(streaming.config).tables["product"].differences
    assert (difference.column, difference.source, difference.target) == ("body", None, "")


def test_a_cut_off_text_is_a_difference(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("ALTER TABLE category ALTER title TYPE varchar(5) USING left(title, 5)")
    report = verify(streaming.config).tables["category"]
    assert report.differing == 9
    assert report.differences[0].source == "category 1"
    assert report.differences[0].target == "categ"


def test_rows_without_a_key_and_rows_with_one_key_are_all_found(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("ALTER TABLE stock DROP CONSTRAINT stock_pkey")
        target.execute("ALTER TABLE stock ALTER place DROP NOT NULL")
        target.execute("INSERT INTO stock VALUES (NULL, 1, 1), (NULL, 1, 2)")
        target.execute("INSERT INTO stock SELECT * FROM stock WHERE place = 'W1' AND product_id = 1")
    report = verify(streaming.config).tables["stock"]
    assert report.differing == 3
    assert {(each.key["place"], each.kind) for each in report.differences} == {
        (None, Kind.EXTRA),
        ("W1", Kind.EXTRA),
    }


def test_values_that_only_sort_alike_are_different(shop: Shop) -> None:
    mapping = shop_mapping(MAPPING.replace("{quantity: quantity}", "{quantity: quantity, wait: wait}"))
    with admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        source.execute("ALTER TABLE catalog_stock ADD wait interval DEFAULT '1 mon'")
        target.execute("ALTER TABLE stock ADD wait interval")
        changed = with_config(shop, mapping=mapping)
        with changed.running():
            until(lambda: stored(shop))
            assert verify(changed.config).equal
            target.execute("UPDATE stock SET wait = '30 days' WHERE place = 'W1' AND product_id = 1")
            (difference,) = verify(changed.config).tables["stock"].differences
    assert (difference.column, difference.source, difference.target) == ("wait", "1 mon", "30 days")


def test_many_differences_are_counted_but_not_all_listed(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("UPDATE product SET listed = NOT listed WHERE product_id <= 500")
    report = verify(streaming.config, max_differences=10).tables["product"]
    assert len(report.differences) == 10
    assert 10 <= report.differing <= 500


def test_no_false_alarm_while_the_shop_writes(streaming: Shop) -> None:
    stop = threading.Event()
    writer = Writer(streaming.config.source_dsn, seed=3)

    def write() -> None:
        while not stop.wait(0.001):
            writer.step()

    thread = threading.Thread(target=write)
    thread.start()
    progress: list[VerifyProgress] = []
    try:
        reports = [verify(streaming.config, on_progress=progress.append) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert all(report.equal for report in reports), reports
    assert sorted({report.position for report in reports}) == [report.position for report in reports]
    assert all(0 < report.applier_held_ms < 5_000 for report in reports)
    assert [each.table for each in progress[:3]] == ["category", "product", "stock"]
    with admin(streaming.config.source_dsn) as source:
        slots = source.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        )
        assert slots.fetchall() == [(streaming.config.slot,)], "the temporary slots are gone"
    with admin(streaming.config.target_dsn) as target:
        assert target.execute("SELECT count(*) FROM strangler_cdc.control").fetchone() == (0,)


def test_without_an_applier_it_works_when_nothing_waits(shop: Shop) -> None:
    with pytest.raises(VerifyError, match="never run"):
        verify_before_prepare(shop)
    with shop.running():
        until(lambda: stored(shop))
    assert verify(shop.config).equal
    with admin(shop.config.source_dsn) as source:
        source.execute("CREATE TABLE elsewhere AS SELECT 1")
        assert verify(shop.config).equal
        source.execute("UPDATE catalog_product SET price = 1 WHERE id = 1")
        with pytest.raises(VerifyError, match="start the stream"):
            verify(shop.config)
        state = slot_state(source, shop.config.slot)
        assert state is not None
        assert state.active_pid is None


def verify_before_prepare(shop: Shop) -> None:
    with admin(shop.config.target_dsn) as target:
        target.execute("ALTER SCHEMA strangler_cdc RENAME TO put_aside")
    try:
        verify(shop.config)
    finally:
        with admin(shop.config.target_dsn) as target:
            target.execute("ALTER SCHEMA put_aside RENAME TO strangler_cdc")


def test_a_long_write_transaction_is_named_and_the_stream_goes_on(streaming: Shop) -> None:
    with psycopg.connect(streaming.config.source_dsn) as long:
        long.execute("UPDATE catalog_product SET price = 2 WHERE id = 2")
        with pytest.raises(VerifyError, match=f"pid {long.info.backend_pid}"):
            verify(streaming.config, timeout=3.0)
        with admin(streaming.config.source_dsn) as source:
            source.execute("UPDATE catalog_product SET price = 3 WHERE id = 3")
        streaming.settle()
        long.rollback()
    assert verify(streaming.config).equal


def test_a_dead_verifier_does_not_stop_the_stream_for_long(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute(
            "INSERT INTO strangler_cdc.control (stream, request, lease_until)"
            " VALUES (%s, gen_random_uuid(), clock_timestamp() + interval '1 second')",
            [streaming.config.slot],
        )
        until(lambda: target.execute("SELECT count(held_at) FROM strangler_cdc.control").fetchone() == (1,))
        with admin(streaming.config.source_dsn) as source:
            source.execute("UPDATE catalog_product SET price = 3 WHERE id = 3")
        streaming.settle(timeout=10)
    assert verify(streaming.config).equal
