"""A stream whose connector, slot or Connect worker is taken away: seen, told, repaired; on real servers."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from psycopg import pq

import cdc.pipeline
from cdc.connect import Connect, ConnectUnreachableError, State
from cdc.meter import Phase
from cdc.pipeline import StreamError, run
from cdc.status import CdcStatus, read_status
from tests.cdc_shop import Shop, admin, until
from tests.integration.test_cdc_stream import assert_equal, wait_for_stream
from tests.kafka_lab import JARS, PASSWORD, PASSWORD_VARIABLE, KafkaLab, kafka_shop, login
from workshop.kafka import ConnectWorker, jars
from workshop.postgres import EmbeddedPostgres

SEEN_WITHIN = 5.0  # seconds until the stream's status tells of a fault
REPAIRED_WITHIN = 45.0


@pytest.fixture
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    with login(postgres) as name:
        yield name


@pytest.fixture
def shop(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab
) -> Iterator[Shop]:
    with kafka_shop(make_database(), make_database(), postgres, role=role, kafka=kafka) as made:
        yield made


@pytest.fixture
def connect(kafka: KafkaLab) -> Iterator[Connect]:
    with Connect(kafka.connect) as door:
        yield door


def status(shop: Shop) -> CdcStatus:
    found = read_status(shop.config.target_dsn, stream=shop.config.slot)
    assert found is not None
    return found


def warned(shop: Shop, words: str, *, within: float = SEEN_WITHIN) -> None:
    """Wait until the stream's status warns in these words, and goes on all the same."""
    until(lambda: words in status(shop).warning, timeout=within)
    assert status(shop).phase is Phase.STREAMING


def arrives_equal(shop: Shop) -> None:
    """A row written now arrives, all rows are equal, and nothing is warned of any more."""
    with admin(shop.config.source_dsn) as source:
        source.execute("INSERT INTO catalog_product (sku, name, price) VALUES ('LAST', 'the last', 1)")
    shop.settle(timeout=REPAIRED_WITHIN)
    until(lambda: not status(shop).warning, timeout=REPAIRED_WITHIN)
    assert_equal(shop)


def test_a_stolen_slot_is_told_and_read_again_once_it_is_free(shop: Shop) -> None:
    slot = shop.config.slot
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        shop.settle()
        with closing(
            psycopg.connect(
                shop.config.source_dsn, replication="database", autocommit=True, application_name="thief"
            )
        ) as thief:
            begin = f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'none')"

            def taken() -> bool:
                source.execute(
                    "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots"
                    " WHERE slot_name = %s AND active",
                    [slot],
                )
                return thief.pgconn.exec_(begin.encode()).status == pq.ExecStatus.COPY_BOTH

            until(taken)
            warned(shop, "read by somebody else: 'thief'")
        arrives_equal(shop)


def test_a_row_too_large_for_the_topic_is_told_and_comes_once_it_may(
    shop: Shop, connect: Connect, kafka: KafkaLab
) -> None:
    """The broker refuses one record in the middle of a transaction; those around it may get through before the task
    fails, each time it is restarted. Nothing of that transaction is applied until all of it is there.
    """
    slot = shop.config.slot

    def largest_record(size: int) -> None:
        topic = ConfigResource(ConfigResourceType.TOPIC, slot, {"max.message.bytes": str(size)})
        admin_client.alter_configs([topic])

    with (
        closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin_client,
        shop.running(),
        admin(shop.config.source_dsn) as source,
    ):
        wait_for_stream(shop)
        shop.settle()
        largest_record(20_000)
        with source.transaction():
            source.execute("UPDATE catalog_stock SET quantity = quantity + 1")
            source.execute(
                "UPDATE catalog_product SET description ="
                " (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) n) WHERE id = 1"
            )
            source.execute("UPDATE catalog_product SET name = 'sent behind it' WHERE id = 2")
        for _ in range(5):
            source.execute("UPDATE catalog_stock SET quantity = quantity + 1")
        warned(shop, "raise it there (kafka-configs --alter", within=20.0)
        assert "max.message.bytes" in status(shop).warning
        with admin(shop.config.target_dsn) as target:
            found = target.execute("SELECT count(*) FROM product WHERE title = 'sent behind it'").fetchone()
            assert found == (0,)
        largest_record(10_000_000)
        connect.restart(slot)
        arrives_equal(shop)
        now = connect.status(slot)
        assert now is not None
        assert now.running


def test_a_row_of_several_megabytes_arrives(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source:
        wait_for_stream(shop)
        source.execute(
            "UPDATE catalog_product SET description ="
            " (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 150000) n) WHERE id = 1"
        )
        arrives_equal(shop)


def test_a_connector_that_somebody_deleted_is_registered_again(shop: Shop, connect: Connect) -> None:
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
        assert connect.delete(shop.config.slot)
        arrives_equal(shop)
        assert connect.status(shop.config.slot) is not None


def test_a_connector_that_writes_values_otherwise_ends_the_stream(shop: Shop, connect: Connect) -> None:
    slot = shop.config.slot

    def reconfigured() -> None:
        with shop.running():
            wait_for_stream(shop)
            shop.settle()
            ours = connect.config(slot)
            assert ours is not None
            connect.register(slot, ours | {"time.precision.mode": "microseconds"})
            # Connect answers nothing while it shares its work out anew
            until(lambda: status(shop).phase is Phase.FAILED, timeout=30.0)

    why = "runs with time.precision.mode=microseconds instead of adaptive.*cdc connector register"
    with pytest.raises(StreamError, match=why):
        reconfigured()

    with pytest.raises(StreamError, match=why):
        # nothing has put it right meanwhile: what waits in the topic is as it was
        run(shop.config, threading.Event())
    running = connect.config(slot)
    assert running is not None
    assert running["time.precision.mode"] == "microseconds"


def test_a_connector_with_other_settings_gets_the_streams_again(shop: Shop, connect: Connect) -> None:
    slot = shop.config.slot
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
        ours = connect.config(slot)
        assert ours is not None
        connect.register(slot, ours | {"heartbeat.interval.ms": "60000", "max.queue.size": "9000"})
        until(lambda: heartbeat(connect, slot) == "250", timeout=REPAIRED_WITHIN)
        arrives_equal(shop)


def heartbeat(connect: Connect, slot: str) -> str | None:
    """What is registered; None while nobody tells."""
    try:
        return (connect.config(slot) or {}).get("heartbeat.interval.ms")
    except ConnectUnreachableError:
        return None


def test_a_topic_that_was_deleted_under_its_connector_is_refused(shop: Shop, kafka: KafkaLab) -> None:
    """The connector goes on behind its stored place, into a topic that the broker makes by itself."""
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
    with (
        closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as topics,
        admin(shop.config.source_dsn) as source,
    ):
        (before,) = topics.describe_topics([shop.config.slot])
        source.execute("UPDATE catalog_product SET price = price + 1")
        topics.delete_topics([shop.config.slot])

        def made_anew() -> bool:
            (now,) = topics.describe_topics([shop.config.slot])
            return not now["error_code"] and now["topic_id"] != before["topic_id"]

        until(made_anew, timeout=30.0)

        def begun() -> None:
            with shop.running():
                until(lambda: status(shop).phase is Phase.FAILED, timeout=30.0)

        with pytest.raises(StreamError, match=f"came through topic {shop.config.slot} with the id"):
            begun()


def test_a_connector_that_somebody_stopped_is_told_and_left_alone(shop: Shop, connect: Connect) -> None:
    slot = shop.config.slot
    with shop.running():
        wait_for_stream(shop)
        shop.settle()
        connect.pause(slot)
        warned(shop, "the connector is paused", within=15.0)
        now = connect.status(slot)
        assert now is not None
        assert now.connector.state is State.PAUSED
        connect.resume(slot)
        arrives_equal(shop)


def test_a_stream_whose_slot_is_dropped_ends_and_nothing_makes_a_new_one(shop: Shop) -> None:
    slot = shop.config.slot
    with admin(shop.config.source_dsn) as source:

        def dropped() -> bool:
            source.execute(
                "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots"
                " WHERE slot_name = %s AND active",
                [slot],
            )
            try:
                source.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            except psycopg.errors.ObjectInUse:  # Debezium was quicker
                return False
            return True

        def stream_without_slot() -> None:
            with shop.running():
                wait_for_stream(shop)
                shop.settle()
                until(dropped)
                until(lambda: status(shop).phase is Phase.FAILED)

        with pytest.raises(StreamError, match=f"slot {slot} does not exist on the source"):
            stream_without_slot()
        slots = source.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchall()
        assert slots == []


def test_a_slot_that_is_made_anew_before_the_connector_takes_it_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = shop.config.slot
    register = cdc.pipeline.register

    def meanwhile(*arguments: Any, **named: Any) -> None:
        with admin(shop.config.source_dsn) as source:
            source.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            source.execute("UPDATE catalog_product SET price = price + 1")
            # as a connector without an offset does it
            source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        register(*arguments, **named)

    monkeypatch.setattr(cdc.pipeline, "register", meanwhile)
    with pytest.raises(StreamError, match=f"slot {slot} was made anew on the source before its connector"):
        run(shop.config, threading.Event())
    assert status(shop).transactions == 0


def test_a_publication_that_is_dropped_ends_the_stream_and_is_named(shop: Shop, connect: Connect) -> None:
    with admin(shop.config.source_dsn) as source:

        def stream_without_publication() -> None:
            with shop.running():
                wait_for_stream(shop)
                shop.settle()
                source.execute(f"DROP PUBLICATION {shop.config.publication}".encode())
                source.execute("UPDATE catalog_product SET price = price + 1")
                until(lambda: status(shop).phase is Phase.FAILED, timeout=30.0)

        with pytest.raises(StreamError, match=f"publication {shop.config.publication} .* CREATE PUBLICATION"):
            stream_without_publication()
    found = connect.status(shop.config.slot)
    assert found is not None
    if found.fault:  # else Debezium is at its next attempt
        assert re.search(
            'publication "[^"]+" does not exist|Publication autocreation is disabled', found.fault
        )


def test_a_killed_connect_worker_is_told_and_waited_for(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, role: str, kafka: KafkaLab, tmp_path: Path
) -> None:
    worker = ConnectWorker(
        tmp_path,
        jars(JARS),
        broker=kafka.bootstrap,
        group="killed",
        environment={PASSWORD_VARIABLE: PASSWORD},
        quick=True,
    )
    own = KafkaLab(kafka.bootstrap, worker.url)
    source, target = make_database(), make_database()
    with worker, kafka_shop(source, target, postgres, role=role, kafka=own) as shop, shop.running():
        wait_for_stream(shop)
        shop.settle()
        worker.stop(how=signal.SIGKILL)
        warned(shop, "Kafka Connect does not answer")
        with admin(source) as session:
            session.execute("UPDATE catalog_product SET price = price + 1")
        worker.start()
        arrives_equal(shop)
