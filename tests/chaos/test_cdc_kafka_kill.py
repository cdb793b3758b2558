"""`kill -9` of the broker, of Connect with Debezium and of the consumer, while the shop writes; then row for row."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.connect import KafkaSettings, forget
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, Writer, admin, make_shop, until
from tests.kafka_lab import JARS, PASSWORD, PASSWORD_VARIABLE
from workshop.kafka import ConnectWorker, KafkaBroker, jars
from workshop.postgres import EmbeddedPostgres


@dataclass(slots=True)
class Lab:
    """A pair that nobody else uses, a shop, and the command that runs its stream."""

    broker: KafkaBroker
    worker: ConnectWorker
    shop: Shop
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the consumer."""
        self.process = subprocess.Popen(self.command, env=self.environment)

    def kill(self) -> None:
        """SIGKILL to the consumer."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def lab(make_database: Callable[[], str], postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Lab]:
    found = jars(JARS)
    slot, role = f"kkill_{secrets.token_hex(4)}", f"kkill_{secrets.token_hex(4)}"
    source, target = make_database(), make_database()
    shop = make_shop(source, target, slot)
    dsn = make_conninfo(
        host="127.0.0.1",
        port=postgres.port,
        dbname=str(conninfo_to_dict(source)["dbname"]),
        user=role,
        password=PASSWORD,
    )
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    broker = KafkaBroker(tmp_path / "broker", found)
    with admin(postgres.dsn()) as connection, broker:
        worker = ConnectWorker(
            tmp_path / "connect", found, broker=broker.address, environment={PASSWORD_VARIABLE: PASSWORD}
        )
        with worker:
            connection.execute(
                sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(PASSWORD)
                )
            )
            settings = KafkaSettings(broker.address, worker.url, topic=slot)
            made = Lab(
                broker,
                worker,
                Shop(replace(shop.config, source_dsn=dsn, kafka=settings)),
                [
                    *(sys.executable, "-m", "tests.chaos.run_kafka_stream"),
                    *(str(mapping), slot, shop.config.publication),
                ],
                {
                    **os.environ,
                    "CDC_SOURCE_DSN": dsn,
                    "CDC_TARGET_DSN": target,
                    "KAFKA_BOOTSTRAP": broker.address,
                    "KAFKA_CONNECT": worker.url,
                },
            )
            try:
                yield made
            finally:
                if made.process is not None and made.process.poll() is None:
                    made.kill()
                forget(settings, name=slot)
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_on_the_way_through_kafka_lose_and_double_nothing(lab: Lab) -> None:
    writer = Writer(lab.shop.config.source_dsn, seed=9)

    def write() -> None:
        for _ in range(40):
            writer.step()

    def come_back(which: str) -> None:
        match which:
            case "consumer":
                lab.start()
            case "connect":
                lab.worker.start(timeout=120)
            case _:
                lab.broker.start(timeout=120)

    lab.start()
    until(lambda: stored(lab.shop), timeout=90)
    lab.shop.settle(timeout=90)
    for which, kill in {
        "consumer": lab.kill,
        "connect": lambda: lab.worker.stop(how=signal.SIGKILL),
        "broker": lambda: lab.broker.stop(how=signal.SIGKILL),
    }.items():
        write()
        kill()
        write()
        come_back(which)
        write()
        lab.shop.settle(timeout=120)
        report = verify(lab.shop.config)
        assert report.equal, (which, report)
    writer.close()
    assert lab.process is not None
    assert lab.process.poll() is None
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(30) == 0
    assert writer.committed > 200


def stored(shop: Shop) -> bool:
    with psycopg.connect(shop.config.target_dsn) as target:
        return target.execute("SELECT count(*) FROM strangler_cdc.position").fetchone() == (1,)
