"""The change stream through real Debezium, Connect and Kafka: what holds for the slot holds here, too.

The tests imported below are the slot's own; this module's `shop` runs them through Kafka.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.cdc_shop import Shop, Writer
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
from tests.kafka_lab import KafkaLab, kafka_shop, login
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
    with login(postgres) as name:
        yield name


@pytest.fixture
def shop(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab
) -> Iterator[Shop]:
    with kafka_shop(make_database(), make_database(), postgres, role=role, kafka=kafka) as made:
        yield made


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
