"""The admin port: state, outcomes, reload, metrics, health. Small, and off the data path.

HTTP/1.1 on asyncio's streams and httptools' parser, one request at a time; pipelined ones wait for their
turn. A handler gives a `Reply`, or an iterator of lines for a stream; one that takes a body is wrapped in
`WithBody` (at most 64 KiB; other bodies are read off and ignored).

Who may do what (`Guard`):

* a request that could change something (any method but GET, HEAD and OPTIONS) needs `Authorization: Bearer`
  and the token; without a token configured there are none;
* a page in a browser on this machine cannot use the port: a request with an `Origin` that could change
  something is refused, and on a loopback address so is a `Host` that is neither an address nor `localhost`
  (DNS rebinding gives a stranger's name our address).
"""

import asyncio
import hmac
import ipaddress
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import structlog

_MAX_HEAD = 16_384
_MAX_BODY = 65_536
_SAFE = ("GET", "HEAD", "OPTIONS")
_REQUEST_SECONDS = 30.0
_SEND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LineStream:
    """An endless answer of NDJSON lines."""

    lines: AsyncIterator[bytes]


def json_reply(value: Any, status: int = 200) -> Reply:
    """`value` as JSON."""
    return Reply(status, json.dumps(value).encode() + b"\n")


Handler = Callable[[], Awaitable[Reply | LineStream]]


@dataclass(frozen=True, slots=True)
class WithBody:
    """A handler that is given the request's body."""

    handler: Callable[[bytes], Awaitable[Reply]]


Routing = Mapping[tuple[str, str], Handler | WithBody]


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may do what on the port. `token` empty: nothing that could change something is allowed.
    `loopback`: the port listens on this machine's own address."""

    token: bytes = field(repr=False)
    loopback: bool

    def refuses(self, request: "Asked") -> Reply | None:
        """The answer to a request that is not allowed."""
        if self.loopback and not _own_name(request.header(b"host")):
            return json_reply({"error": "this port answers to its address and to localhost only"}, 403)
        if request.method in _SAFE:
            return None
        if request.header(b"origin"):
            return json_reply({"error": "pages in a browser may not change anything here"}, 403)
        if not self.token:
            fault = "nothing can be changed here: start the proxy with STRANGLER_ADMIN_TOKEN set"
            return json_reply({"error": fault}, 403)
        scheme, _, given = request.header(b"authorization").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token):
            return None
        fault = f"{request.method} needs the header Authorization: Bearer and the admin token"
        return Reply(401, json_reply({"error": fault}).body, headers=(("WWW-Authenticate", "Bearer"),))


def _own_name(host: bytes) -> bool:
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
    if not name or name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(slots=True)
class Asked:
    """One request of a connection."""

    method: str = ""
    path: str = ""
    target: bytes = b""
    keep: bool = False
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def header(self, name: bytes) -> bytes:
        """The value of the first header `name` (lower case), or empty."""
        return next((value for key, value in self.headers if key.lower() == name), b"")


class _Reading:
    """httptools' callbacks for a connection: whole requests in `ready`, in the order they came."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.ready: deque[Asked] = deque()
        self.size = 0  # bytes since the last whole request
        self._asked = Asked()

    def on_message_begin(self) -> None:
        self._asked = Asked()

    def on_url(self, target: bytes) -> None:
        self._asked.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self._asked.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._asked.body += data

    def on_message_complete(self) -> None:
        asked = self._asked
        asked.method = self.parser.get_method().decode("ascii")
        asked.path = asked.target.partition(b"?")[0].decode("latin-1")
        closes = b"close" in asked.header(b"connection").lower()
        asked.keep = self.parser.get_http_version() == "1.1" and not closes
        self.ready.append(asked)
        self.size = 0


class AdminServer:
    """Serves `routing` ((method, path) → handler) to whom `guard` allows it."""

    def __init__(self, routing: Routing, guard: Guard) -> None:
        self._routing = routing
        self._guard = guard
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for `asyncio.start_server`."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            reading = _Reading()
            while await self._serve_one(reading, reader, writer):
                pass
        except (ConnectionError, TimeoutError):
            # The client went away, or says or takes nothing: close() would wait for it to take the rest.
            writer.transport.abort()
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=1.0)

    async def _serve_one(
        self, reading: _Reading, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        while not reading.ready:
            data = await asyncio.wait_for(reader.read(_MAX_HEAD), _REQUEST_SECONDS)
            if not data:
                return False
            reading.size += len(data)
            try:
                reading.parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                await _write(writer, json_reply({"error": "not a request this port serves"}, 400), keep=False)
                return False
            if reading.size > _MAX_HEAD + _MAX_BODY:
                await _write(writer, json_reply({"error": "the request is too large"}, 413), keep=False)
                return False
        asked = reading.ready.popleft()
        result = self._guard.refuses(asked) or await self._handle(asked)
        if isinstance(result, LineStream):
            await _stream(reader, writer, result)
            return False
        await _write(writer, result, keep=asked.keep, body=asked.method != "HEAD")
        return asked.keep

    async def _handle(self, asked: Asked) -> Reply | LineStream:
        path = asked.path
        handler = self._routing.get(("GET" if asked.method == "HEAD" else asked.method, path))
        if handler is None:
            allowed = sorted(known for known, where in self._routing if where == path)
            if allowed:
                return json_reply({"error": f"{path} takes {', '.join(allowed)}"}, 405)
            known = sorted({where for _, where in self._routing})
            return json_reply({"error": f"no such path {path}", "paths": known}, 404)
        try:
            if isinstance(handler, WithBody):
                return await handler.handler(asked.body)
            return await handler()
        except Exception:
            structlog.get_logger().exception("admin request failed", path=path)
            return json_reply({"error": "internal error, see the proxy's log"}, 500)


async def _write(writer: asyncio.StreamWriter, reply: Reply, *, keep: bool, body: bool = True) -> None:
    phrase = HTTPStatus(reply.status).phrase
    head = (
        f"HTTP/1.1 {reply.status} {phrase}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\n"
        f"{''.join(f'{name}: {value}' + chr(13) + chr(10) for name, value in reply.headers)}"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    ).encode("ascii")
    await _send(writer, head + reply.body if body else head)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait until the client has room for more. Raises TimeoutError when it makes none."""
    writer.write(data)
    async with asyncio.timeout(_SEND_SECONDS):
        await writer.drain()


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: LineStream) -> None:
    """Send lines until they end or the client leaves (which shows as the end of what it sends)."""
    await _send(
        writer,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    )
    left = asyncio.ensure_future(reader.read(1))
    try:
        async for line in stream.lines:
            if left.done():
                return
            await _send(writer, b"%x\r\n%b\r\n" % (len(line), line))
        await _send(writer, b"0\r\n\r\n")
    finally:
        left.cancel()
        aclose = getattr(stream.lines, "aclose", None)
        if aclose is not None:
            await aclose()
