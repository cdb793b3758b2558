"""Connections to a backend: an HTTP/1.1 client on raw protocols, and a keep-alive pool.

A `Pool` hands an idle connection out at once or calls back when one is there; nothing on the way of a
request is a task except opening a connection. What keeps one user's bytes out of another's answer:

* a connection goes back to the pool only after a whole request and a whole answer, with no byte beyond it;
* an idle connection that receives anything is closed;
* after a HEAD answer that announces a body the connection is closed: a backend that sends the body anyway,
  in a later packet, could not be told from one that answers the next request;
* an answer of 204 with a body announced, both lengths at once, or an unknown transfer coding is no HTTP:
  closed.
"""

import asyncio
import ssl
from collections import deque
from typing import Protocol, cast

import httptools

from strangler_proxy.headers import RawHeaders, ResponseHead, read_response
from strangler_proxy.outcomes import Failure
from strangler_proxy.recognise import recognise_response
from strangler_proxy.table import Backend
from strangler_proxy.tls import client_context
from strangler_proxy.trailers import LONGEST, MOST

_MAX_HEAD = 65_536
_MAX_DISCARD = 65_536
_FRESH_SECONDS = 1.0


class Exchange(Protocol):
    """Whoever waits for a connection and then for the answer on it."""

    request_complete: bool

    def upstream_ready(self, connection: "UpstreamConnection") -> None:
        """The connection is yours."""

    def upstream_unavailable(self, failure: Failure) -> None:
        """There will be no connection."""

    def interim_response(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """A 1xx answer, but for 101."""

    def upstream_switched(self, reason: bytes, head: ResponseHead, rest: bytes) -> None:
        """101: the protocol asked for is spoken from here on, beginning with `rest`. The connection stays
        yours: `detach` it."""

    def response_head(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """Status and headers are there."""

    def response_body(self, data: bytes) -> None:
        """A piece of the body, without transfer coding."""

    def response_flush(self) -> None:
        """Everything that was received at once has been handed over: write it out now."""

    def response_end(self, trailers: RawHeaders = ()) -> None:
        """The answer is whole, `trailers` came after it; the connection is no longer yours."""

    def upstream_failed(self, failure: Failure, *, first_byte: bool, reused: bool) -> None:
        """The connection broke: after the answer's first byte or before, on a reused connection or a new
        one."""

    def upstream_blocked(self, *, blocked: bool) -> None:
        """The backend does not (or does again) take in the request as fast as it comes."""


class UpstreamConnection:
    """One connection to a backend, serving one exchange at a time. An `asyncio.Protocol` by its methods: a
    compiled class has no base that is not compiled, and loops ask for methods only."""

    __slots__ = (
        "_close_after",
        "_complete",
        "_discard",
        "_exchange",
        "_got_byte",
        "_head_done",
        "_head_fed",
        "_head_request",
        "_headers",
        "_interim",
        "_keep",
        "_parser",
        "_paused",
        "_pool",
        "_reason",
        "_remaining",
        "_surplus",
        "_switched",
        "_trailers",
        "_until_close",
        "_upgrade",
        "_whole",
        "broken",
        "idle_since",
        "reused",
        "transport",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._exchange: Exchange | None = None
        self.transport: asyncio.Transport
        self.reused = False
        self.idle_since = 0.0
        self.broken = False
        self._paused = False
        self._discard = 0
        self._parser = httptools.HttpResponseParser(self)
        self._begin_response(head_request=False, whole=False, upgrade=b"")

    def _begin_response(self, *, head_request: bool, whole: bool, upgrade: bytes) -> None:
        self._head_request = head_request
        self._whole = whole and not head_request
        self._upgrade = upgrade
        self._switched: tuple[ResponseHead, bytes] | None = None  # 101, and what followed its head
        self._remaining = 0  # bytes of the body to come after a recognised head
        self._headers: list[tuple[bytes, bytes]] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._interim = False
        self._head_done = False
        self._head_fed = 0
        self._complete = False
        self._surplus = False
        self._got_byte = False
        self._keep = False
        self._close_after = False
        self._until_close = False

    # For the exchange that holds the connection

    def begin(
        self, exchange: Exchange, *, head_request: bool, whole: bool = False, upgrade: bytes = b""
    ) -> None:
        """Take the connection for one request; then `write` it. `whole`: the answer's head may come in one
        piece, without `raw` and `lines`. `upgrade` is the protocol that the request asks for."""
        self._exchange = exchange
        self._begin_response(head_request=head_request, whole=whole, upgrade=upgrade)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        self.transport.write(data)

    def pause(self) -> None:
        """The client does not take the answer as fast as it comes."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once; the exchange hears nothing more."""
        self._exchange = None
        self._pool.forget(self)
        self.transport.abort()

    def abandon(self) -> None:
        """The rest of this answer is of no interest: read it off if it is short, then reuse the
        connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is None or not exchange.request_complete or self._until_close:
            self._pool.forget(self)
            self.transport.abort()
            return
        self.resume()
        self._discard = _MAX_DISCARD
        self._pool.discarding.add(self)

    def detach(self) -> asyncio.Transport:
        """The transport, for another protocol; the pool counts it until `forget`."""
        self.resume()
        self._exchange = None
        return self.transport

    def forget(self) -> None:
        """A detached connection is closed."""
        self._pool.forget(self)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's transport is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        exchange = self._exchange
        if exchange is None and not self._discard:
            self._pool.forget(self)
            self.transport.abort()
            return
        try:
            if self._remaining:
                self._count_body(data)
            elif self._got_byte or not self._whole or not self._recognise(data):
                self._parse(data)
        except BaseException:
            self._fail(Failure.PROTOCOL)  # a fault of ours: the exchange ends, and the loop reports it
            raise
        if self._exchange is None:
            self._discarded(len(data))
        elif self.broken:
            self._fail(Failure.PROTOCOL)
        elif self._switched is not None:
            head, rest = self._switched
            self._exchange.upstream_switched(self._reason, head, rest)
        else:
            self._exchange.response_flush()
            if self._complete:
                self._finish()

    def _recognise(self, data: bytes) -> bool:
        """Take an everyday head, and what of its body came with it; False leaves it to the parser, which has
        seen nothing of this answer yet."""
        found = recognise_response(data)
        if found is None:
            return False
        assert self._exchange is not None
        assert found.head.length is not None
        self._got_byte = self._head_done = self._keep = True
        self._remaining = found.head.length
        self._exchange.response_head(found.status, b"", found.head)
        if len(data) > found.body or not self._remaining:
            self._count_body(data[found.body :])
        return True

    def _count_body(self, data: bytes) -> None:
        """A piece of a body of known length."""
        if len(data) > self._remaining:
            self._surplus = True
            data = data[: self._remaining]
        self._remaining -= len(data)
        self._complete = not self._remaining
        if self._exchange is not None and data:
            self._exchange.response_body(data)

    def _parse(self, data: bytes) -> None:
        self._got_byte = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._switched is None:
                self.broken = True
            else:
                self._switched = self._switched[0], data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            if self._complete:
                self._surplus = True
            else:
                self.broken = True
        if not self._head_done and self._switched is None:
            self._head_fed += len(data)
            self.broken |= self._head_fed > _MAX_HEAD

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._pool.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exc is None and self._head_done and self._until_close:
            exchange.response_end()
        else:
            exchange.upstream_failed(Failure.RESET, first_byte=self._got_byte, reused=self.reused)

    def pause_writing(self) -> None:
        """Called by the loop."""
        if self._exchange is not None:
            self._exchange.upstream_blocked(blocked=True)

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._exchange is not None:
            self._exchange.upstream_blocked(blocked=False)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:
            self._surplus = True

    def on_status(self, reason: bytes) -> None:
        """Called by the parser."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too."""
        if not self._head_done:
            self._headers.append((name, value))
        elif len(self._trailers) > MOST or len(value) > LONGEST:
            self.broken = True
        else:
            self._trailers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._surplus or self._complete:
            self._surplus = True
            return
        status = self._parser.get_status_code()
        head = read_response(self._headers)
        exchange = self._exchange
        if status < 200:
            self._interim = True
            if status == 101:
                if not self._upgrade or head.upgrade.lower() != self._upgrade:
                    self.broken = True  # nobody has asked for that
                else:
                    self._switched = head, b""
            elif exchange is not None:
                exchange.interim_response(status, self._reason, head)
            return
        self._head_done = True
        announces_body = bool(head.length) or head.chunked
        no_body = self._head_request or status in (204, 304)
        if head.foreign_coding or (status == 204 and announces_body):
            self.broken = True
            return
        self._until_close = not no_body and head.length is None and not head.chunked
        self._close_after = head.close or (self._head_request and announces_body)
        if exchange is not None:
            exchange.response_head(status, self._reason, head)
        if self._head_request:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._complete:
            self._surplus = True
        elif self._exchange is not None:
            self._exchange.response_body(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._interim:
            self._interim = False
            self._headers = []
            self._reason = b""
        elif self._head_done and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # Endings

    def _reusable(self, *, request_complete: bool) -> bool:
        # Unsent bytes: the backend answered without having read the request to its end.
        whole = request_complete and not self.transport.get_write_buffer_size()
        return self._keep and whole and not (self._surplus or self._close_after or self.broken)

    def _finish(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self.resume()
        if self._reusable(request_complete=exchange.request_complete) and not self.transport.is_closing():
            self._pool.release(self)
        else:
            self._pool.forget(self)
            self.transport.abort()  # close() would wait for ever for a backend to take unsent bytes
        exchange.response_end(self._trailers)

    def _fail(self, failure: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        self._pool.forget(self)
        self.transport.abort()
        if exchange is not None:
            exchange.upstream_failed(failure, first_byte=True, reused=self.reused)

    def _discarded(self, size: int) -> None:
        self._discard -= size
        if self._complete and self._reusable(request_complete=True):
            self._pool.discarding.discard(self)
            self._discard = 0
            self._pool.release(self)
        elif self.broken or self._complete or self._discard <= 0:
            self._pool.forget(self)
            self.transport.abort()


class Pool:
    """The connections of one worker to one backend, most recently used first."""

    def __init__(self, backend: Backend, *, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = backend
        self.discarding: set[UpstreamConnection] = set()
        self._context: ssl.SSLContext | None = None
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._waiting: deque[Exchange] = deque()
        self._connecting: dict[asyncio.Task[None], Exchange | None] = {}
        self._closed = False

    def acquire(
        self, exchange: Exchange, *, now: float, safe: bool, new: bool = False
    ) -> UpstreamConnection | None:
        """An idle connection now, or None: then `upstream_ready` or `upstream_unavailable` is called later.

        An unsafe request cannot be repeated, so it never gets a connection idle for longer than a second,
        which its backend may just be closing. `new` asks for one that was never used.
        """
        while self._idle and not new:
            connection = self._idle[-1]
            if connection.transport.is_closing():
                self._idle.pop()
                continue
            if not safe and now - connection.idle_since > _FRESH_SECONDS:
                break
            self._idle.pop()
            connection.reused = True
            return connection
        full = len(self._open) + len(self._connecting) >= self.backend.limits.connections
        if full and self._idle:  # there are idle ones, too old for this request: one makes room
            oldest = self._idle[0]
            self._open.discard(oldest)
            self._idle.remove(oldest)
            oldest.transport.close()
            full = False
        if not full:
            self._connect(exchange)
        elif len(self._waiting) < self.backend.limits.waiting:
            self._waiting.append(exchange)
        else:
            exchange.upstream_unavailable(Failure.REFUSED)
        return None

    def cancel(self, exchange: Exchange) -> None:
        """`exchange` waits no longer."""
        for task, waiting in self._connecting.items():
            if waiting is exchange:
                self._connecting[task] = None
                return
        if exchange in self._waiting:
            self._waiting.remove(exchange)

    def release(self, connection: UpstreamConnection) -> None:
        """A connection is free for the next request."""
        if self._closed:
            self.forget(connection)
            connection.transport.close()
        elif self._waiting:
            connection.reused = True
            self._waiting.popleft().upstream_ready(connection)
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is no longer of use."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.discarding.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_waiting()

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long. Call it about once a second."""
        keep = self.backend.limits.keep_alive
        old = [connection for connection in self._idle if now - connection.idle_since >= keep]
        for connection in (*old, *self.discarding):
            self.forget(connection)
            connection.transport.abort()

    def close(self) -> None:
        """Take no new requests; connections in use close after their answer."""
        self._closed = True
        for connection in list(self._idle):
            self.forget(connection)
            connection.transport.close()

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """Is there no room for one more request, not even to wait?"""
        limits = self.backend.limits
        if limits.in_flight is not None and self.pending >= limits.in_flight:
            return True
        return len(self._waiting) >= limits.waiting and not self._idle and not self._room()

    @property
    def pending(self) -> int:
        """How many requests are under way or wait for a connection."""
        return (
            len(self._open)
            - len(self._idle)
            - len(self.discarding)
            + len(self._connecting)
            + len(self._waiting)
        )

    def _room(self) -> int:
        return self.backend.limits.connections - len(self._open) - len(self._connecting)

    def _serve_waiting(self) -> None:
        room = self._room()
        while self._waiting and room > 0:
            self._connect(self._waiting.popleft())
            room -= 1

    def _connect(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._open_connection())
        self._connecting[task] = exchange

    def _secure(self) -> ssl.SSLContext | None:
        """The context for this backend, made with its first connection; None in the clear. Raises OSError."""
        if self._context is None and self.backend.tls is not None:
            self._context = client_context(self.backend.tls)
        return self._context

    async def _open_connection(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection: UpstreamConnection | None = None
        failure = Failure.REFUSED
        tls = self.backend.tls
        try:
            async with asyncio.timeout(self.backend.timeouts.connect):
                made = UpstreamConnection(self)
                await self._loop.create_connection(
                    lambda: cast("asyncio.Protocol", made),
                    self.backend.host,
                    self.backend.port,
                    ssl=self._secure(),
                    server_hostname=None if tls is None else tls.server_name or self.backend.host,
                )
            connection = made
        except TimeoutError:
            failure = Failure.TIMEOUT
        except (OSError, UnicodeError):  # refused, unreachable, no such host or none can be, no descriptors
            failure = Failure.REFUSED
        exchange = self._connecting.pop(task)
        if connection is None:
            if exchange is not None:
                exchange.upstream_unavailable(failure)
            self._serve_waiting()
        elif connection.transport.is_closing():
            if exchange is not None:
                exchange.upstream_unavailable(Failure.RESET)
            self._serve_waiting()
        else:
            self._open.add(connection)
            if exchange is None:
                self.release(connection)
            else:
                exchange.upstream_ready(connection)
