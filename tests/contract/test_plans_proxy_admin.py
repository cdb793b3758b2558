"""The admin port as the controller reads it: the shipped fake and the real proxy meet the same expectations."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from migration_plans import examples
from migration_plans.drivers.routes import RoutesFile
from migration_plans.proxy_admin import (
    TOKEN_VARIABLE,
    Hello,
    ProxyAdmin,
    ProxyUnreachableError,
    ReloadRefusedError,
    Tick,
)
from migration_plans.testing import FakeProxyAdmin
from workshop.postgres import free_port

TOKEN = "a token for tests, 32 bytes long"


@pytest.fixture(params=["fake", "real"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProxyAdmin]:
    examples.write(tmp_path)
    routes = tmp_path / "routes.yaml"
    if request.param == "fake":
        with FakeProxyAdmin(routes) as fake, ProxyAdmin(fake.url) as client:
            yield client
        return
    port, admin_port = free_port(), free_port()
    command = [
        sys.executable, "-m", "strangler_proxy", "--routes", str(routes), "--port", str(port),
        "--admin-port", str(admin_port), "--workers", "2",
    ]  # fmt: skip
    log = (tmp_path / "proxy.log").open("wb")
    environment = os.environ | {TOKEN_VARIABLE: TOKEN}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        with ProxyAdmin(f"http://127.0.0.1:{admin_port}", token=TOKEN) as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    workers = client.status().workers
                    if len(workers) == 2 and all(worker.version for worker in workers):
                        break
                except ProxyUnreachableError:
                    assert process.poll() is None, (tmp_path / "proxy.log").read_text(encoding="utf-8")
                assert time.monotonic() < deadline, (tmp_path / "proxy.log").read_text(encoding="utf-8")
                time.sleep(0.05)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)
        log.close()


@pytest.fixture
def routes(tmp_path: Path) -> RoutesFile:
    return RoutesFile(tmp_path / "routes.yaml", "catalog")


def test_status_names_version_workers_and_percentages(admin: ProxyAdmin, routes: RoutesFile) -> None:
    status = admin.status()
    assert status.version == routes.read().version
    assert {worker.version for worker in status.workers} == {status.version}
    assert all(0 < worker.applied_at_ns <= time.time_ns() for worker in status.workers)
    assert status.percents == {"catalog": Decimal(0)}
    assert status.problems == ()


def test_reload_answers_when_every_worker_runs_the_edit(admin: ProxyAdmin, routes: RoutesFile) -> None:
    before = time.time_ns()
    version = routes.set_percent(Decimal("12.5"))
    answered, workers = admin.reload()
    assert answered == version == routes.read().version
    assert {worker.version for worker in workers} == {version}
    assert all(worker.applied_at_ns > before for worker in workers)
    assert admin.status().percents == {"catalog": Decimal("12.5")}


def test_refused_edit_is_named_and_changes_nothing(admin: ProxyAdmin, routes: RoutesFile) -> None:
    before = admin.status().version
    assert admin.running_routes() == examples.ROUTES.encode()
    routes.path.write_text(examples.ROUTES.replace("percent: 0", "percent: 101"), encoding="utf-8")
    with pytest.raises(ReloadRefusedError) as refused:
        admin.reload()
    (problem,) = refused.value.problems
    assert problem["line"] == 10
    assert "101" in str(refused.value)
    status = admin.status()
    assert {worker.version for worker in status.workers} == {before}
    assert status.problems[0]["line"] == 10
    assert admin.running_routes() == examples.ROUTES.encode(), "what runs, not what is refused"


def test_stream_says_hello_then_never_falls_silent(admin: ProxyAdmin) -> None:
    async def first_lines() -> list[object]:
        lines: list[object] = []
        async with asyncio.timeout(5):
            async for line in admin.stream():
                lines.append(line)
                if len(lines) == 3:
                    break
        return lines

    hello, *rest = asyncio.run(first_lines())
    assert hello == Hello(admin.status().version)
    assert all(isinstance(line, Tick) for line in rest)


def test_nobody_there_says_what_to_start() -> None:
    lost = ProxyAdmin(f"http://127.0.0.1:{free_port()}")
    with lost, pytest.raises(ProxyUnreachableError, match="STRANGLER_PROXY_ADMIN"):
        lost.status()
