"""Fakes that ship: a proxy admin port, a change stream, a service to probe, and faults that wrap a world.

`FakeProxyAdmin` is a real HTTP server that speaks the admin port's contract (docs/reference/contracts.md)
over a real routes file; tests/contract holds it and the real proxy to the same expectations.
`FakeChangeStream` and `FakeProber` stand in for databases and service. `KillAfter` ends a turn between any
two steps, as `kill -9` would.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from chassis.problems import InvalidFileError
from migration_plans.drivers.change_stream import (
    PLAIN_WISH,
    ChangeStreamError,
    CompareWish,
    Comparison,
    Progress,
)
from migration_plans.drivers.routes import RoutesFact
from migration_plans.gates import SlotSignal, StreamSignal
from migration_plans.proxy_admin import ProxyStatus, Worker
from strangler_proxy.routes import parse_routes
from strangler_proxy.table import Routes


class FakeProxyAdmin:
    """The admin port of a proxy with `workers` workers that carries no traffic; tests say what it saw.

    Start it with `with`. `good` and `bad` put outcomes into the stream; `url` is where it listens.
    """

    def __init__(self, routes: Path, *, workers: int = 2, port: int = 0) -> None:
        self.routes_path = routes
        self.workers = workers
        self.url = ""
        self.reloads: list[tuple[int, Decimal]] = []
        self._port = port
        self._content = routes.read_bytes()
        self._routes = parse_routes(self._content, str(routes))
        self._applied_ns = time.time_ns()
        self._refused: list[dict[str, Any]] = []
        self._sequence = 0
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fake proxy admin", daemon=True)
        self._thread.start()
        ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(5)
        self._loop.close()

    def percent(self, group: str = "catalog") -> Decimal:
        """The percentage that the workers run."""
        return self._routes.groups[group].percent

    @property
    def listeners(self) -> int:
        """How many clients follow the outcome stream."""
        return len(self._listeners)

    def good(self, arm: str, count: int = 1, *, group: str = "catalog") -> None:
        """`count` good requests at the present percentage."""
        self._batch(group, [{"arm": arm, "ok": count, "percent": float(self.percent(group))}])

    def bad(self, arm: str, *, client: str, error: str = "status", group: str = "catalog") -> int:
        """One failed request of `client` at the present percentage. Returns its `at_ns`."""
        at_ns = time.time_ns()
        item = {
            "arm": arm,
            "error": error,
            "status": 500 if error == "status" else None,
            "client": client,
            "at_ns": at_ns,
            "latency_ms": 3.0,
            "request_id": f"test-{at_ns}",
            "path": "/api/products",
            "percent": float(self.percent(group)),
        }
        self._batch(group, [item])
        return at_ns

    def cut_streams(self) -> None:
        """Break every outcome stream that is open."""
        self._loop.call_soon_threadsafe(self._tell_all, None)

    def _batch(self, group: str, items: list[dict[str, Any]]) -> None:
        self._sequence += 1
        self._send({"type": "batch", "seq": self._sequence, "worker": "0", "group": group, "items": items})

    def _send(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        self._loop.call_soon_threadsafe(self._tell_all, data)

    def _tell_all(self, line: bytes | None) -> None:
        for queue in self._listeners:
            queue.put_nowait(line)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def start() -> None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
            ready.set()

        self._loop.run_until_complete(start())
        self._loop.run_forever()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while head := await _request(reader):
                method, path = head
                if (method, path) == ("GET", "/admin/outcomes/stream"):
                    await self._stream(writer)
                    break
                if (method, path) == ("GET", "/admin/routes"):
                    status, kind, data = HTTPStatus.OK, "text/yaml", self._content
                else:
                    status, body = self._answer(method, path)
                    kind, data = "application/json", json.dumps(body).encode()
                writer.write(
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the client went away, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    def _answer(self, method: str, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        match method, path:
            case "GET", "/admin/status":
                return HTTPStatus.OK, self._status()
            case "POST", "/admin/reload":
                return self._reload()
            case "GET", "/health" | "/ready":
                return HTTPStatus.OK, {"status": "ok"}
        return HTTPStatus.NOT_FOUND, {}

    def _status(self) -> dict[str, Any]:
        routes = self._routes
        error = {"at_ns": time.time_ns(), "problems": self._refused} if self._refused else None
        return {
            "version": routes.version,
            "routes_file": str(self.routes_path),
            "error": error,
            "workers": self._workers(),
            "groups": {
                name: {
                    "backend": group.backend,
                    "owner": group.owner,
                    "percent": float(group.percent),
                    "sticky": str(group.sticky),
                    "fallback": group.fallback,
                }
                for name, group in routes.groups.items()
            },
            "backends": {name: {"url": b.url, "breaker": "closed"} for name, b in routes.backends.items()},
        }

    def _workers(self) -> list[dict[str, Any]]:
        return [
            {
                "id": number,
                "pid": 0,
                "version": self._routes.version,
                "since_ns": self._applied_ns,
                "applied_at_ns": self._applied_ns,
            }
            for number in range(self.workers)
        ]

    def _reload(self) -> tuple[HTTPStatus, dict[str, Any]]:
        try:
            content = self.routes_path.read_bytes()
            fresh: Routes = parse_routes(content, str(self.routes_path))
        except InvalidFileError as error:
            self._refused = [problem.as_dict() for problem in error.problems]
            return HTTPStatus.CONFLICT, {"problems": self._refused}
        self._refused = []
        if fresh.version != self._routes.version:
            self._content, self._routes, self._applied_ns = content, fresh, time.time_ns()
            self.reloads.append((self._applied_ns, self.percent()))
            for number in range(self.workers):
                self._send(
                    {"type": "version", "version": fresh.version, "worker": number, "at_ns": self._applied_ns}
                )
        return HTTPStatus.OK, {"version": self._routes.version, "workers": self._workers()}

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        hello = {
            "type": "hello",
            "at_ns": time.time_ns(),
            "version": self._routes.version,
            "workers": self._workers(),
        }
        queue.put_nowait(json.dumps(hello).encode() + b"\n")
        self._listeners.add(queue)
        try:
            while True:
                try:
                    line = await asyncio.wait_for(queue.get(), 0.25)
                except TimeoutError:
                    line = b'{"type": "heartbeat"}\n'
                if line is None:
                    return
                writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                await writer.drain()
        finally:
            self._listeners.discard(queue)


async def _request(reader: asyncio.StreamReader) -> tuple[str, str] | None:
    """Method and path of the next request; None at the end. Bodies are small and ignored."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *fields = head.split("\r\n")
    length = sum(int(line.split(":")[1]) for line in fields if line.lower().startswith("content-length:"))
    if length:
        await reader.readexactly(length)
    method, path, _ = first.split(" ", 2)
    return method, path


@dataclass(slots=True)
class FakeChangeStream:
    """A change stream that does what the test says. `calls` remembers what was asked of it."""

    now: Callable[[], float] = time.time
    phase: str = "streaming"
    streaming: bool = True
    lag_seconds: float = 0.0
    differing: int = 0
    rows: int = 10
    problem: str = ""
    prepared: bool = False
    slow: bool = False
    parked: int = 0
    retained: int = 0
    calls: list[str] = field(default_factory=list)

    def check(self) -> list[dict[str, Any]]:
        """Nothing to complain about."""
        return []

    def prepare(self) -> None:
        """Remember it."""
        self.calls.append("prepare")
        self.prepared = True

    def signal(self) -> StreamSignal | None:
        """What the fields say, fresh."""
        return StreamSignal(
            self.now(), self.phase, self.streaming, self.lag_seconds, 0, self.problem, parked=self.parked
        )

    def slot(self) -> SlotSignal:
        """What the fields say, fresh."""
        return SlotSignal(self.now(), "fake", exists=True, active=self.streaming, retained=self.retained)

    def compare(
        self,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        *,
        wish: CompareWish = PLAIN_WISH,
    ) -> Comparison:
        """What the fields say. A `slow` one says nothing until it is stopped."""
        self.calls.append("compare")
        if self.slow and stop is not None:
            stop.wait(60)
            raise ChangeStreamError("the comparison was stopped before its end")
        tables = {"product": {"rows": self.rows, "differing": self.differing}}
        return Comparison("0/1", self.rows, self.differing, {"position": "0/1", "tables": tables})

    def close(self) -> None:
        """Nothing is kept."""

    def teardown(self) -> None:
        """Remember it."""
        self.calls.append("teardown")
        self.prepared = False


@dataclass(slots=True)
class FakeProber:
    """A service that is well while `problem` is empty."""

    problem: str = ""
    rounds: int = 0

    def round(self) -> str:
        """What the field says."""
        self.rounds += 1
        return self.problem


@dataclass(slots=True)
class FakeTraffic:
    """Routes file and proxy in memory, for properties that turn thousands of times. `written` keeps every
    percentage.
    """

    percent: Decimal = Decimal(0)
    running: Decimal = Decimal(0)
    workers: int = 2
    applied_ns: int = 1
    written: list[Decimal] = field(default_factory=list)

    def read(self) -> RoutesFact:
        """The routes file."""
        return RoutesFact(
            self.percent, f"v{self.percent}", "http://127.0.0.1:1", "monolith", ("/api/products",)
        )

    def set_percent(self, percent: Decimal) -> str:
        """Write it."""
        self.percent = percent
        self.written.append(percent)
        return f"v{percent}"

    def replace_refused(self, running: bytes) -> str:
        """Never refused."""
        raise NotImplementedError

    def by_hand(self) -> str:
        """Never needed."""
        raise NotImplementedError

    def running_routes(self) -> bytes:
        """Never asked for."""
        raise NotImplementedError

    def status(self) -> ProxyStatus:
        """The proxy."""
        return ProxyStatus(f"v{self.running}", self._workers(), {"catalog": self.running})

    def reload(self) -> tuple[str, tuple[Worker, ...]]:
        """Every worker runs the file."""
        self.running = self.percent
        return f"v{self.running}", self._workers()

    def _workers(self) -> tuple[Worker, ...]:
        return tuple(
            Worker(str(number), 0, f"v{self.running}", self.applied_ns) for number in range(self.workers)
        )


class KilledError(BaseException):
    """Stands for the death of the process: nothing in the toolkit catches it."""


@dataclass(slots=True)
class KillAfter:
    """Wraps any object; its `steps`-th call, counted over everything wrapped, dies before or after it was
    done.
    """

    steps: int
    after: bool = False
    taken: int = 0

    def wrap(self, inner: Any, *methods: str) -> Any:
        """`inner`, whose `methods` may be the last thing this process does."""
        outer = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                attribute = getattr(inner, name)
                if name not in methods:
                    return attribute

                def call(*args: Any, **kwargs: Any) -> Any:
                    outer.taken += 1
                    last = outer.taken == outer.steps
                    if last and not outer.after:
                        raise KilledError
                    result = attribute(*args, **kwargs)
                    if last:
                        raise KilledError
                    return result

                return call

        return Wrapped()
