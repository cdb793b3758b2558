"""The command line over the real thing: databases, change stream, ledger, controller; the proxy is told what it saw."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_plans import examples
from migration_plans.ledger import Ledger
from migration_plans.testing import FakeProxyAdmin
from tests import cdc_shop
from workshop.postgres import EmbeddedPostgres

STRANGLER = Path(sys.executable).with_name("strangler")


@dataclass
class Shop:
    """Where the commands run: a folder with plan and routes file, the environment, the proxy's stand-in."""

    directory: Path
    environment: dict[str, str]
    proxy: FakeProxyAdmin
    stack: ExitStack

    def run(self, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(STRANGLER), *arguments], env=self.environment, cwd=self.directory, input=answer,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def background(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.stack.enter_context((self.directory / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [str(STRANGLER), *arguments], env=self.environment, cwd=self.directory, stdout=log, stderr=log
        )
        self.stack.callback(process.wait, 20)
        self.stack.callback(process.kill)
        return process

    def until(self, state: str, percent: int) -> None:
        """Wait, under healthy traffic, until the ledger says `state` and the proxy runs `percent`."""
        deadline = time.monotonic() + 40
        with Ledger(self.environment["STRANGLER_LEDGER_DSN"]) as ledger:
            while True:
                record = ledger.read("catalog")
                if record is not None and (record.state, self.proxy.percent()) == (state, percent):
                    return
                logs = "".join(
                    path.read_text(encoding="utf-8")[-2000:] for path in self.directory.glob("*.log")
                )
                assert time.monotonic() < deadline, f"{record}\n{logs}"
                self.healthy()
                time.sleep(0.02)

    def healthy(self) -> None:
        self.proxy.good("control", 20)
        if self.proxy.percent():
            self.proxy.good("canary", 5)


class Service(ThreadingHTTPServer):
    """The service behind the group's paths; ready while `well`."""

    well = True

    class Answer(BaseHTTPRequestHandler):
        """One answer for every path."""

        def do_GET(self) -> None:
            assert isinstance(self.server, Service)
            self.send_response(200 if self.server.well else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Say nothing."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Service.Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def shop(tmp_path: Path, make_database: Callable[[], str], service: Service) -> Iterator[Shop]:
    source, target, ledger = make_database(), make_database(), make_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        connection.execute("INSERT INTO product SELECT n, 'product ' || n FROM generate_series(1, 500) n")
    with psycopg.connect(target) as connection:
        connection.execute("CREATE TABLE item (item_id bigint PRIMARY KEY, title text NOT NULL)")
    slot = f"strangler_{os.getpid()}_{time.monotonic_ns() % 1_000_000}"
    text = examples.PLAN.replace("slot: strangler_catalog", f"slot: {slot}")
    text = text.replace("publication: strangler_catalog", "publication: strangler_catalog, role: postgres")
    examples.write(tmp_path, plan=text, routes=examples.ROUTES.replace("http://127.0.0.1:8101", service.url))
    environment = {
        **os.environ,
        "SHOP_CDC_DSN": source, "SHOP_DATABASE_URL": source, "CATALOG_CDC_DSN": target,
        "CATALOG_DATABASE_URL": target, "STRANGLER_LEDGER_DSN": ledger, "STRANGLER_ACTOR": "the test",
    }  # fmt: skip
    for name in ("STRANGLER_PLAN", "STRANGLER_ROUTES", "STRANGLER_PROXY_ADMIN"):
        environment.pop(name, None)
    with FakeProxyAdmin(tmp_path / "routes.yaml") as proxy, ExitStack() as stack:
        environment["STRANGLER_PROXY_ADMIN"] = proxy.url
        yield Shop(tmp_path, environment, proxy, stack)


@pytest.mark.slow
def test_a_whole_migration_by_command(shop: Shop) -> None:
    assert shop.json("plan", "check", "plan.yaml")["databases_checked"]
    assert shop.json("status", "plan.yaml")["state"] == "planned"
    controller = shop.background("controller", "controller", "plan.yaml")
    stream = shop.background("stream", "cdc", "run", "plan.yaml")
    started = shop.json("start", "plan.yaml")
    assert (started["state"], started["stage"]) == ("entering", "prepare")
    shop.until("done", 100)
    done = shop.json("status", "plan.yaml")
    assert done["state"] == "done"
    assert done["verified"]["rows"] == 500
    assert done["verified"]["differing"] == 0
    assert [stage["place"] for stage in done["stages"]] == ["passed"] * 6
    documented = (Path(__file__).parents[2] / "docs/reference/status.md").read_text(encoding="utf-8")
    assert [key for key in done if f"`{key}`" not in documented] == []

    second = shop.run("controller", "plan.yaml")
    assert second.returncode == 5
    assert "another controller" in second.stderr
    again = shop.run("start", "plan.yaml")
    assert again.returncode == 5
    assert "strangler rollback" in again.stderr

    with psycopg.connect(shop.environment["SHOP_CDC_DSN"]) as connection:
        connection.execute("UPDATE product SET name = 'renamed' WHERE id = 7")
    report = shop.json("verify", "plan.yaml")
    assert report["tables"]["item"] == {
        "rows": 500,
        "differing": 0,
        "parked": 0,
        "complete": True,
        "passed": 0,
        "differences": [],
    }
    with psycopg.connect(shop.environment["CATALOG_DATABASE_URL"]) as connection:
        connection.execute("UPDATE item SET title = 'spoilt' WHERE item_id = 9")
    spoilt = shop.run("verify", "plan.yaml")
    assert spoilt.returncode == 4
    assert "item_id=9" in spoilt.stdout
    assert "title" in spoilt.stdout
    assert "spoilt" not in spoilt.stdout
    shown = shop.run("verify", "plan.yaml", "--table", "item", "--show-values")
    assert "'spoilt' in the target" in shown.stdout
    lines = shop.run("verify", "plan.yaml", "--json-lines", "--rate", "1000000")
    told = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [each["event"] for each in told if each["event"] != "progress"] == [
        "difference",
        "compared",
        "error",
    ]
    assert shop.run("verify", "plan.yaml", "--table", "nowhere").returncode == 2
    soak = shop.background("soak", "verify", "plan.yaml", "--continuous", "--every", "0.1", "--json-lines")
    heard = shop.directory / "soak.log"
    cdc_shop.until(lambda: heard.read_text(encoding="utf-8").count('"event": "compared"') >= 2)
    soak.send_signal(signal.SIGINT)
    assert soak.wait(20) == 4, "rows differed in it"
    assert shop.json("cdc", "status", "plan.yaml")["phase"] == "streaming"

    back = shop.json("rollback", "plan.yaml", "--reason", "reviews look odd")
    assert (back["state"], back["percent"]) == ("rolled_back", 0.0)
    assert shop.proxy.percent() == 0
    history = shop.json("history", "plan.yaml")
    assert history["chain"]["broken_at"] is None
    last = history["entries"][-2]
    assert (last["event"], last["actor"], last["detail"]["reason"]) == (
        "rollback",
        "the test",
        "reviews look odd",
    )

    for process in (controller, stream):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    refused = shop.run("reset", "plan.yaml", answer="n\n")
    assert refused.returncode == 1
    assert "removes the slot" in refused.stderr
    assert shop.json("reset", "plan.yaml", "--yes")["state"] == "planned"
    with psycopg.connect(shop.environment["SHOP_CDC_DSN"]) as connection:
        row = connection.execute("SELECT count(*) FROM pg_publication").fetchone()
    assert row == (0,)
    assert shop.json("start", "plan.yaml")["state"] == "entering"


def test_rollback_works_without_a_controller(shop: Shop, service: Service) -> None:
    controller = shop.background(
        "controller", "controller", "plan.yaml", "--set", "gates.min_requests=1000000"
    )
    shop.background("stream", "cdc", "run", "plan.yaml")
    shop.json("start", "plan.yaml")
    shop.until("soaking", 10)
    held = shop.run("advance", "plan.yaml", answer="n\n")
    assert held.returncode == 1
    assert "1000000 needed" in held.stderr
    assert shop.json("advance", "plan.yaml", "--yes")["stage"] == "ramp 25"
    shop.until("soaking", 25)
    controller.kill()
    controller.wait(10)
    assert shop.json("rollback", "plan.yaml")["state"] == "rolled_back"
    assert shop.proxy.percent() == 0
    service.well = False
    unwell = shop.run("retry", "plan.yaml")
    assert unwell.returncode == 4
    assert "not well" in unwell.stderr
    assert shop.json("retry", "plan.yaml", "--force")["stage"] == "ramp 25"
    assert "strangler controller" in shop.run("status", "plan.yaml").stdout


def test_watch_over_a_plain_pipe(shop: Shop) -> None:
    shop.background("controller", "controller", "plan.yaml")
    shop.background("stream", "cdc", "run", "plan.yaml")
    shop.json("start", "plan.yaml")
    watch = shop.background("watch", "status", "-w", "--until", "done", "plan.yaml")
    shop.until("done", 100)
    assert watch.wait(20) == 0
    text = (shop.directory / "watch.log").read_text(encoding="utf-8")
    assert "catalog: done" in text
    assert len(text.splitlines()) < 60, "a line only when something changes"


def test_live_check_names_the_line_of_an_unmapped_column(shop: Shop) -> None:
    with psycopg.connect(shop.environment["CATALOG_DATABASE_URL"]) as connection:
        connection.execute("ALTER TABLE item ADD COLUMN must text NOT NULL")
    for command in (("plan", "check", "plan.yaml"), ("start", "plan.yaml")):
        done = shop.run(*command)
        assert done.returncode == 4, done.stderr
        said = done.stdout + done.stderr
        assert "plan.yaml:14" in said
        assert "must is NOT NULL" in said
    assert shop.json("status", "plan.yaml")["state"] == "planned"
    with psycopg.connect(shop.environment["SHOP_CDC_DSN"]) as connection:
        assert connection.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)


def changed(shop: Shop) -> list[str]:
    """What a refused command has left behind; nothing, it is to be hoped."""
    found = []
    for name, query in (
        ("STRANGLER_LEDGER_DSN", "SELECT count(*) FROM pg_namespace WHERE nspname = 'ledger'"),
        ("SHOP_CDC_DSN", "SELECT count(*) FROM pg_publication"),
        ("CATALOG_CDC_DSN", "SELECT count(*) FROM pg_namespace WHERE nspname = 'strangler_cdc'"),
    ):
        with psycopg.connect(shop.environment[name]) as connection:
            row = connection.execute(query.encode()).fetchone()
            found += [name] if row != (0,) else []
    return found


def test_start_with_an_unmapped_column_changes_nothing(shop: Shop) -> None:
    with psycopg.connect(shop.environment["CATALOG_DATABASE_URL"]) as connection:
        connection.execute("ALTER TABLE item ADD COLUMN must text NOT NULL")
    done = shop.run("start", "plan.yaml")
    assert (done.returncode, changed(shop)) == (4, [])


def test_start_with_the_service_down_names_the_line_and_changes_nothing(shop: Shop, service: Service) -> None:
    service.well = False
    done = shop.run("start", "plan.yaml")
    assert done.returncode == 6
    assert "routes.yaml:4:" in done.stderr
    assert "backends.catalog.url" in done.stderr
    assert f"GET {service.url}/ready answers 503" in done.stderr
    assert "start the service" in done.stderr
    assert "nothing was started" in done.stderr
    assert changed(shop) == []
    assert shop.json("start", "plan.yaml", "--skip-check")["state"] == "entering"


def test_start_without_logical_log_names_the_setting_and_changes_nothing(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = EmbeddedPostgres(
        tmp_path_factory.mktemp("replica"), durable=False, settings={"wal_level": "replica"}
    )
    server.start()
    try:
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        shop.environment |= {"SHOP_CDC_DSN": server.dsn(), "SHOP_DATABASE_URL": server.dsn()}
        for command in (("plan", "check", "plan.yaml"), ("start", "plan.yaml")):
            done = shop.run(*command)
            assert done.returncode == 4, done.stderr
            said = done.stdout + done.stderr
            assert "plan.yaml:" in said
            assert "wal_level=replica" in said
            assert "logical" in said
            assert "restart it" in said
        assert changed(shop) == []
    finally:
        server.destroy()
