"""The connector by command, on real Connect: what people are told, and the exit codes."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdc.connect import Connect, KafkaSettings, State, forget
from migration_plans import examples
from tests.cdc_shop import admin, until
from tests.kafka_lab import KafkaLab, login, over_tcp
from workshop.postgres import EmbeddedPostgres

STRANGLER = Path(sys.executable).with_name("strangler")


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the commands run: a plan whose slot is `slot`, read from the database `source`."""

    directory: Path
    environment: dict[str, str]
    slot: str
    source: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(STRANGLER), "cdc", "connector", *arguments], env=self.environment, cwd=self.directory,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def make_slot(self) -> None:
        """What the snapshot does before anything is registered."""
        with admin(self.source) as session:
            session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])


@pytest.fixture
def desk(
    tmp_path: Path, make_database: Callable[[], str], postgres: EmbeddedPostgres, kafka: KafkaLab
) -> Iterator[Desk]:
    source, target, ledger = make_database(), make_database(), make_database()
    slot = f"cli_{secrets.token_hex(4)}"
    with admin(source) as session:
        session.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        session.execute(f"CREATE PUBLICATION {slot} FOR TABLE product")
    text = examples.PLAN.replace("slot: strangler_catalog", f"slot: {slot}, source: kafka").replace(
        "publication: strangler_catalog", f"publication: {slot}"
    )
    examples.write(tmp_path, plan=text)
    with login(postgres) as role:
        environment = {
            **os.environ,
            "SHOP_CDC_DSN": over_tcp(source, postgres, role=role), "SHOP_DATABASE_URL": source,
            "CATALOG_CDC_DSN": target, "CATALOG_DATABASE_URL": target, "STRANGLER_LEDGER_DSN": ledger,
            "STRANGLER_KAFKA": kafka.bootstrap, "STRANGLER_CONNECT": kafka.connect,
        }  # fmt: skip
        for name in ("STRANGLER_PLAN", "STRANGLER_ROUTES", "STRANGLER_PROXY_ADMIN"):
            environment.pop(name, None)
        yield Desk(tmp_path, environment, slot, source)
        forget(KafkaSettings(kafka.bootstrap, kafka.connect, slot), name=slot)


def test_before_the_snapshot_there_is_nothing_to_register(desk: Desk, kafka: KafkaLab) -> None:
    refused = desk.run("register", "plan.yaml")
    assert refused.returncode == 4
    assert f"slot {desk.slot} does not exist" in refused.stderr
    assert "takes the snapshot" in refused.stderr
    with Connect(kafka.connect) as connect:
        assert connect.status(desk.slot) is None, "Debezium would have made a slot of its own"


def test_registered_shown_restarted_deleted(desk: Desk, kafka: KafkaLab) -> None:
    absent = desk.run("status", "plan.yaml")
    assert absent.returncode == 6
    assert "strangler cdc connector register" in absent.stderr
    desk.make_slot()

    for _ in range(2):  # the same again changes nothing
        registered = desk.json("register", "plan.yaml")
        assert (registered["name"], registered["running"]) == (desk.slot, True)
        assert [task["state"] for task in registered["tasks"]] == ["running"]
    with Connect(kafka.connect) as connect:
        config = connect.config(desk.slot)
        assert config is not None
        assert config["database.password"] == "${env:STRANGLER_CONNECT_PASSWORD}"
        connect.pause(desk.slot)

        def paused_now() -> bool:  # in Connect's own time
            now = connect.status(desk.slot)
            return now is not None and now.connector.state is State.PAUSED

        until(paused_now)
    paused = desk.json("status", "plan.yaml", code=4)
    assert (paused["running"], paused["connector"]["state"]) == (False, "paused")
    assert desk.json("restart", "plan.yaml")["running"]
    shown = desk.run("restart", "plan.yaml", "--all")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[1].startswith("task 0: running on ")

    assert desk.json("delete", "plan.yaml", "--yes") == {"name": desk.slot, "deleted": True}
    with Connect(kafka.connect) as connect:
        assert connect.status(desk.slot) is None
    with admin(desk.source) as session:
        kept = session.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", [desk.slot])
        assert kept.rowcount == 1


def test_nobody_answers_and_no_connector_meant(desk: Desk) -> None:
    with_slot = desk.run("status", "plan.yaml", "--set", "stream.source=slot")
    assert with_slot.returncode == 3
    assert "source: kafka" in with_slot.stderr
    desk.environment["STRANGLER_CONNECT"] = "http://127.0.0.1:1"
    away = desk.run("status", "plan.yaml")
    assert away.returncode == 6
    assert "does not answer at http://127.0.0.1:1" in away.stderr
