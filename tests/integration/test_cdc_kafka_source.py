"""Where a reader of Kafka begins, on a real broker; what it reads is written as Debezium writes it."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import TopicAlreadyExistsError

import cdc.sources.kafka
from cdc import lineage
from cdc.changes import Lsn, Relation, RelationColumn, TableName, Transaction
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType, Modes
from cdc.seams import StreamError
from cdc.sources.kafka import KafkaSource
from tests.cdc_shop import until
from tests.contract.test_cdc_sources import numbers, read_until, some
from tests.kafka_lab import JARS, KafkaLab
from workshop.kafka import KafkaBroker, jars

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
class Memory:
    """What a target remembers of its topic, without a target."""

    topic: lineage.Topic | None = None

    def check(self, found: lineage.Topic | None, *, position: Lsn) -> None:
        lineage.judge_topic(self.topic, found, stream="s", position=position)
        self.topic = self.topic or found


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

    def make(self) -> None:
        self.admin.create_topics([NewTopic(name=self.name, num_partitions=1, replication_factor=1)])

    def delete(self) -> None:
        self.admin.delete_topics([self.name])
        until(lambda: self.name not in self.admin.list_topics())

    def make_anew(self) -> None:
        """As a producer does where the broker makes topics by itself; it may be quicker than we."""
        self.delete()
        with suppress(TopicAlreadyExistsError):
            self.make()

    def forget_before(self, offset: int) -> None:
        """What retention does in time."""
        self.admin.delete_records({TopicPartition(self.name, 0): offset})


@pytest.fixture
def topic(kafka: KafkaLab) -> Iterator[Topic]:
    name = f"source_{secrets.token_hex(4)}"
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    made = Topic(name, kafka.bootstrap, admin)
    made.make()
    yield made
    if name in admin.list_topics():
        made.delete()
    admin.close()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def begin(topic: Topic, memory: Memory) -> Iterator[Callable[[int], KafkaSource]]:
    """Begin with a target that has the commits up to a number."""
    begun: list[KafkaSource] = []

    def with_target_at(number: int) -> KafkaSource:
        source = reader(topic.bootstrap, topic.name, memory)
        begun.append(source)
        source.start(Lsn(100 * number))
        return source

    yield with_target_at
    for source in begun:
        source.close()


def reader(bootstrap: str, topic: str, memory: Memory) -> KafkaSource:
    table = Table(Relation(TABLE, (RelationColumn("id", INTEGER, key=True),)), (ColumnType(INTEGER),))
    return KafkaSource(
        bootstrap,
        topic=topic,
        group=topic,
        read_tables=lambda: {TABLE: table},
        modes=Modes(),
        memory=memory,
    )


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


def test_a_topic_that_was_made_anew_is_not_taken_for_a_fresh_one(
    topic: Topic, begin: Callable[[int], KafkaSource]
) -> None:
    topic.commit(1, 2)
    read_and_confirm(begin(0), 2)
    assert numbers(read_until(begin(1), some(1))) == [2], "the same topic serves on"
    topic.make_anew()
    topic.commit(4, 5)  # the third was in the old one
    with pytest.raises(
        StreamError, match=r"up to 0/C8 came through topic .* the one of now, .* is lost; tear"
    ):
        begin(2)


def test_a_topic_that_is_made_anew_under_a_reader_is_noticed(
    topic: Topic, begin: Callable[[int], KafkaSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc.sources.kafka, "_LOOK_EVERY", 0.1)
    topic.commit(1)
    source = begin(0)
    assert numbers(read_until(source, some(1))) == [1]
    topic.make_anew()
    with pytest.raises(StreamError, match=r"was made since|which was deleted"):
        read_until(source, some(1))


def test_a_topic_that_was_deleted_is_told_and_not_made_anew_by_the_reader(
    topic: Topic, begin: Callable[[int], KafkaSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc.sources.kafka, "_TOPIC_SECONDS", 1.0)
    topic.commit(1)
    read_and_confirm(begin(0), 1)
    topic.delete()
    with pytest.raises(StreamError, match="which was deleted"):
        begin(1)
    assert topic.name not in topic.admin.list_topics()


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_topic_that_is_compacted_is_refused_until_its_policy_is_repaired(
    topic: Topic, begin: Callable[[int], KafkaSource], policy: str
) -> None:
    def keep(by: str) -> None:
        changed = ConfigResource(ConfigResourceType.TOPIC, topic.name, {"cleanup.policy": by})
        topic.admin.alter_configs([changed])

    topic.commit(1)  # a compacted topic takes no record without a key any more
    keep(policy)
    with pytest.raises(
        StreamError,
        match=f"cleanup.policy={policy}.*kafka-configs .*--topic {topic.name} .*cleanup.policy=delete",
    ):
        begin(0)
    keep("delete")
    assert numbers(read_until(begin(0), some(1))) == [1]


def test_a_broker_that_lost_its_data_is_refused(tmp_path: Path, memory: Memory) -> None:
    broker = KafkaBroker(tmp_path, jars(JARS), quick=True)

    def filled(*commits: int) -> KafkaSource:
        with closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
            topic = Topic("wiped", broker.address, admin)
            topic.make()
            topic.commit(*commits)
        return reader(broker.address, "wiped", memory)

    with broker, closing(filled(1, 2)) as source:
        source.start(Lsn(0))
        assert numbers(read_until(source, some(2))) == [1, 2]
    shutil.rmtree(broker.directory / "data")
    with (
        broker,
        closing(filled(4, 5)) as source,
        pytest.raises(StreamError, match="the broker lost its data"),
    ):
        source.start(Lsn(200))
