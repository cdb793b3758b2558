"""The change stream through real Debezium, Connect and Kafka: what holds for the slot holds here, too.

The tests imported below are the slot's own; this module's `shop` runs them through Kafka.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc.connect import KafkaSettings, forget
from tests.cdc_shop import Shop, Writer, make_shop
from tests.integration.test_cdc_stream import (
    assert_equal,
    test_a_large_value_inserted_and_moved_in_one_transaction,
    test_every_operation_arrives,
    test_null_is_not_unchanged,
    test_truncate_is_honoured_in_its_place,
    test_unchanged_large_values_are_kept,
    test_what_was_rolled_back_never_arrives,
    wait_for_stream,
)
from tests.kafka_lab import PASSWORD, KafkaLab
from workshop.postgres import EmbeddedPostgres

__all__ = [
    "test_a_large_value_inserted_and_moved_in_one_transaction",
    "test_every_operation_arrives",
    "test_null_is_not_unchanged",
    "test_truncate_is_honoured_in_its_place",
    "test_unchanged_large_values_are_kept",
    "test_what_was_rolled_back_never_arrives",
]


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A role that comes over TCP with the password that the worker knows."""
    name = f"kafka_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(PASSWORD)
            )
        )
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def shop(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab
) -> Iterator[Shop]:
    source, target = make_database(), make_database()
    made = make_shop(source, target, f"stream_{secrets.token_hex(4)}")
    name = str(conninfo_to_dict(source)["dbname"])
    settings = KafkaSettings(kafka.bootstrap, kafka.connect, topic=made.config.slot)
    dsn = psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=postgres.port, dbname=name, user=role, password=PASSWORD
    )
    yield Shop(replace(made.config, source_dsn=dsn, kafka=settings))
    forget(settings, name=made.config.slot)


def test_a_busy_shop_arrives_equal_through_restarts(shop: Shop) -> None:
    writer = Writer(shop.config.source_dsn, seed=5)
    for _ in range(3):
        with shop.running():
            wait_for_stream(shop)
            for _ in range(60):
                writer.step()
    writer.close()
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
        assert_equal(shop)
