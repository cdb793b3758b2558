"""A client's bytes through the real data path to a backend that is only a transport: no socket, no waiting.

`check(data)` feeds `data` to the proxy in one piece and byte by byte, answers whatever arrives at the backend,
and holds the laws:

* what goes upstream is HTTP by another parser's word (h11), with one Host, one frame, nothing hop-by-hop and
  nothing internal;
* the proxy sends no more requests than were answered, plus one that is still being sent;
* how the bytes were cut changes nothing: in one piece the strict recogniser of whole heads may serve what
  byte by byte only llhttp sees, so this also holds the two to one meaning.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h11

from strangler_proxy.downstream import ClientConnection
from strangler_proxy.identity import CookieSigner
from strangler_proxy.plane import DataPlane
from strangler_proxy.routes import parse_routes
from strangler_proxy.table import Routes
from strangler_proxy.upstream import UpstreamConnection

_ROUTES = b"""\
version: 1
backends: {monolith: {url: "http://127.0.0.1:1"}, catalog: {url: "http://127.0.0.1:2"}}
default: monolith
groups: {catalog: {backend: catalog, paths: [/api/*], percent: 50, overrides: {header: X-Strangler-Side}}}
"""
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Strangler-User: 7\r\n\r\n"
_MADE_ID = re.compile(rb"[0-9a-f]{20}-[0-9a-f]+")  # another one in each run; two runs are compared
_NEVER_PASSED = {b"keep-alive", b"proxy-connection", b"proxy-authorization"}


@dataclass(frozen=True, slots=True)
class Passed:
    """One request as it went upstream; Host stands first and is spelt so, however it came."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    whole: bool


class WireTransport(asyncio.Transport):
    """Keeps what is written; a peer that takes everything at once."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class WireLoop(asyncio.SelectorEventLoop):
    """Opens connections at once, to nowhere. Nothing of the data path is replaced: it may be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[tuple[UpstreamConnection, WireTransport]] = []

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        protocol, transport = protocol_factory(), WireTransport()
        protocol.connection_made(transport)
        self.connections.append((protocol, transport))
        return transport, protocol

    def settle(self) -> None:
        """Let what was begun come to rest: opening a connection is the only thing that is a task."""
        while tasks := asyncio.all_tasks(self):
            self.run_until_complete(asyncio.wait(tasks))


@dataclass
class Wire:
    """A data plane for each run, on an event loop that runs only to open connections."""

    loop: WireLoop = field(default_factory=WireLoop)
    routes: Routes = field(default_factory=lambda: parse_routes(_ROUTES, "wire"))

    def close(self) -> None:
        """Leave nothing behind."""
        self.loop.close()

    def passed(self, pieces: list[bytes]) -> list[Passed]:
        """What goes upstream when a client sends `pieces`; holds the laws that one run can break."""
        self.loop.connections.clear()
        plane = DataPlane(
            routes=self.routes,
            signer=CookieSigner(b"a secret for tests, 32 bytes long"),
            loop=self.loop,
            on_outcome=lambda _urgent: None,
            on_breaker=lambda _backend, _state: None,
        )
        client = WireTransport()
        connection = ClientConnection(plane)
        connection.connection_made(client)
        answered = 0
        for piece in pieces:
            if client.closed:
                break
            connection.data_received(piece)
            answered += self._answer()
        connection.connection_lost(None)
        assert not plane.active
        self.loop.run_until_complete(plane.drain(0.0))
        assert not client.written or client.written.startswith(b"HTTP/1.1 ")
        passed = [
            request
            for _, transport in self.loop.connections
            for request in read_requests(bytes(transport.written))
        ]
        assert len(passed) - answered in (0, 1), (len(passed), answered)
        for request in passed:
            check_one(request)
        return passed

    def _answer(self) -> int:
        """Answer every whole request that waits, until nothing new comes of it."""
        answered = 0
        while True:
            self.loop.settle()
            waiting = [
                (connection, transport)
                for connection, transport in self.loop.connections
                if not transport.closed and self._awaits(connection)
            ]
            if not waiting:
                return answered
            for connection, transport in waiting:
                head = last_method(bytes(transport.written)) == b"HEAD"
                connection.data_received(_ANSWER if head else _ANSWER + b"ok")
                answered += 1

    @staticmethod
    def _awaits(connection: UpstreamConnection) -> bool:
        exchange = connection._exchange
        return exchange is not None and exchange.request_complete


def read_requests(data: bytes) -> Iterator[Passed]:
    """The requests in `data`. Fails when h11 does not take them for HTTP."""
    while data:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        parser.receive_data(data)
        head = parser.next_event()
        assert isinstance(head, h11.Request), f"half a head went upstream: {data[:200]!r}"
        body, whole = b"", False
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                whole = isinstance(event, h11.EndOfMessage)
                break
        items = [
            (b"Host" if name.lower() == b"host" else name, _MADE_ID.sub(b"id", value))
            for name, value in head.headers.raw_items()
        ]
        headers = sorted(items, key=lambda item: item[0] != b"Host")
        yield Passed(head.method, head.target, tuple(headers), body, whole)
        if not whole:
            return
        data = parser.trailing_data[0]


def last_method(data: bytes) -> bytes:
    """The method of the last request in `data`."""
    return [request.method for request in read_requests(data)][-1]


def check_one(request: Passed) -> None:
    """The laws of one request."""
    names = [name.lower() for name, _ in request.headers]
    assert names.count(b"host") == 1, request
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, request
    assert not _NEVER_PASSED.intersection(names), request
    internal = [name for name in names if name.replace(b"_", b"-").startswith(b"x-strangler-")]
    assert set(internal) <= {b"x-strangler-side"}, request
    assert names.count(b"x-request-id") == 1, request
    assert names.count(b"x-forwarded-for") == 1, request


def check(wire: Wire, data: bytes) -> None:
    """Hold every law for `data`."""
    at_once = wire.passed([data])
    byte_by_byte = wire.passed([data[place : place + 1] for place in range(len(data))])
    # In one piece a fault further on is known earlier: the request before it may then not be begun.
    shorter, longer = sorted((at_once, byte_by_byte), key=len)
    whole = [request for request in shorter if request.whole]
    assert whole == [request for request in longer if request.whole][: len(whole)], (at_once, byte_by_byte)
    assert len(longer) - len(shorter) <= 1, (at_once, byte_by_byte)
