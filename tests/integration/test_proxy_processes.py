"""The proxy as it is run: a parent, two workers, a routes file that people and programs edit."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from strangler_proxy.edit import set_percent
from strangler_proxy.fleet import Fleet, make_listeners
from strangler_proxy.hub import Hub
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import (
    SECRET,
    Backend,
    Client,
    Message,
    anonymous,
    hang,
    reply,
    routes_text,
    run,
    until,
    until_true,
)
from workshop.postgres import free_port

TOKEN = "a token for tests, 32 bytes long"


@dataclass(slots=True)
class Proxy:
    """A running proxy and what it needs."""

    process: asyncio.subprocess.Process
    routes: Path
    port: int
    admin: httpx.AsyncClient
    monolith: Backend
    catalog: Backend
    log: list[dict[str, Any]] = field(default_factory=list)

    def write(self, **changes: object) -> str:
        """Edit the file as an editor does, in place; the text."""
        text = routes_text(self.monolith.port, self.catalog.port, **changes)
        self.routes.write_bytes(text)
        return text.decode()

    async def status(self) -> dict[str, Any]:
        """`/admin/status`."""
        answer: dict[str, Any] = (await self.admin.get("/admin/status")).json()
        return answer

    async def outcomes(self) -> dict[str, Any]:
        """Group `catalog` of `/admin/outcomes`."""
        answer: dict[str, Any] = (await self.admin.get("/admin/outcomes")).json()["groups"]["catalog"]
        return answer

    async def until_status(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a status."""
        async with asyncio.timeout(10):
            while True:
                status = await self.status()
                if condition(status):
                    return status
                await asyncio.sleep(0.005)

    async def until_counted(self, requests: int, *, fallbacks: int = 0) -> None:
        """Wait until the parent has counted as many requests and fallbacks: a failed answer counts before the other
        side is asked.
        """

        async def counted() -> bool:
            arms = (await self.outcomes()).values()
            return (
                sum(arm["requests"] for arm in arms) >= requests
                and sum(arm["fallbacks"] for arm in arms) >= fallbacks
            )

        await until_true(counted)

    async def connect(self) -> Client:
        """A new client connection, to whichever worker."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Message:
        """One request on a connection of its own."""
        client = await self.connect()
        try:
            return await client.get(path, *headers, method=method)
        finally:
            client.close()


def command(
    routes: Path, port: int, admin_port: int, *, workers: int = 2, engine: str = "python"
) -> list[str]:
    """How the proxy is started."""
    options = [
        "--routes",
        str(routes),
        "--port",
        str(port),
        "--admin-port",
        str(admin_port),
        "--workers",
        str(workers),
        "--engine",
        engine,
    ]
    return [sys.executable, "-m", "strangler_proxy", *options]


@asynccontextmanager
async def proxy(
    directory: Path, *, workers: int = 2, engine: str = "python", **changes: object
) -> AsyncIterator[Proxy]:
    """Start with two workers (or more), end with SIGTERM (unless it has ended); nothing is left."""
    monolith, catalog = Backend(reply(b"monolith")), Backend(reply(b"catalog"))
    await monolith.start()
    await catalog.start()
    routes = directory / "routes.yaml"
    routes.write_bytes(routes_text(monolith.port, catalog.port, **changes))
    port, admin_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *command(routes, port, admin_port, workers=workers, engine=engine),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"STRANGLER_COOKIE_SECRET": SECRET.decode(), "STRANGLER_ADMIN_TOKEN": TOKEN},
    )
    log: list[dict[str, Any]] = []

    async def read_log() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            log.append(json.loads(line))  # noqa: PERF401  # others read the list while it grows

    reading = asyncio.create_task(read_log())
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin_port}", headers=headers) as admin:
        try:
            await _until_ready(admin)
            yield Proxy(process, routes, port, admin, monolith, catalog, log)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 15)
            await asyncio.wait_for(reading, 5)
            await monolith.stop()
            await catalog.stop()


async def _until_ready(admin: httpx.AsyncClient) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                if (await admin.get("/ready")).status_code == 200:
                    return
            except httpx.ConnectError:
                pass  # not listening yet
            await asyncio.sleep(0.02)


def everywhere(version: str) -> Callable[[dict[str, Any]], bool]:
    """Every worker runs `version`."""

    def condition(status: dict[str, Any]) -> bool:
        return all(worker["version"] == version for worker in status["workers"])

    return condition


async def clients_of_both_workers(it: Proxy) -> list[Client]:
    """Enough connections that the kernel has given some to each worker (all to one: 2 in a billion)."""
    return [await it.connect() for _ in range(30)]


def test_edit_is_live_in_every_worker_within_250_ms(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=0) as it:
            clients = await clients_of_both_workers(it)
            assert {(await client.get("/api/x")).body for client in clients} == {b"monolith"}
            for percent in (100, 0, 100):
                before = time.time_ns()
                version = set_percent(it.routes, {"catalog": Decimal(percent)})
                status = await it.until_status(everywhere(version))
                for worker in status["workers"]:
                    assert worker["applied_at_ns"] - before <= 250_000_000
                assert status["version"] == version
                assert status["groups"]["catalog"]["percent"] == percent
                wanted = b"catalog" if percent else b"monolith"
                assert {(await client.get("/api/x")).body for client in clients} == {wanted}
            for client in clients:
                client.close()

    run(main())


def test_bad_edit_is_refused_whole_named_by_line_and_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=100) as it:
            before = await it.status()
            legal = it.routes.read_bytes()
            text = it.write(percent="101", owner="nobody")
            line = text.splitlines().index("    percent: 101") + 1
            status = await it.until_status(lambda status: status["error"] is not None)
            assert status["version"] == before["version"]
            assert everywhere(before["version"])(status)
            problems = status["error"]["problems"]
            assert [(p["line"], p["field"]) for p in problems] == [
                (line, "groups.catalog.percent"),
                (line + 1, "groups.catalog.owner"),
            ]
            assert all(problem["remedy"] or problem["message"] for problem in problems)
            assert (await it.ask("/api/x")).body == b"catalog"
            refused = await it.admin.post("/admin/reload")
            assert refused.status_code == 409
            assert refused.json()["problems"] == problems
            running = await it.admin.get("/admin/routes")
            assert running.headers["content-type"].startswith("text/yaml")
            assert running.content == legal, "what runs can still be asked for"
            await until(lambda: any(f"{it.routes}:{line}" in entry.get("problem", "") for entry in it.log))
            it.write(percent=0)
            status = await it.until_status(lambda status: status["error"] is None)
            await it.until_status(everywhere(status["version"]))
            assert (await it.admin.get("/admin/routes")).content == it.routes.read_bytes()
            assert (await it.ask("/api/x")).body == b"monolith"

    run(main())


def test_reload_answers_when_every_worker_runs_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=0) as it:
            it.write(percent=12.5)
            answer = (await it.admin.post("/admin/reload")).json()
            assert {worker["version"] for worker in answer["workers"]} == {answer["version"]}
            assert (await it.status())["groups"]["catalog"]["percent"] == 12.5
            assert (await it.admin.get("/admin/reload")).status_code == 405
            assert (await it.admin.get("/nonsense")).status_code == 404
            assert (await it.admin.get("/health")).json() == {"status": "ok"}

    run(main())


def test_percentage_is_honoured_and_every_user_keeps_the_side(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=25) as it:
            clients = await clients_of_both_workers(it)
            sides: dict[int, bytes] = {}
            for number in range(600):
                client = clients[number % len(clients)]
                sides[number] = (await client.get("/api/x", anonymous(f"user-{number}"))).body
            assert abs(Counter(sides.values())[b"catalog"] / 600 - 0.25) < 0.075  # four standard deviations
            for number, side in sides.items():
                client = clients[-1 - number % len(clients)]
                assert (await client.get("/api/x", anonymous(f"user-{number}"))).body == side
            for client in clients:
                client.close()

    run(main())


@asynccontextmanager
async def stream(it: Proxy) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
    """What the outcome stream says, each line with the time (ns) it arrived."""
    lines: list[tuple[int, dict[str, Any]]] = []

    async def follow() -> None:
        async with it.admin.stream("GET", "/admin/outcomes/stream", timeout=None) as response:
            assert response.headers["content-type"] == "application/x-ndjson"
            async for line in response.aiter_lines():
                lines.append((time.time_ns(), json.loads(line)))  # noqa: PERF401  # read while it grows

    task = asyncio.create_task(follow())
    await until(lambda: bool(lines))
    try:
        yield lines
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_stream_is_complete_ordered_and_prompt(tmp_path: Path) -> None:
    """Each user is always on one connection, so on one worker: its outcomes must appear in the order they
    happened."""
    count = 600

    async def script(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = b"500 Oh" if request.target.startswith(b"/api/bad") else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    async def main() -> None:
        more = "breaker: {consecutive: 100000, window: 100000}"
        async with proxy(tmp_path, percent=50, backend=more) as it, stream(it) as lines:
            it.catalog.script = it.monolith.script = script
            hello = lines[0][1]
            assert hello["type"] == "hello"
            assert hello["version"] == (await it.status())["version"]
            assert len(hello["workers"]) == 2
            clients = await clients_of_both_workers(it)
            known: list[int] = []
            for number in range(count):
                client = clients[number % len(clients)]
                bad = number % 7 == 0
                path = f"/api/bad/{number}" if bad else f"/api/good/{number}"
                await client.get(path, anonymous(f"u{number}"))
                known.append(time.time_ns())

            def items() -> list[tuple[int, int, dict[str, Any]]]:
                return [
                    (arrived, event["worker"], item)
                    for arrived, event in lines
                    if event["type"] == "batch"
                    for item in event["items"]
                ]

            await until(lambda: sum(item.get("ok", 1) for _, _, item in items()) == count)
            failures = [(arrived, worker, item) for arrived, worker, item in items() if "error" in item]
            paths = [item["path"] for _, _, item in failures]
            # safe requests whose canary failed were answered by the monolith, which failed too: one item each
            assert sorted(paths) == sorted(f"/api/bad/{number}" for number in range(0, count, 7))
            for worker in (0, 1):
                numbers = [int(item["path"].rsplit("/")[-1]) for _, w, item in failures if w == worker]
                assert numbers == sorted(numbers)
                assert numbers
            for arrived, _, item in failures:
                number = int(item["path"].rsplit("/")[-1])
                assert item["error"] == "status"
                assert item["status"] == 500
                assert item["percent"] == 50
                assert arrived - item["at_ns"] <= 250_000_000
                assert abs(item["at_ns"] - known[number]) <= 250_000_000
                assert item["latency_ms"] > 0
                assert len(item["client"]) == 16
            seqs = [event["seq"] for _, event in lines if event["type"] == "batch"]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            totals = await it.outcomes()
            assert totals["control"]["requests"] + totals["canary"]["requests"] == count
            for arm in ("control", "canary"):
                assert totals[arm]["errors"] == sum(item["arm"] == arm for _, _, item in failures)
                assert totals[arm]["clients"] == totals[arm]["requests"]
                assert sum(totals[arm]["by_status"].values()) == totals[arm]["requests"]
                assert totals[arm]["latency_ms"]["p50"] > 0
            await until(lambda: any(event["type"] == "heartbeat" for _, event in lines))
            version = set_percent(it.routes, {"catalog": Decimal(0)})
            await until(
                lambda: {event["worker"] for _, event in lines if event.get("version") == version} == {0, 1}
            )
            for client in clients:
                client.close()

    run(main())


def test_failing_service_is_no_shoppers_problem(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=25) as it:
            it.catalog.script = reply(status=b"500 Oh")
            statuses = Counter([(await it.ask(f"/api/{n}", anonymous(f"u{n}"))).status for n in range(100)])
            await it.catalog.stop()
            statuses += Counter([(await it.ask(f"/api/{n}", anonymous(f"u{n}"))).status for n in range(100)])
            assert statuses == {200: 200}

            async def all_counted() -> bool:
                canary = (await it.outcomes())["canary"]
                return canary["fallbacks"] == canary["errors"] + canary["breaker_rejections"] > 20

            await until_true(all_counted)
            canary = (await it.outcomes())["canary"]
            assert set(canary["by_error"]) <= {"status", "refused", "reset"}

    run(main())


def test_killed_worker_is_replaced_and_counts_stay(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=50) as it:
            for number in range(60):
                await it.ask("/api/x", anonymous(f"u{number}"))
            await it.until_counted(60)
            victim = (await it.status())["workers"][0]
            os.kill(victim["pid"], signal.SIGKILL)
            # While the worker is away its connections wait in its socket's queue; none is refused or lost.
            answers = await asyncio.gather(*(it.ask("/api/x", anonymous(f"v{n}")) for n in range(60)))
            assert {answer.status for answer in answers} == {200}
            status = await it.until_status(
                lambda status: (
                    status["workers"][0]["pid"] not in {None, victim["pid"]}
                    and status["workers"][0]["version"] is not None
                )
            )
            assert everywhere(status["version"])(status)
            await it.until_counted(120)
            # the replacement follows the file like the one before
            version = set_percent(it.routes, {"catalog": Decimal(100)})
            await it.until_status(everywhere(version))
            assert {(await it.ask("/api/x")).body for _ in range(20)} == {b"catalog"}

    run(main())


def test_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await reply(b"finished")(request, reader, writer)

    async def main() -> None:
        async with proxy(tmp_path) as it:
            it.monolith.script = slow
            idle = await clients_of_both_workers(it)
            running = [asyncio.create_task(it.ask(f"/{number}")) for number in range(10)]
            await until(lambda: len(it.monolith.requests) == 10)
            it.process.send_signal(signal.SIGTERM)
            for client in idle:  # idle connections are closed at once
                assert await client.reader.read() == b""
                client.close()
            with pytest.raises(ConnectionError):
                await it.connect()
            gate.set()
            answers = [await task for task in running]
            assert {answer.body for answer in answers} == {b"finished"}
            assert await asyncio.wait_for(it.process.wait(), 10) == 0

    run(main())


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path) as it:
            it.monolith.script = hang
            waiting = asyncio.create_task(it.ask("/"))
            await until(lambda: len(it.monolith.requests) == 1)
            pids = [worker["pid"] for worker in (await it.status())["workers"]]
            it.process.kill()
            await it.process.wait()
            await until(lambda: not any(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in alive(pids)))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await waiting
            with pytest.raises(ConnectionError):
                await it.connect()

    run(main())


def alive(pids: list[int]) -> list[int]:
    """Those of `pids` that are still there (a zombie has an empty command line)."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_metrics_agree_with_outcomes(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, percent=50) as it:
            for number in range(40):
                await it.ask("/api/x", anonymous(f"u{number}"))
            await it.until_counted(40)
            totals = await it.outcomes()
            text = (await it.admin.get("/metrics")).text
            samples = {
                (sample.name, sample.labels.get("arm"), sample.labels.get("le")): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
            for arm in ("control", "canary"):
                requests = totals[arm]["requests"]
                assert samples[("strangler_requests_total", arm, None)] == requests
                assert samples[("strangler_latency_seconds_count", arm, None)] == requests
                assert samples[("strangler_latency_seconds_bucket", arm, "+Inf")] == requests
            assert samples[("strangler_workers_ready", None, None)] == 2
            assert samples[("strangler_percent", None, None)] == 50

    run(main())


async def refused_start(directory: Path, *, port: int, admin_port: int, secret: str = "") -> tuple[int, str]:
    """Exit code and stderr of a start that must not succeed."""
    process = await asyncio.create_subprocess_exec(
        *command(directory / "routes.yaml", port, admin_port),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"STRANGLER_COOKIE_SECRET": secret},
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode is not None
    return process.returncode, stderr.decode()


@pytest.mark.parametrize("taken", ["port", "admin_port"])
def test_taken_port_is_a_clear_error_and_nothing_starts(tmp_path: Path, taken: str) -> None:
    (tmp_path / "routes.yaml").write_bytes(routes_text(1, 2))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        ports = {"port": free_port(), "admin_port": free_port()} | {taken: number}
        code, stderr = run(refused_start(tmp_path, **ports))
        assert code == 5
        assert f"port {number} is taken" in stderr
        assert "Traceback" not in stderr
        other = ports["admin_port" if taken == "port" else "port"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other))


def test_bad_file_is_refused_at_the_start(tmp_path: Path) -> None:
    text = routes_text(1, 2, percent=101)
    (tmp_path / "routes.yaml").write_bytes(text)
    line = text.splitlines().index(b"    percent: 101") + 1
    code, stderr = run(refused_start(tmp_path, port=free_port(), admin_port=free_port()))
    assert code == 3
    assert f"routes.yaml:{line}: groups.catalog.percent: percent must lie between 0 and 100" in stderr


def test_two_proxies_do_not_share_a_port(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path) as it:
            code, stderr = await refused_start(tmp_path, port=it.port, admin_port=free_port())
            assert code == 5
            assert f"port {it.port} is taken" in stderr

    run(main())


def test_short_secret_is_a_clear_error_that_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_bytes(routes_text(1, 2))
    code, stderr = run(
        refused_start(
            tmp_path, port=free_port(), admin_port=free_port(), secret="hush hush"
        )  # the test's own
    )
    assert code == 2
    assert "STRANGLER_COOKIE_SECRET: has 9 bytes, at least 16 are needed (set it to" in stderr
    assert "hush" not in stderr
    assert "Traceback" not in stderr


def test_port_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_bytes(routes_text(1, 2))
    code, stderr = run(refused_start(tmp_path, port=70_000, admin_port=free_port()))
    assert code == 2
    assert "70000" in stderr
    assert "Traceback" not in stderr


def test_file_its_reader_cannot_take_in_is_refused_and_the_proxy_lives_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path) as it:
            good = it.routes.read_bytes()
            it.routes.write_bytes(b"percent: " + b"1" * 5000)
            status = await it.until_status(lambda status: status["error"] is not None)
            assert "cannot be taken in" in status["error"]["problems"][0]["message"]
            assert (await it.ask("/api/x")).body == b"catalog"
            it.routes.write_bytes(good)
            await it.until_status(lambda status: status["error"] is None)

    run(main())


def test_module_in_the_working_directory_does_not_stand_in_for_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "httptools.py").write_text("raise SystemExit('the wrong module')")

    async def main() -> None:
        listeners = make_listeners("127.0.0.1", 0, 1)
        hub = Hub(hello=dict)
        routes = parse_routes(routes_text(1, 2), "lab")
        fleet = Fleet(listeners=listeners, routes=routes, secret=SECRET, drain_seconds=1.0, hub=hub)
        keeping = asyncio.create_task(fleet.keep(fleet.slots[0]))
        await until(fleet.ready)
        await fleet.stop()
        await keeping

    monkeypatch.chdir(tmp_path)
    run(main())


def test_worker_that_is_being_started_ends_with_the_fleet() -> None:
    async def main() -> None:
        listeners = make_listeners("127.0.0.1", 0, 1)
        routes = parse_routes(routes_text(1, 2), "lab")
        fleet = Fleet(
            listeners=listeners, routes=routes, secret=SECRET, drain_seconds=1.0, hub=Hub(hello=dict)
        )
        keeping = asyncio.create_task(fleet.keep(fleet.slots[0]))
        await asyncio.sleep(0)  # it has begun to start one
        assert fleet.slots[0].process is None
        await fleet.stop()
        await asyncio.wait_for(keeping, 5)

    run(main())


def test_start_that_fails_for_a_while_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.create_subprocess_exec
    failures = [BlockingIOError(11, "Resource temporarily unavailable")] * 2

    async def sometimes(*arguments: Any, **more: Any) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await real(*arguments, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)

    async def main() -> None:
        listeners = make_listeners("127.0.0.1", 0, 1)
        routes = parse_routes(routes_text(1, 2), "lab")
        fleet = Fleet(
            listeners=listeners, routes=routes, secret=SECRET, drain_seconds=1.0, hub=Hub(hello=dict)
        )
        keeping = asyncio.create_task(fleet.keep(fleet.slots[0]))
        await until(fleet.ready)
        await fleet.stop()
        await keeping

    run(main())
