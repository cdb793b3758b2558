"""The admin port: state, outcomes, reload, metrics, health. Small, and off the data path.

HTTP/1.1 with one request a connection at a time on asyncio's streams and httptools' parser. Bodies are
neither wanted nor read. The routes table is `AdminHandlers.routes`; a handler gives a `Reply`, or an
iterator of lines for a stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import structlog

_MAX_HEAD = 16_384
_REQUEST_SECONDS = 30.0
_SEND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class LineStream:
    """An endless answer of NDJSON lines."""

    lines: AsyncIterator[bytes]


def json_reply(value: Any, status: int = 200) -> Reply:
    """`value` as JSON."""
    return Reply(status, json.dumps(value).encode() + b"\n")


Handler = Callable[[], Awaitable[Reply | LineStream]]
Routing = Mapping[tuple[str, str], Handler]


@dataclass(slots=True)
class _Parsed:
    """httptools' callbacks for one request."""

    target: bytes = b""
    complete: bool = False
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.complete = True


class AdminServer:
    """Serves `routing` ((method, path) → handler)."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for `asyncio.start_server`."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
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

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        size = 0
        while not parsed.complete:
            data = await asyncio.wait_for(reader.read(_MAX_HEAD), _REQUEST_SECONDS)
            size += len(data)
            if not data:
                return False
            try:
                parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                size = _MAX_HEAD + 1
            if size > _MAX_HEAD:
                await _write(writer, json_reply({"error": "not a request this port serves"}, 400), keep=False)
                return False
        method = parser.get_method().decode("ascii")
        path = parsed.target.partition(b"?")[0].decode("latin-1")
        keep = parser.get_http_version() == "1.1" and not any(
            name.lower() == b"connection" and b"close" in value.lower() for name, value in parsed.headers
        )
        result = await self._handle(method, path)
        if isinstance(result, LineStream):
            await _stream(reader, writer, result)
            return False
        await _write(writer, result, keep=keep, body=method != "HEAD")
        return keep

    async def _handle(self, method: str, path: str) -> Reply | LineStream:
        handler = self._routing.get(("GET" if method == "HEAD" else method, path))
        if handler is None:
            allowed = sorted(known for known, where in self._routing if where == path)
            if allowed:
                return json_reply({"error": f"{path} takes {', '.join(allowed)}"}, 405)
            known = sorted({where for _, where in self._routing})
            return json_reply({"error": f"no such path {path}", "paths": known}, 404)
        try:
            return await handler()
        except Exception:
            structlog.get_logger().exception("admin request failed", path=path)
            return json_reply({"error": "internal error, see the proxy's log"}, 500)


async def _write(writer: asyncio.StreamWriter, reply: Reply, *, keep: bool, body: bool = True) -> None:
    phrase = HTTPStatus(reply.status).phrase
    head = (
        f"HTTP/1.1 {reply.status} {phrase}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\n"
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
