"""A client's connection: parses requests, keeps their order, enforces limits, streams both ways.

A read that is just one everyday head is recognised as a whole (`recognise.py`); everything else goes through
llhttp. Requests are parsed as they come and answered one after the other. While one is being answered, further
requests on the same connection wait in a queue and reading pauses, so what is held is at most one read of
the loop.

Refused, with an answer and the end of the connection: what is not HTTP (400), a head above 32 KiB or with
more than 100 headers (431), a target above 16 KiB (414), CONNECT (501), an upgrade with a body (501), an
HTTP version other than 1.0 and 1.1 (505), a head that takes longer than `listen.header_timeout` (408). llhttp
in its strict mode refuses a message with both Content-Length and Transfer-Encoding, two lengths, a coding that does not
end in chunked, folded or malformed headers and bare line feeds, so a request has one frame or none (tests
hold it to that).

An upgrade to a protocol that the routes file allows (`listen.upgrades`) is passed on: what the client sends after
such a request is held until its answer is known. After 101 the connection becomes one end of a tunnel; after any
other answer what was held is the next request. Other upgrades are served as if they had not asked (RFC 9110 §7.8
allows that).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from strangler_proxy.answers import answer
from strangler_proxy.exchange import Exchange
from strangler_proxy.headers import HOST, BadHeadError, Origin, Peer, RequestHead, origin_of, read_request
from strangler_proxy.pace import Pace
from strangler_proxy.phase import BUFFER_LIMIT
from strangler_proxy.recognise import recognise_request
from strangler_proxy.request import Request
from strangler_proxy.table import Routes
from strangler_proxy.trailers import LONGEST, MOST, TrailersTooLargeError, check_size
from strangler_proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

MAX_HEAD = 32_768
MAX_TARGET = 16_384
MAX_HEADERS = 100
_LINGER_SECONDS = 2.0


class ClientConnection:
    """One client connection: an `asyncio.Protocol` by its methods (see `protocol`)."""

    __slots__ = (
        "_advancing",
        "_body_blocked",
        "_body_came",
        "_closing",
        "_current",
        "_fault",
        "_half_closed",
        "_head_fed",
        "_head_since",
        "_head_size",
        "_headers",
        "_held",
        "_incoming",
        "_last",
        "_linger",
        "_origin",
        "_origin_host",
        "_origin_peer",
        "_pace",
        "_parser",
        "_peer",
        "_peer_routes",
        "_plane",
        "_queue",
        "_reading_paused",
        "_target",
        "_trailers",
        "_transport",
        "_unsent",
        "_via",
        "write_blocked",
    )

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._incoming: Exchange | None = None
        self._fault: BadHeadError | None = None
        self._held: bytes | None = None  # what came after a request that asks for another protocol
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._head_fed = 0
        self._head_since = 0.0  # 0: no head is being read
        self._last = plane.now()
        self._unsent = 0  # bytes the client had not taken at the last sweep
        self._body_came = False
        self._advancing = False
        self._closing = False
        self._half_closed = False
        self._body_blocked = False
        self._reading_paused = False
        self._linger: asyncio.TimerHandle | None = None
        self._peer: Peer | None = None
        self._peer_routes: Routes | None = None
        self._origin: Origin | None = None
        self._origin_host = b""
        self._origin_peer: Peer | None = None
        self._via = b""
        self._pace: Pace | None = None  # of the body that comes, where a rate is asked for
        self.write_blocked = False

    # asyncio.Protocol

    def protocol(self) -> asyncio.Protocol:
        """This object as the loop's type. It has no such base: a compiled class has none that is not
        compiled, and loops ask for methods only."""
        return cast("asyncio.Protocol", self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport is no subclass of asyncio's
        clients = self._plane.clients
        most = self._plane.routes.listen.connections
        if most is not None and len(clients) >= most:
            detail = "as many clients as this proxy serves are connected"
            said = answer(status=503, detail=detail, request_id=b"", close=True, retry_after=1.0)
            self._transport.write(said)
            self._close(unread=True)
            return
        clients.add(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._closing or self._broken():
            return
        self._last = self._plane.now()
        if self._current is None and not (
            self._queue or self._head_since or self.write_blocked or self._incoming is not None
        ):
            request = recognise_request(data)
            if request is not None:
                self._serve(request)
                return
        if self._held is not None:
            self._held += data
            self._update_reading()
            return
        self._parse(data)
        if self._broken():
            self._break_off()
        self._advance()

    def eof_received(self) -> bool:
        """Called by the loop. A client may end its sending side and still wait for its answers."""
        if not self._transport.can_write_eof():
            return False  # asyncio keeps no connection half-closed under TLS
        self._half_closed = True
        if self._incoming is not None or (self._current is None and not self._queue):
            return False
        return not self._closing

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._closing = True
        self._plane.clients.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        self._queue.clear()
        self._incoming = None
        if self._current is not None:
            self._current.client_gone()
        self._plane.client_left()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.write_blocked = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.write_blocked = False
        if self._current is not None:
            self._current.client_writable()
        else:
            self._advance()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._target = b""
        self._headers = []
        self._trailers = []
        self._head_size = 0
        self._head_fed = 0
        self._head_since = self._last or 1.0

    def on_url(self, target: bytes) -> None:
        """Called by the parser, with pieces."""
        self._target += target
        if len(self._target) > MAX_TARGET and self._fault is None:
            self._fault = BadHeadError(414, f"a request target has at most {MAX_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too."""
        if not self._head_since:
            self._trailers.append((name, value))
            return
        self._headers.append((name, value))
        self._head_size += len(name) + len(value) + 4
        if self._fault is None and (self._head_size > MAX_HEAD or len(self._headers) > MAX_HEADERS):
            limits = f"{MAX_HEAD} bytes and {MAX_HEADERS} headers"
            self._fault = BadHeadError(431, f"a request head has at most {limits}")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_since = 0.0
        if self._fault is not None:
            return
        try:
            request = self._read_head()
        except BadHeadError as error:
            self._fault = error
            return
        exchange = Exchange(self._plane, self, request, complete=False)
        self._incoming = exchange
        self._pace = Pace() if self._plane.routes.listen.min_body_rate else None
        self._queue.append(exchange)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._incoming is not None and self._fault is None:
            self._body_came = True
            self._head_fed = 0
            if self._pace is not None:
                self._pace.size += len(data)
            self._incoming.body(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._incoming is not None and self._fault is None:
            try:
                check_size(self._trailers)
            except TrailersTooLargeError:
                self._fault = BadHeadError(431, f"trailers have at most {LONGEST} bytes and {MOST} fields")
                return
            self._incoming.body_end(self._trailers)
            self._incoming = None

    # request.Client

    def origin(self, routes: Routes, head: RequestHead) -> Origin:
        """Who is at the other end, as the backends are told; the last answer is remembered."""
        peer = self._peer_of(routes)
        if head.forwarded and peer.trusted:
            return origin_of(peer, head.host, head.forwarded, via=self._via, trusts=self._plane.trusts_hop)
        if self._origin is None or self._origin_host != head.host or self._origin_peer is not peer:
            self._origin = origin_of(peer, head.host, None, via=self._via)
            self._origin_host = head.host
            self._origin_peer = peer
        return self._origin

    def _peer_of(self, routes: Routes) -> Peer:
        if self._peer is None or self._peer_routes is not routes:
            name = self._transport.get_extra_info("peername")
            address = str(name[0]) if name else ""  # empty: it has left already
            if address.startswith("::ffff:") and "." in address:
                address = address[7:]  # an IPv4 client of a socket that listens on ::
            trusted = bool(address) and self._plane.trusts(address)
            secure = self._transport.get_extra_info("ssl_object") is not None
            self._peer = Peer(address.encode("ascii"), trusted=trusted, secure=secure)
            self._peer_routes = routes
            self._via = routes.via.line if routes.via.requests else b""
        return self._peer

    def send(self, data: bytes) -> None:
        """Write to the client."""
        if not self._closing:
            self._transport.write(data)

    def exchange_done(self, *, close: bool, abort: bool) -> None:
        """The current exchange is over."""
        self._current = None
        self._body_blocked = False
        self._last = self._plane.now()
        if self._closing:
            return
        if abort:
            self._closing = True
            self._transport.abort()
        elif close:
            self._close(unread=self._incoming is not None or self._fault is not None)
        elif self._held is not None and not self._queue:
            held, self._held = self._held, None
            self._update_reading()
            self.data_received(held)
        else:
            self._advance()

    def body_blocked(self, *, blocked: bool) -> None:
        """Stop (or go on) reading the request's body."""
        self._body_blocked = blocked
        self._update_reading()

    def switch(self, backend: asyncio.Transport, said: bytes, ended: Callable[[], None]) -> None:
        """The client's connection becomes one end of a tunnel; nothing here is called any more."""
        self._current = None
        held, self._held = self._held or b"", None
        plane = self._plane
        self._transport.write(said)
        tunnel = Tunnel(
            plane,
            self._transport,
            backend,
            idle_seconds=plane.routes.listen.tunnel_timeout,
            ended=ended,
        )
        plane.clients.discard(self)
        tunnel.start(held, client_ended=self._half_closed)

    # For the data plane

    def sweep(self, now: float) -> None:
        """Close when nothing has come, or been taken, for too long. Call it about once a second."""
        if self._current is None and self._overdue(now):
            self._transport.abort()  # close() would wait for the client to take the rest
        if self._pace is not None and self._incoming is not None and self._incoming is self._current:
            self._judge_pace(self._incoming, self._pace, now)
        if self._closing or self._current is not None or self._queue:
            return
        if self._head_since and now - self._head_since > self._plane.routes.listen.header_timeout:
            self._fault = BadHeadError(408, "the request's head did not come in time")
            self._advance()
        elif now - self._last > self._plane.routes.listen.idle_timeout:
            self._close(unread=False)

    def _judge_pace(self, incoming: Exchange, pace: Pace, now: float) -> None:
        """End a request whose body trickles."""
        least = self._plane.routes.listen.min_body_rate
        if self._reading_paused:
            pace.pause()
        elif pace.too_slow(now, least):
            incoming.client_fault(408, f"the request's body comes slower than {least} bytes a second")

    def _overdue(self, now: float) -> bool:
        """Has the client taken nothing for too long of what it was sent?"""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._last = unsent, now
        return unsent > 0 and now - self._last > self._plane.routes.listen.body_timeout

    def drain(self) -> None:
        """Close now when idle; otherwise the answer under way is the last."""
        if not self._closing and self._current is None and not self._queue and not self._head_since:
            self._close(unread=False)

    def cut(self) -> None:
        """Close without waiting for anything."""
        self._transport.abort()

    # Inner workings

    def _parse(self, data: bytes) -> None:
        """Feed llhttp; what it finds comes as callbacks. A fault of the client's is left in `_fault`."""
        self._body_came = False
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                if not self._broken() and self._queue and self._queue[-1].upgrades:
                    self._held = data
                    break
                continue
            except httptools.HttpParserCallbackError:
                self._transport.abort()  # a fault of ours; the loop reports it
                raise
            except httptools.HttpParserError as error:
                if self._fault is None:
                    self._fault = BadHeadError(400, f"not a valid request: {error}")
            # The parser holds an unfinished header in memory, one of a trailer too.
            if self._head_since or (self._incoming is not None and not self._body_came):
                self._head_fed += len(data)
                if self._head_fed > 2 * MAX_HEAD and self._fault is None:
                    self._fault = BadHeadError(431, f"a head or trailer has at most {MAX_HEAD} bytes")
            break

    def _broken(self) -> bool:
        return self._fault is not None  # asked anew: a type checker thinks it knows after the first look

    def _serve(self, request: Request) -> None:
        """Answer a whole request that nothing stands before."""
        exchange = self._current = Exchange(self._plane, self, request, complete=True)
        try:
            exchange.start()
        except BaseException:
            self._transport.abort()  # a fault of ours; the loop reports it
            raise

    def _read_head(self) -> Request:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise BadHeadError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
        http11 = version == "1.1"
        method = self._parser.get_method()
        if method == b"CONNECT":
            raise BadHeadError(501, "CONNECT is not served here")
        head = read_request(self._headers, http11=http11)
        head.upgrade = head.upgrade.lower()
        if method != b"GET" or head.upgrade not in self._plane.routes.listen.upgrades:
            head.upgrade = b""
        if self._parser.should_upgrade() and (head.length or head.chunked):
            raise BadHeadError(501, "an upgrade with a body is not served here")
        target = self._target
        if not target.startswith(b"/"):
            target = self._other_target(method, target, head.host)
            if not target.startswith((b"/", b"*")):
                authority, slash, rest = target.partition(b"/")
                if not HOST.fullmatch(authority):
                    raise BadHeadError(400, "the request target's authority is not a host")
                head.host = authority
                target = slash + rest or b"/"
        if b"#" in target:
            raise BadHeadError(400, "a request target has no fragment")
        path = target.partition(b"?")[0]
        keep_alive = b"close" not in head.connection if http11 else b"keep-alive" in head.connection
        return Request(method, target, path, self._headers, head, http11=http11, keep_alive=keep_alive)

    def _other_target(self, method: bytes, target: bytes, host: bytes) -> bytes:
        """The forms of RFC 9112 §3.2 besides the usual: `*`, and absolute (whose authority replaces Host)."""
        if target == b"*" and method == b"OPTIONS":
            return target
        lower = target[:8].lower()
        for scheme in (b"http://", b"https://"):
            if lower.startswith(scheme):
                rest = target[len(scheme) :]
                if rest and not rest.startswith((b"/", b"*", b"?")) and b"@" not in rest.partition(b"/")[0]:
                    return rest if b"/" in rest else rest + b"/"
        raise BadHeadError(400, "a request target is a path, or an http:// URL")

    def _advance(self) -> None:
        """Answer what waits. Exchanges that end at once come back here through `exchange_done`; hence the
        guard."""
        if self._advancing:
            return
        self._advancing = True
        try:
            # A client that does not read its answers gets no more of them made.
            while self._current is None and self._queue and not (self._closing or self.write_blocked):
                self._current = self._queue.popleft()
                self._current.start()
        finally:
            self._advancing = False
        if self._current is not None:
            self._current.flush()
        elif self._queue:
            pass  # until the client reads
        elif self._fault is not None and not self._closing:
            fault = self._fault
            self.send(answer(status=fault.status, detail=str(fault), request_id=b"", close=True))
            self._close(unread=True)
        elif not self._closing and (self._half_closed or self._plane.draining) and not self._head_since:
            self._close(unread=False)
        self._update_reading()

    def _break_off(self) -> None:
        """The stream is broken: what was whole before the fault is still answered."""
        incoming, self._incoming = self._incoming, None
        self._head_since = 0.0
        if incoming is None:
            return
        if incoming is self._current:
            assert self._fault is not None
            fault = self._fault
            incoming.client_fault(fault.status, str(fault))
        else:
            self._queue.remove(incoming)

    def _close(self, *, unread: bool) -> None:
        """Close after what is written. With unread bytes coming, first let the client read: a reset would
        undo it."""
        self._closing = True
        if not unread or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._linger = self._plane.loop.call_later(_LINGER_SECONDS, self._end_linger)
        self._update_reading()

    def _end_linger(self) -> None:
        if self._transport.get_write_buffer_size():  # `sweep` sees to it that this ends
            self._linger = self._plane.loop.call_later(_LINGER_SECONDS, self._end_linger)
        else:
            self._transport.abort()

    def _update_reading(self) -> None:
        held = self._held is not None and len(self._held) > BUFFER_LIMIT
        pause = not self._closing and (self._body_blocked or bool(self._queue) or held)
        if pause is not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
