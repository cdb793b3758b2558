"""The source changes its tables while the stream runs: follow where the mapping allows, else stop, name it, lose
nothing, and go on after the repair."""

import secrets
import threading
from collections.abc import Callable

import pytest

from cdc.meter import Phase
from cdc.pipeline import StreamError, run
from cdc.sinks.postgres import ApplyError
from cdc.status import read_status
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, admin, make_shop, shop_mapping, until, with_config


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    source, target = make_database(), make_database()
    return make_shop(source, target, f"change_{secrets.token_hex(4)}", products=60)


def phase(shop: Shop) -> Phase | None:
    status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    return status.phase if status else None


def execute(dsn: str, *statements: str) -> None:
    with admin(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def assert_equal(shop: Shop) -> None:
    shop.settle()
    report = verify(shop.config)
    assert report.equal, report


def stopped_by(shop: Shop, *statements: str) -> ApplyError:
    """What stops a running stream when the source executes `statements`."""
    with pytest.raises(ApplyError) as stopped, shop.running():  # noqa: PT012  (raised at its end)
        until(lambda: phase(shop) == Phase.STREAMING)
        execute(shop.config.source_dsn, *statements)
        until(lambda: phase(shop) == Phase.FAILED)
    return stopped.value


CHANGES = [
    pytest.param(
        ["ADD COLUMN weight numeric DEFAULT 1.5", "ADD COLUMN colour condition"], id="columns are added"
    ),
    pytest.param(["DROP COLUMN search_vector"], id="a column that is not mapped is dropped"),
    pytest.param(["RENAME COLUMN search_vector TO found_by"], id="a column that is not mapped is renamed"),
    pytest.param(
        ["ALTER COLUMN price TYPE numeric(14,2)", "ALTER COLUMN sku TYPE text"], id="columns are widened"
    ),
    pytest.param(["ALTER COLUMN condition TYPE text USING condition::text"], id="a column changes its type"),
    pytest.param(["RENAME TO catalog_article"], id="the table is renamed"),
    pytest.param(["SET SCHEMA elsewhere"], id="the table moves to another schema"),
    pytest.param(["REPLICA IDENTITY FULL"], id="the identity changes"),
]


@pytest.mark.parametrize("changes", CHANGES)
def test_what_the_mapping_allows_is_followed(shop: Shop, changes: list[str]) -> None:
    source = shop.config.source_dsn
    table = "catalog_product"
    with shop.running():
        until(lambda: phase(shop) == Phase.STREAMING)  # it knows which tables these are
        shop.settle()
        execute(source, "CREATE SCHEMA elsewhere", "UPDATE catalog_product SET price = 1 WHERE id <= 20")
        with admin(source) as connection, connection.transaction():
            # before, between and after, in one transaction
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # or PostgreSQL refuses to alter the table
            connection.execute("UPDATE catalog_product SET price = 2 WHERE id <= 10")
            for change in changes:
                connection.execute(f"ALTER TABLE {table} {change}".encode())
                table = {"RENAME TO catalog_article": "catalog_article"}.get(change, table)
                table = {"SET SCHEMA elsewhere": "elsewhere.catalog_product"}.get(change, table)
                connection.execute(f"UPDATE {table} SET price = price + 1 WHERE id <= 5".encode())
            connection.execute(
                f"INSERT INTO {table} (id, sku, name, price) VALUES (7000, 'late', 'late', 3)".encode()
            )
            connection.execute(f"DELETE FROM {table} WHERE id = 11".encode())
        shop.settle()
        with admin(shop.config.target_dsn) as target:
            found = target.execute(
                "SELECT price_cents FROM product WHERE product_id IN (1, 6, 12, 7000)"
            ).fetchall()
        assert sorted(found) == sorted([(200 + 100 * len(changes),), (200,), (100,), (300,)])
        # what is compared must be called what the mapping calls it
        if table == "catalog_article":
            execute(source, "ALTER TABLE catalog_article RENAME TO catalog_product")
        elif table != "catalog_product":
            execute(source, "ALTER TABLE elsewhere.catalog_product SET SCHEMA public")
        assert_equal(shop)


def test_a_dropped_column_stops_the_stream_until_the_mapping_does_without_it(shop: Shop) -> None:
    error = stopped_by(
        shop,
        "UPDATE catalog_product SET price = 5 WHERE id = 1",
        "ALTER TABLE catalog_product DROP COLUMN is_active",
        "UPDATE catalog_product SET price = 6 WHERE id = 2",
    )
    assert error.column == "listed"
    assert "is_active" in error.reason
    # the service still has the column: it needs a value of its own
    execute(shop.config.target_dsn, "ALTER TABLE product ALTER COLUMN listed SET DEFAULT true")
    repaired = with_config(shop, mapping=shop_mapping(MAPPING.replace("      listed: is_active\n", "")))
    with repaired.running():
        assert_equal(repaired)
    with admin(shop.config.target_dsn) as target:
        assert target.execute(
            "SELECT price_cents FROM product WHERE product_id <= 2 ORDER BY product_id"
        ).fetchall() == [(500,), (600,)]


def test_a_renamed_column_stops_the_stream_until_the_mapping_knows_its_name(shop: Shop) -> None:
    error = stopped_by(
        shop,
        "UPDATE catalog_product SET price = 5 WHERE id = 1",
        "ALTER TABLE catalog_product RENAME COLUMN name TO label",
        "UPDATE catalog_product SET price = 6 WHERE id = 2",
    )
    assert "name" in error.reason
    renamed = MAPPING.replace("title: name\n      body", "title: label\n      body").replace(
        "left(name", "left(label"
    )
    repaired = with_config(shop, mapping=shop_mapping(renamed))
    with repaired.running():
        assert_equal(repaired)


def test_a_value_that_the_target_is_too_narrow_for_stops_the_stream_until_it_is_widened(shop: Shop) -> None:
    long = "s" * 60
    error = stopped_by(
        shop,
        "ALTER TABLE catalog_product ALTER COLUMN sku TYPE varchar(80)",
        "UPDATE catalog_product SET sku = 'fits' WHERE id = 1",
        f"UPDATE catalog_product SET sku = '{long}' WHERE id = 2",
        "UPDATE catalog_product SET sku = 'after' WHERE id = 3",
    )
    assert "too long" in error.reason
    assert error.key == "id=2"
    execute(shop.config.target_dsn, "ALTER TABLE product ALTER COLUMN sku TYPE varchar(80)")
    with shop.running():
        assert_equal(shop)


def test_a_table_that_was_renamed_while_we_were_away_loses_nothing(shop: Shop) -> None:
    with shop.running():
        until(lambda: phase(shop) == Phase.STREAMING)
    source = shop.config.source_dsn
    execute(
        source,
        "ALTER TABLE catalog_product RENAME TO catalog_article",
        "UPDATE catalog_article SET price = 9 WHERE id < 10",
    )
    with pytest.raises(StreamError, match=r"does not carry public\.catalog_product"):
        run(shop.config, threading.Event())
    execute(source, "ALTER TABLE catalog_article RENAME TO catalog_product")
    with shop.running():
        # the log still calls it by the other name
        assert_equal(shop)
