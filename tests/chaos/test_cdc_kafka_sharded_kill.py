"""Three processes share four partitions: one is killed, one is stopped beyond the group's patience; then row for row.

A trigger in the target writes down every version of a counter that the source only ever increments, so that a version
applied twice, or an older one after a newer one, is seen even when the last one is right.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from cdc.sharded.claim import partition_stream
from cdc.sharded.fence import Holder, holders
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, Writer, admin, until
from tests.kafka_lab import KafkaLab, kafka_shop, login
from workshop.postgres import EmbeddedPostgres

PARTITIONS = 4
AUDIT = """
CREATE TABLE seen (id bigint GENERATED ALWAYS AS IDENTITY, place text, product_id bigint, quantity bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (place, product_id, quantity) VALUES (NEW.place, NEW.product_id, NEW.quantity);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE stock ENABLE ALWAYS TRIGGER note;
"""
WENT_BACK = """
SELECT place, product_id, before, quantity FROM (
    SELECT place, product_id, quantity,
           lag(quantity) OVER (PARTITION BY place, product_id ORDER BY id) AS before FROM seen
) versions WHERE quantity <= before
"""


@dataclass(slots=True)
class Instances:
    """The processes that apply the stream of `shop`."""

    shop: Shop
    command: list[str]
    environment: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        """Start one more."""
        process = subprocess.Popen(self.command, env=self.environment)
        self.running.append(process)
        return process

    def owners(self) -> dict[str, Holder]:
        """Who has which partition."""
        names = [partition_stream(self.shop.config.slot, number) for number in range(PARTITIONS)]
        with admin(self.shop.config.target_dsn) as target:
            return holders(target, names)

    def shared_by(self, *processes: subprocess.Popen[bytes]) -> bool:
        """Whether every partition has an owner and each of `processes`, and nobody else, has one."""
        owners = self.owners()
        pids = {holder.instance.rpartition(":")[2] for holder in owners.values()}
        return len(owners) == PARTITIONS and pids == {str(process.pid) for process in processes}

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def instances(
    make_database: Callable[[], str], postgres: EmbeddedPostgres, kafka: KafkaLab, tmp_path: Path
) -> Iterator[Instances]:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    with (
        login(postgres) as role,
        kafka_shop(
            make_database(), make_database(), postgres, role=role, kafka=kafka, partitions=PARTITIONS
        ) as shop,
    ):
        config = shop.config
        made = Instances(
            shop,
            [
                *(sys.executable, "-m", "tests.chaos.run_kafka_stream"),
                *(str(mapping), config.slot, config.publication),
            ],
            {
                **os.environ,
                "CDC_SOURCE_DSN": config.source_dsn,
                "CDC_TARGET_DSN": config.target_dsn,
                "KAFKA_BOOTSTRAP": kafka.bootstrap,
                "KAFKA_CONNECT": kafka.connect,
                "KAFKA_PARTITIONS": str(PARTITIONS),
            },
        )
        try:
            yield made
        finally:
            made.end()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rebalances_lose_and_repeat_nothing(instances: Instances) -> None:
    shop = instances.shop
    with admin(shop.config.target_dsn) as target:
        target.execute(AUDIT)
    writer = Writer(shop.config.source_dsn, seed=11)
    counted = admin(shop.config.source_dsn)

    def write() -> None:
        for number in range(60):
            writer.step()
            counted.execute(
                "UPDATE catalog_stock SET quantity = quantity + 1 WHERE product_id %% 10 = %s", [number % 10]
            )

    first, second, third = (instances.start() for _ in range(3))
    until(lambda: begun(shop), timeout=60)
    write()
    until(lambda: instances.shared_by(first, second, third), timeout=60)
    write()

    first.kill()
    write()
    fourth = instances.start()
    write()
    until(lambda: instances.shared_by(second, third, fourth), timeout=60)
    write()

    second.send_signal(signal.SIGSTOP)
    write()
    # the others take over although the stopped one still has its sessions
    until(lambda: instances.shared_by(third, fourth), timeout=60)
    write()
    shop.settle(timeout=60)
    second.send_signal(signal.SIGCONT)
    write()
    until(lambda: instances.shared_by(second, third, fourth), timeout=60)
    write()

    shop.settle(timeout=60)
    report = verify(shop.config)
    assert report.equal, report
    writer.close()
    counted.close()
    for process in (second, third, fourth):
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    for process in (second, third, fourth):
        assert process.wait(30) == 0
    with admin(shop.config.target_dsn) as target:
        assert target.execute(WENT_BACK).fetchall() == []
        versions = target.execute("SELECT count(*), count(DISTINCT (place, product_id)) FROM seen").fetchone()
    assert versions is not None
    assert versions[0] > 10 * versions[1]
    assert writer.key_changes > 50


def begun(shop: Shop) -> bool:
    with psycopg.connect(shop.config.target_dsn) as target:
        return bool(target.execute("SELECT count(*) > 1 FROM strangler_cdc.position").fetchone() == (True,))
