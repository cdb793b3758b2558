"""The way through Kafka: records that already lie in their topic are applied, by us and by Debezium's JDBC sink.

    slot measured ─► Debezium ─► one topic, transactions in commit order, no schemas ─► our stream ─► shop_order
    slot plain    ─► Debezium ─► the table's topic, rows alone, schemas              ─► JDBC sink  ─► sink_order

Both are set up and have caught up; then our stream is stopped, the sink is paused, the load is written, and Debezium
brings it into both topics. Then they take turns. The sink cannot read records without schemas, which are five times as
large; it has no begins and ends of transactions to read. It gets large batches and a driver that joins statements.

https://debezium.io/documentation/reference/stable/connectors/jdbc.html
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
from kafka import KafkaConsumer, TopicPartition
from psycopg.conninfo import make_conninfo

from benchmarks.cdc.figures import OURS, SINK, Measurement
from benchmarks.cdc.loads import Amount, ten
from benchmarks.cdc.process import Stream, until
from benchmarks.cdc.shapes import CREATE_SOURCE, SOURCE
from benchmarks.cdc.site import Place, Site
from cdc.connect import PASSWORD_VARIABLE, Connect, KafkaSettings
from cdc.pipeline import StreamConfig, connector
from cdc.sources.slot import drop_slot
from workshop.kafka import JARS, ConnectWorker, KafkaBroker, jars

_ROLE, _PASSWORD = "measured_kafka", "measured"
_PLAIN, _SINK, _SINK_TABLE = "plain", "sink", "sink_order"
_PLAIN_TOPIC = f"{_PLAIN}.public.{SOURCE}"
_TAIL = 500  # records; heartbeats come behind the last row
_SCHEMAS = {"key.converter.schemas.enable": "true", "value.converter.schemas.enable": "true"}


def measure(
    site: Site, amount: Amount, directory: Path, tell: Callable[[str], None]
) -> Iterator[Measurement]:
    """Rows a second of both, every round. Raises KafkaError when there is no Java or Maven."""
    found = jars(JARS, peer=True)
    environment = {PASSWORD_VARIABLE: _PASSWORD}
    site.source.execute(f"CREATE ROLE {_ROLE} SUPERUSER LOGIN PASSWORD '{_PASSWORD}'".encode())
    with (
        KafkaBroker(directory / "broker", found) as broker,
        ConnectWorker(directory / "connect", found, broker=broker.address, environment=environment) as worker,
    ):
        tell("kafka: broker and Connect run")
        settings = KafkaSettings(broker.address, worker.url, topic=site.config.slot)
        source_dsn = make_conninfo(
            host="127.0.0.1",
            port=site.server.port,
            dbname=site.source.info.dbname,
            user=_ROLE,
            password=_PASSWORD,
        )
        config = replace(site.config, source_dsn=source_dsn, kafka=settings)
        with Connect(worker.url) as connect:
            try:
                _set_up(site, config, settings, connect)
                for number in range(amount.rounds):
                    tell(f"kafka, round {number + 1}")
                    for name, rate in _round(site, config, settings, connect, amount):
                        yield Measurement(work="kafka", contender=name, round=number, value=round(rate, 1))
            finally:
                for name in (_SINK, _PLAIN, config.slot):
                    connect.delete(name)
                for slot in (_PLAIN, config.slot):
                    drop_slot(site.source, slot)


def _set_up(site: Site, config: StreamConfig, settings: KafkaSettings, connect: Connect) -> None:
    site.target.execute(CREATE_SOURCE.replace(SOURCE, _SINK_TABLE).encode())
    site.pipe(f"SELECT * FROM {SOURCE}", _sinks(site))  # noqa: S608  (our own name)
    with Stream(config) as stream:
        stream.go()
        until(site.position, what="the snapshot is there", alive=stream.alive)
        # the same connector, with the records that the sink understands
        plain = connector(replace(config, slot=_PLAIN), settings)
        for key in [key for key in plain if key.startswith(("transforms", "heartbeat", "decimal."))]:
            del plain[key]
        connect.register(_PLAIN, plain | _SCHEMAS | {"provide.transaction.metadata": "false"})
        connect.wait_running(_PLAIN)
        httpx.put(
            f"{settings.connect}/connectors/{_SINK}/config", json=_sink(site), timeout=60
        ).raise_for_status()
        connect.wait_running(_SINK)
        mark = site.mark()
        site.ours.await_mark(mark, stream.alive)
        _sinks(site).await_mark(mark, lambda: _runs(connect))


def _sinks(site: Site) -> Place:
    return Place(site.target, _SINK_TABLE, "note")


def _sink(site: Site) -> dict[str, str]:
    url = f"jdbc:postgresql://127.0.0.1:{site.server.port}/{site.target.info.dbname}"
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "1",
        "topics": _PLAIN_TOPIC,
        # types that the sink does not know reach the server without one
        "connection.url": f"{url}?stringtype=unspecified&reWriteBatchedInserts=true",
        "connection.username": _ROLE,
        "connection.password": f"${{env:{PASSWORD_VARIABLE}}}",
        "insert.mode": "upsert",
        "delete.enabled": "true",
        "primary.key.mode": "record_key",
        "primary.key.fields": "id",
        "schema.evolution": "none",
        "collection.name.format": _SINK_TABLE,
        "batch.size": "5000",
        "consumer.override.max.poll.records": "5000",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        **_SCHEMAS,
    }


def _round(
    site: Site, config: StreamConfig, settings: KafkaSettings, connect: Connect, amount: Amount
) -> Iterator[tuple[str, float]]:
    connect.pause(_SINK)
    rows = ten(site, replace(amount, ten=amount.kafka // 10))
    mark = site.mark()
    for topic in (settings.topic, _PLAIN_TOPIC):
        _in_topic(settings.bootstrap, topic, mark)
    with Stream(config) as stream:
        began = time.perf_counter()
        stream.go()
        site.ours.await_mark(mark, stream.alive)
        yield OURS, rows / (time.perf_counter() - began)
    began = time.perf_counter()
    connect.resume(_SINK)
    _sinks(site).await_mark(mark, lambda: _runs(connect))
    yield SINK, rows / (time.perf_counter() - began)


def _in_topic(bootstrap: str, topic: str, mark: str) -> None:
    """Wait until the record of `mark` is among the last ones."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])

        def there() -> bool:
            end = consumer.end_offsets([partition])[partition]
            consumer.seek(partition, max(0, end - _TAIL))
            while consumer.position(partition) < end:
                for record in consumer.poll(timeout_ms=1_000).get(partition, ()):
                    if record.value is not None and mark.encode() in record.value:
                        return True
            return False

        until(there, what=f"topic {topic} has all records", alive=lambda: True)
    finally:
        consumer.close(autocommit=False)


def _runs(connect: Connect) -> bool:
    status = connect.status(_SINK)
    return status is not None and not status.fault
