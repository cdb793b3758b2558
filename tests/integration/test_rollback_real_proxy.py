"""The promise end to end: real proxy (either engine), backends, controller, ledger; the service breaks in a stage.

Rolled back after at most three canary requests since it broke, percentage 0 in every worker within 250 ms of the
deciding response, and no shopper saw a failure.
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from migration_plans import examples
from migration_plans.actions import World
from migration_plans.controller import Controller, Pace
from migration_plans.drivers.probe import HttpProber
from migration_plans.drivers.routes import RoutesFile
from migration_plans.ledger import Ledger
from migration_plans.plan import load_plan
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin, ProxyUnreachableError
from migration_plans.record import Record, after, begin
from migration_plans.stages import Event, State
from migration_plans.testing import FakeChangeStream
from workshop.postgres import free_port

pytestmark = pytest.mark.anyio

TOKEN = "a token for tests, 32 bytes long"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Backend:
    """A keep-alive HTTP server that answers 200, or 500 while `broken`."""

    def __init__(self) -> None:
        self.broken = False
        self.url = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Backend":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                status = b"500 Internal Server Error" if self.broken else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self._open.discard(writer)


@asynccontextmanager
async def proxy(routes: Path, log: Path, engine: str) -> AsyncIterator[tuple[str, ProxyAdmin]]:
    port, admin_port = free_port(), free_port()
    with log.open("wb") as sink, ProxyAdmin(f"http://127.0.0.1:{admin_port}", token=TOKEN) as admin:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "strangler_proxy", "--routes", str(routes), "--port", str(port),
            "--admin-port", str(admin_port), "--workers", "2", "--engine", engine, stdout=sink, stderr=sink,
            env=os.environ | {TOKEN_VARIABLE: TOKEN},
        )  # fmt: skip
        try:
            await until(lambda: ready(admin, 2 if engine == "python" else 1), log)
            yield f"http://127.0.0.1:{port}", admin
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 15)


def ready(admin: ProxyAdmin, expected: int) -> bool:
    try:
        workers = admin.status().workers
    except ProxyUnreachableError:
        return False
    return len(workers) == expected and all(worker.version for worker in workers)


async def until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(await asyncio.to_thread(log.read_text, encoding="utf-8"))
        await asyncio.sleep(0.02)


async def shop(url: str, statuses: list[int], stop: asyncio.Event) -> None:
    """Shoppers 0 to 199 in turn, five at a time, until `stop`."""
    shoppers = itertools.cycle(range(200))

    async def one(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await client.get("/api/products", headers={"X-User": f"shopper {next(shoppers)}"})
            statuses.append(answer.status_code)
            await asyncio.sleep(0.02)

    async with httpx.AsyncClient(base_url=url) as client, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(one(client))


@pytest.mark.parametrize("engine", ["python", "envoy"])
async def test_fault_in_the_middle_of_a_stage(tmp_path: Path, database: str, engine: str) -> None:
    log = tmp_path / "proxy.log"
    async with Backend() as monolith, Backend() as service:
        routes = examples.ROUTES.replace("http://127.0.0.1:8001", monolith.url)
        routes = routes.replace("http://127.0.0.1:8101", service.url).replace(
            "sticky: user", "sticky: header:X-User"
        )
        text = examples.PLAN + "rollback: {retry: {auto: true, after: 500ms, probes: 2}}\n"
        plan = load_plan(examples.write(tmp_path, plan=text, routes=routes), settings=["gates.soak=700ms"])
        async with proxy(plan.routes, log, engine) as (url, admin):
            with Ledger(database) as ledger, Ledger(database) as side:
                ledger.install()
                stages = [planned.stage for planned in plan.stages]
                fresh = begin(plan.name, stages=stages, percent=Decimal(0), digest="", now=time.time())
                ledger.append(
                    after(fresh, Event.START, stages=stages, now=time.time()), event="start", actor="test"
                )
                controller = Controller(
                    plan=plan,
                    ledger=ledger,
                    side_ledger=side,
                    world=World(
                        RoutesFile(plan.routes, plan.group),
                        admin,
                        FakeChangeStream(),
                        HttpProber(service.url, ["/api/products"]),
                    ),
                    outcomes=admin,
                    pace=Pace(turn=0.1, stream=0.1, probe=0.1),
                )

                def record() -> Record:
                    found = ledger.read(plan.name)
                    assert found is not None
                    return found

                def soaked() -> bool:
                    seen, canary = record(), controller.monitor.canary()
                    there = seen.stage_name == "ramp 25" and seen.state is State.SOAKING
                    return there and canary is not None and canary.requests >= 5

                stop, statuses = asyncio.Event(), list[int]()
                async with asyncio.TaskGroup() as group:
                    group.create_task(controller.run(stop))
                    group.create_task(shop(url, statuses, stop))
                    await until(soaked, log)
                    service.broken = True
                    await until(lambda: record().state is State.ROLLED_BACK, log)
                    service.broken = False
                    await until(lambda: record().state is State.DONE, log)
                    stop.set()
                history = ledger.history(plan.name)
    assert set(statuses) == {200}, "a failing service is not the shopper's problem"
    tripped = next(entry for entry in history if entry.event == "tripped")
    at_zero = next(entry for entry in history if entry.event == "at_zero")
    assert tripped.stage == "ramp 25"
    # an answer that was under way when the service broke may arrive among the failures; it is no failure
    assert tripped.detail["verdict"]["canary"]["failures_to_detect"] <= 3
    assert at_zero.detail["actuation_ms"] <= 250
    assert at_zero.detail["workers"] == (2 if engine == "python" else 1)
    assert [entry.event for entry in history].count("retry") == 1
