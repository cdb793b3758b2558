"""One stream over four partitions of a real topic: real broker, real Connect, real Debezium."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from threading import Event as StopEvent

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from cdc.pipeline import run
from cdc.seams import StreamError
from cdc.sharded.fence import instance_name
from cdc.status import read_status
from tests.cdc_shop import Shop, Writer, admin, until
from tests.integration.test_cdc_stream import assert_equal, wait_for_stream
from tests.kafka_lab import KafkaLab, kafka_shop, login
from workshop.postgres import EmbeddedPostgres

PARTITIONS = 4


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A role that comes over TCP with the password that the worker knows."""
    with login(postgres) as name:
        yield name


@pytest.fixture
def shop(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab
) -> Iterator[Shop]:
    with kafka_shop(
        make_database(), make_database(), postgres, role=role, kafka=kafka, partitions=PARTITIONS
    ) as made:
        yield made


def test_a_busy_shop_arrives_equal_through_restarts(shop: Shop) -> None:
    writer = Writer(shop.config.source_dsn, seed=5)
    for _ in range(2):
        with shop.running():
            wait_for_stream(shop)
            for _ in range(60):
                writer.step()
    writer.close()
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
        assert_equal(shop)
        status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    assert status is not None
    assert [part.number for part in status.partitions] == list(range(PARTITIONS))
    assert {part.instance for part in status.partitions} == {instance_name()}
    assert status.changes > 100
    assert status.parked == 0
    assert writer.key_changes > 10


@pytest.mark.timeout(120)
def test_a_truncated_table_stops_the_stream_and_says_what_to_do(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
    with admin(shop.config.source_dsn) as source:
        source.execute("TRUNCATE catalog_stock")
    with pytest.raises(StreamError, match=r"TRUNCATE of table catalog_stock .* use DELETE on the source"):
        run(shop.config, StopEvent())


@pytest.mark.timeout(120)
def test_a_topic_that_was_made_anew_is_refused(shop: Shop, kafka: KafkaLab) -> None:
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
    topic = shop.config.slot
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as broker:
        broker.delete_topics([topic], timeout_ms=10_000)
        until(lambda: topic not in broker.list_topics())
        with suppress(TopicAlreadyExistsError):  # the connector is faster, with as many partitions
            broker.create_topics([NewTopic(topic, PARTITIONS, 1)])
    with pytest.raises(StreamError, match=r"the one of now, .* was made since"):
        run(shop.config, StopEvent())
