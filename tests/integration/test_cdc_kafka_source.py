"""Where a reader of Kafka begins, on a real broker; what it reads is written as Debezium writes it."""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from cdc.changes import Lsn, Relation, RelationColumn, TableName, Transaction
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType
from cdc.seams import StreamError
from cdc.sources.kafka import KafkaSource
from tests.contract.test_cdc_sources import numbers, read_until, some
from tests.kafka_lab import KafkaLab

TABLE = TableName("public", "item")
INTEGER = 23
RECORDS_A_COMMIT = 3


def event(number: int) -> list[tuple[bytes | None, bytes]]:
    """The `number`th commit, from 1, at 100 times its number: it inserts the row `number`."""
    end = 100 * number
    here = f"{number}:{end}"
    source = {
        "schema": "public",
        "table": "item",
        "lsn": end - 50,
        "ts_ms": 1,
        "sequence": json.dumps([str(end - 100), str(end - 50)]),
    }
    row = {
        "op": "c",
        "before": None,
        "after": {"id": number},
        "source": source,
        "transaction": {"id": here, "total_order": 1},
    }
    key = json.dumps({"id": number}).encode()
    begin = {"status": "BEGIN", "id": here, "ts_ms": 1, "event_count": None}
    finish = {"status": "END", "id": here, "ts_ms": 1, "event_count": 1}
    return [
        (None, json.dumps(begin).encode()),
        (key, json.dumps(row).encode()),
        (None, json.dumps(finish).encode()),
    ]


@dataclass
class Topic:
    """A topic of one partition."""

    name: str
    bootstrap: str
    admin: KafkaAdminClient

    def commit(self, *commits: int) -> None:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        for number in commits:
            for key, value in event(number):
                producer.send(self.name, key=key, value=value)
        producer.flush()
        producer.close()

    def forget_before(self, offset: int) -> None:
        """What retention does in time."""
        self.admin.delete_records({TopicPartition(self.name, 0): offset})


@pytest.fixture
def topic(kafka: KafkaLab) -> Iterator[Topic]:
    name = f"source_{secrets.token_hex(4)}"
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.create_topics([NewTopic(name=name, num_partitions=1, replication_factor=1)])
    yield Topic(name, kafka.bootstrap, admin)
    admin.delete_topics([name])
    admin.close()


@pytest.fixture
def begin(topic: Topic) -> Iterator[Callable[[int], KafkaSource]]:
    """Begin with a target that has the commits up to a number."""
    begun: list[KafkaSource] = []

    def with_target_at(number: int) -> KafkaSource:
        relation = Relation(TABLE, (RelationColumn("id", INTEGER, key=True),))
        table = Table(relation, (ColumnType(INTEGER),))
        source = KafkaSource(
            topic.bootstrap, topic=topic.name, group=topic.name, read_tables=lambda: {TABLE: table}
        )
        source.start(Lsn(100 * number))
        begun.append(source)
        return source

    yield with_target_at
    for source in begun:
        source.close()


def read_and_confirm(source: KafkaSource, commits: int) -> None:
    events = read_until(source, some(commits))
    assert isinstance(events[-1], Transaction)
    source.confirm(events[-1].position)
    source.close()


def test_a_restored_target_gets_what_it_lacks_although_the_group_is_further(
    topic: Topic, begin: Callable[[int], KafkaSource]
) -> None:
    topic.commit(1, 2, 3, 4)
    read_and_confirm(begin(0), 4)
    topic.commit(5)
    assert numbers(read_until(begin(2), some(3))) == [3, 4, 5]


def test_a_target_that_is_as_far_as_its_group_reads_nothing_again(
    topic: Topic, begin: Callable[[int], KafkaSource]
) -> None:
    topic.commit(1, 2)
    read_and_confirm(begin(0), 2)
    topic.forget_before(2 * RECORDS_A_COMMIT)
    topic.commit(3)
    assert numbers(read_until(begin(2), some(1))) == [3]


def test_a_topic_that_lost_what_comes_next_is_refused(
    topic: Topic, begin: Callable[[int], KafkaSource]
) -> None:
    topic.commit(1, 2, 3, 4)
    topic.forget_before(2 * RECORDS_A_COMMIT)
    with pytest.raises(StreamError, match=r"first record is number 6, and its first commit, at 0/12C,"):
        read_until(begin(1), some(1))


def test_a_topic_that_lost_only_what_the_target_has_serves_a_new_group(
    topic: Topic, begin: Callable[[int], KafkaSource]
) -> None:
    """Cut in the middle of a commit that is there, and the group's offsets have expired."""
    topic.commit(1, 2, 3, 4)
    topic.forget_before(RECORDS_A_COMMIT + 1)
    assert numbers(read_until(begin(2), some(2))) == [3, 4]
