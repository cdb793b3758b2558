"""A laboratory for the proxy: a data plane on a free port between a raw client and scripted raw servers.

Everything is real sockets in one event loop (uvloop, as in production). A `Backend`'s script is a coroutine
that gets the parsed request and the writer and may do anything to the connection that a real server could.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from chassis.resilience.breaker import BreakerState
from strangler_proxy.identity import ANONYMOUS_COOKIE, CookieSigner
from strangler_proxy.plane import DataPlane
from strangler_proxy.routes import parse_routes
from strangler_proxy.totals import Totals, evidence

SECRET = b"a secret for tests, 32 bytes long"
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], seconds: float = 20) -> T:
    """Run on the loop the proxy runs on; no test takes longer than 20 s."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, seconds))


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in the kernel or another process
            await asyncio.sleep(0.002)


async def until_true(check: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until `check` says yes; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class Message:
    """A request or response as it came over the wire. `raw_body` has its transfer coding removed."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[bytes] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header (lower-case name)."""
        return [value for key, value in self.headers if key.lower() == name]

    def get(self, name: bytes) -> bytes:
        """The only value of a header, or empty."""
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else b""

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.start.split(b" ")[1]

    @property
    def method(self) -> bytes:
        """Of a request."""
        return self.start.split(b" ")[0]


async def read_head(reader: asyncio.StreamReader) -> Message:
    """Start line and headers, by a parser that shares nothing with the proxy's."""
    raw = await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw[:-4].split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip()))
    return Message(start, headers)


async def read_body(message: Message, reader: asyncio.StreamReader, *, until_close: bool) -> bytes:
    """The body as the headers frame it."""
    if message.get(b"transfer-encoding").lower() == b"chunked":
        body = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                    message.trailers.append(line[:-2])
                return body
            body += (await reader.readexactly(size + 2))[:-2]
    if message.get(b"content-length"):
        return await reader.readexactly(int(message.get(b"content-length")))
    return await reader.read() if until_close else b""


async def read_response(reader: asyncio.StreamReader, *, head: bool = False) -> Message:
    """A final response (1xx are skipped)."""
    while True:
        message = await read_head(reader)
        if message.status >= 200:
            break
    if not head and message.status not in (204, 304):
        message.body = await read_body(message, reader, until_close=True)
    return message


Script = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(body: bytes = b"hello", *, status: bytes = b"200 OK", headers: bytes = b"") -> Script:
    """A script: a good answer with a Content-Length."""

    async def script(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = b"" if request.method == b"HEAD" else body
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n" % (status, len(body), headers)
        writer.write(head + content)
        await writer.drain()

    return script


def raw(data: bytes, *, close: bool = False, reset: bool = False) -> Script:
    """A script: exactly these bytes, then perhaps the end of the connection (`reset`: with RST)."""

    async def script(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if reset:
            writer.transport.abort()
        elif close:
            writer.close()

    return script


async def hang(_request: Message, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """A script: no answer, until the proxy gives up."""
    await reader.read()


@dataclass(slots=True)
class Backend:
    """A scripted server. `read_bodies` False leaves the request's body to the script."""

    script: Script
    read_bodies: bool = True
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on a free port, or on the one it had before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self.open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                request = await read_head(reader)
                self.requests.append(request)
                if self.read_bodies:
                    request.body = await read_body(request, reader, until_close=False)
                await self.script(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the proxy closed the connection, or the test is over
        finally:
            self.open.discard(writer)
            self._tasks.discard(task)
            writer.close()


@dataclass(slots=True)
class Client:
    """A client connection that sends raw bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send as it is."""
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, *, head: bool = False) -> Message:
        """The next final response."""
        return await read_response(self.reader, head=head)

    async def get(self, path: str, *headers: str, method: str = "GET") -> Message:
        """A request without a body, and its response."""
        lines = "".join(f"{line}\r\n" for line in headers)
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n".encode())
        return await self.response(head=method == "HEAD")

    def close(self) -> None:
        """Close."""
        self.writer.close()

    def reset(self) -> None:
        """Close with RST: unlike the end of one side, a client that is surely gone."""
        end = self.writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(slots=True)
class Lab:
    """The proxy between `monolith` and `catalog`; everything below /api/ belongs to group `catalog`."""

    plane: DataPlane
    port: int
    monolith: Backend
    catalog: Backend
    urgent: list[bool]
    breakers: list[tuple[str, BreakerState]]

    async def connect(self) -> Client:
        """A new client connection."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def get(self, path: str, *headers: str, method: str = "GET") -> Message:
        """One request on a connection of its own."""
        client = await self.connect()
        try:
            return await client.get(path, *headers, method=method)
        finally:
            client.close()

    def use(self, **changes: object) -> None:
        """Apply other routes."""
        self.plane.apply(parse_routes(routes_text(self.monolith.port, self.catalog.port, **changes), "lab"))

    def items(self, group: str = "catalog") -> list[list[Any]]:
        """Evidence recorded since the last call."""
        told = self.drained()
        return told[group]["items"] if group in told else []

    def drained(self) -> dict[str, dict[str, Any]]:
        """What was recorded since the last call, by group: both arms as the admin port shows them, and `items`, the
        evidence, as lists. Through JSON, as in life."""
        wire = json.loads(json.dumps(self.plane.recorder.drain()))
        if wire is None:
            return {}
        totals, seen = Totals(), evidence(wire)
        totals.add(wire)
        return {
            name: {arm.value: sums.as_json() for arm, sums in arms.items()}
            | {"items": [list(item.values()) for item in seen.get(name, [])]}
            for name, arms in totals.groups.items()
        }


def routes_text(monolith: int, catalog: int, **changes: object) -> bytes:
    """A routes file for the laboratory. `changes`: percent, sticky, owner, fallback, group, backend, more
    (raw YAML)."""
    told: dict[str, object] = {
        "percent": 100,
        "sticky": "user",
        "owner": "monolith",
        "fallback": "true",
        "group": "",
        "backend": "",
        "more": "",
    } | changes
    return f"""\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:{monolith}"}}
  catalog:
    url: http://127.0.0.1:{catalog}
    {told["backend"]}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: [/api, /api/*]
    percent: {told["percent"]}
    owner: {told["owner"]}
    sticky: {told["sticky"]}
    fallback: {told["fallback"]}
    {told["group"]}
{told["more"]}
""".encode()


def anonymous(name: str) -> str:
    """The Cookie header of the anonymous user `name`."""
    signed = CookieSigner(SECRET).sign(ANONYMOUS_COOKIE, name.encode()).decode()
    return f"Cookie: strangler_id={signed}"


@asynccontextmanager
async def lab(
    *,
    monolith: Script | None = None,
    catalog: Script | None = None,
    read_bodies: bool = True,
    **changes: object,
) -> AsyncIterator[Lab]:
    """Set up; leave nothing behind."""
    backends = (
        Backend(monolith or reply(b"monolith"), read_bodies=read_bodies),
        Backend(catalog or reply(b"catalog"), read_bodies=read_bodies),
    )
    for backend in backends:
        await backend.start()
    try:
        routes = parse_routes(routes_text(backends[0].port, backends[1].port, **changes), "lab")
    except BaseException:
        for backend in backends:
            await backend.stop()
        raise
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    listener.setblocking(False)
    port = listener.getsockname()[1]
    urgent: list[bool] = []
    breakers: list[tuple[str, BreakerState]] = []
    plane = DataPlane(
        routes=routes,
        signer=CookieSigner(SECRET),
        loop=asyncio.get_running_loop(),
        on_outcome=urgent.append,
        on_breaker=lambda backend, state: breakers.append((backend, state)),
    )
    await plane.listen(listener)
    try:
        yield Lab(plane, port, *backends, urgent=urgent, breakers=breakers)
    finally:
        await plane.drain(0.0)
        for backend in backends:
            await backend.stop()
        await asyncio.sleep(0)
