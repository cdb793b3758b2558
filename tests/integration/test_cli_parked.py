"""Parked keys and a dead reader by command: what people are told, what they can do, what the ledger keeps."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_plans import examples
from migration_plans.ledger import Ledger
from migration_plans.testing import FakeProxyAdmin
from tests.cdc_shop import admin, until

STRANGLER = Path(sys.executable).with_name("strangler")


@dataclass
class Desk:
    """Where the commands run, with two databases, a ledger and the proxy's stand-in."""

    directory: Path
    environment: dict[str, str]
    stack: ExitStack

    def run(self, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(STRANGLER), *arguments], env=self.environment, cwd=self.directory, input=answer,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def background(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.stack.enter_context((self.directory / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [str(STRANGLER), *arguments], env=self.environment, cwd=self.directory, stdout=log, stderr=log
        )
        self.stack.callback(process.wait, 20)
        self.stack.callback(process.kill)
        return process

    def source(self) -> psycopg.Connection[Any]:
        return self.stack.enter_context(admin(self.environment["SHOP_DATABASE_URL"]))

    def target(self) -> psycopg.Connection[Any]:
        return self.stack.enter_context(admin(self.environment["CATALOG_DATABASE_URL"]))

    def alerts(self) -> list[dict[str, Any]]:
        """What the alert command was given so far."""
        path = self.directory / "alerts"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def alarms(self) -> list[tuple[str, str]]:
        """Event and alarm of each alert about one."""
        return [
            (each["event"], each["detail"]["alarm"]) for each in self.alerts() if "alarm" in each["detail"]
        ]


@pytest.fixture
def desk(tmp_path: Path, make_database: Callable[[], str]) -> Iterator[Desk]:
    source, target, ledger = make_database(), make_database(), make_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        connection.execute("INSERT INTO product SELECT n, 'product ' || n FROM generate_series(1, 50) n")
    with psycopg.connect(target) as connection:
        connection.execute(
            "CREATE TABLE item (item_id bigint PRIMARY KEY, title text NOT NULL CHECK (title <> 'bad'))"
        )
    slot = f"strangler_{os.getpid()}_{time.monotonic_ns() % 1_000_000}"
    text = examples.PLAN.replace("slot: strangler_catalog", f"slot: {slot}").replace(
        "publication: strangler_catalog", "publication: strangler_catalog, role: postgres, on_refused: park"
    )
    listener = tmp_path / "listener"
    listener.write_text(f"#!/bin/sh\n(cat; echo) >> {tmp_path}/alerts\n")
    listener.chmod(0o755)
    text = text.replace("min_requests: 10", "min_requests: 1000000, max_retained: 8MB")
    examples.write(tmp_path, plan=f"{text}alerts: [{{command: [{listener}]}}]\n")
    environment = {
        **os.environ,
        "SHOP_CDC_DSN": source, "SHOP_DATABASE_URL": source, "CATALOG_CDC_DSN": target,
        "CATALOG_DATABASE_URL": target, "STRANGLER_LEDGER_DSN": ledger, "STRANGLER_ACTOR": "the test",
    }  # fmt: skip
    for name in ("STRANGLER_PLAN", "STRANGLER_ROUTES", "STRANGLER_PROXY_ADMIN"):
        environment.pop(name, None)
    with FakeProxyAdmin(tmp_path / "routes.yaml") as proxy, ExitStack() as stack:
        environment["STRANGLER_PROXY_ADMIN"] = proxy.url
        yield Desk(tmp_path, environment, stack)


def start(desk: Desk) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Controller and change stream, until the first percentage is waiting for requests."""
    controller = desk.background("controller", "controller", "plan.yaml")
    stream = desk.background("stream", "cdc", "run", "plan.yaml")
    started = desk.run("start", "plan.yaml", "--skip-check")
    assert started.returncode == 0, started.stderr
    with Ledger(desk.environment["STRANGLER_LEDGER_DSN"]) as ledger:

        def there() -> bool:
            record = ledger.read("catalog")
            return record is not None and (record.stage_name, record.state.value) == ("ramp 10", "soaking")

        until(there, timeout=40)
    return controller, stream


def title(target: psycopg.Connection[Any], item: int) -> str | None:
    row = target.execute("SELECT title FROM item WHERE item_id = %s", [item]).fetchone()
    return row and str(row[0])


def waiting(target: psycopg.Connection[Any]) -> int:
    row = target.execute("SELECT count(*) FROM strangler_cdc.parked").fetchone()
    assert row is not None
    return int(row[0])


def test_a_refused_row_is_parked_told_retried_and_skipped(desk: Desk) -> None:
    start(desk)
    source, target = desk.source(), desk.target()

    source.execute("UPDATE product SET name = 'bad' WHERE id = 7")
    source.execute("UPDATE product SET name = 'good' WHERE id = 8")
    until(lambda: title(target, 8) == "good")
    (lot,) = desk.json("cdc", "parked", "plan.yaml")
    assert lot["keys"] == ["product/7"]
    (change,) = lot["changes"]
    assert (change["sqlstate"], change["after"]) == ("23514", {"id": "7", "name": "bad"})
    assert "item_title_check" in change["error"]
    until(lambda: ("alarm_raised", "parked") in desk.alarms())
    status = desk.json("status", "plan.yaml")
    assert (status["parked"], status["alarms"]) == (1, ["parked"])
    gate = next(each for each in status["gates"] if each["gate"] == "parked")
    assert (gate["outcome"], gate["value"], gate["limit"]) == ("hold", 1, 0)

    compared = desk.json("verify", "plan.yaml", code=4)["tables"]["item"]
    assert (compared["differing"], compared["parked"]) == (1, 1)
    assert compared["differences"][0]["parked"]
    refused = desk.run("cdc", "retry", "plan.yaml", "product/7")
    assert refused.returncode == 4
    assert "item_title_check" in refused.stderr

    # mended in the source, which waits behind it
    source.execute("UPDATE product SET name = 'mended' WHERE id = 7")
    until(lambda: waiting(target) == 2)
    assert desk.json("cdc", "retry", "plan.yaml", "--all") == [
        {"keys": ["product/7"], "applied": True, "error": ""}
    ]
    assert title(target, 7) == "mended"
    until(lambda: ("alarm_cleared", "parked") in desk.alarms())
    source.execute("UPDATE product SET name = 'again' WHERE id = 7")
    until(lambda: title(target, 7) == "again")

    source.execute("UPDATE product SET name = 'bad' WHERE id = 9")
    until(lambda: waiting(target) == 1)
    unknown = desk.run("cdc", "skip", "plan.yaml", "product/7")
    assert unknown.returncode == 4
    assert "parked are product/9" in unknown.stderr
    assert desk.run("cdc", "skip", "plan.yaml", "product/9", answer="n\n").returncode == 1
    assert desk.json("cdc", "skip", "plan.yaml", "product/9", "--yes")["changes"] == 1
    assert waiting(target) == 0
    with Ledger(desk.environment["STRANGLER_LEDGER_DSN"]) as ledger:
        skipped = next(each for each in ledger.history("catalog") if each.event == "parked_skipped")
    assert skipped.actor == "the test"
    assert skipped.detail["skipped"]["changes"][0]["after"] == {"id": "9", "name": "bad"}
    assert title(target, 9) == "product 9"


def test_a_dead_reader_raises_an_alarm_before_the_disk_fills(desk: Desk) -> None:
    _, stream = start(desk)
    source = desk.source()
    until(lambda: desk.json("status", "plan.yaml")["slot"]["active"])  # a reader comes after the snapshot
    stream.send_signal(signal.SIGKILL)
    stream.wait(10)
    source.execute("CREATE TABLE unrelated (body text)")
    source.execute("ALTER TABLE unrelated ALTER body SET STORAGE EXTERNAL")
    source.execute("INSERT INTO unrelated SELECT repeat('x', 7000) || g FROM generate_series(1, 1500) g")
    until(lambda: ("alarm_raised", "slot") in desk.alarms())
    alert = next(each for each in desk.alerts() if each["detail"].get("alarm") == "slot")
    for said in ("alarm at 8.0 MB", "gates.max_retained", "nobody reads it", "strangler cdc run"):
        assert said in alert["text"]
    status = desk.json("status", "plan.yaml")
    assert status["alarms"] == ["slot"]
    assert not status["slot"]["active"]
    assert status["slot"]["retained"] > 8_000_000

    desk.background("stream again", "cdc", "run", "plan.yaml")
    reading = "SELECT active FROM pg_replication_slots WHERE database = current_database()"
    until(lambda: source.execute(reading.encode()).fetchone() == (True,))
    source.execute("CHECKPOINT")  # a slot lets go of log up to where a server would begin to decode
    until(lambda: ("alarm_cleared", "slot") in desk.alarms())
