"""What of a message head is passed on, in both directions. Pure: lists of raw (name, value) pairs in, bytes
out.

Names, values, order and letter case stay as they came. Not passed on:

* hop-by-hop headers: those of RFC 9110 §7.6.1 and every name that `Connection` lists; `Upgrade` is sent anew
  by who passes a switch of protocols on;
* `X-Strangler-*`, the toolkit's internal headers (a tester's override header is kept where the routes allow
  it);
* from a client that is not a trusted proxy: `Forwarded` (RFC 7239) and all `X-Forwarded-*`; ours are set
  instead. A trusted proxy's chains are continued;
* spellings with `_` of any of these: CGI-like environments (WSGI, Django) cannot tell `X_Forwarded_For` from
  `X-Forwarded-For`.

Framing headers (`Content-Length`, `Transfer-Encoding`) are read here and written anew by whoever frames the
body. `Host` is forwarded as received. Backends are sent `Via` (RFC 9110 §7.6.3 wants it of a gateway), after what a
client said of it; answers get one only where the routes file says so. `TE: trailers` is asked of
a backend when the client asked for it, and `Trailer` announces what `trailers.py` passes on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

RawHeaders = Sequence[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
HOST = re.compile(rb"[A-Za-z0-9._~:\[\]%!$&'()*+,;=-]*")


class Kind(IntEnum):
    """What a header's name means to the proxy."""

    PASS = 0
    DROP = 1
    CONNECTION = 2
    LENGTH = 3
    CODING = 4
    HOST = 5
    COOKIE = 6
    REQUEST_ID = 7
    FORWARDED = 8
    INTERNAL = 9
    EXPECT = 10
    CONTENT_TYPE = 11
    CACHE_CONTROL = 12
    USER = 13
    POSITION = 14
    APPLIED = 15
    UPGRADE = 16
    TE = 17
    VIA = 18


_KINDS = {
    b"connection": Kind.CONNECTION,
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
    b"keep-alive": Kind.DROP,
    b"proxy-connection": Kind.DROP,
    b"proxy-authenticate": Kind.DROP,
    b"proxy-authorization": Kind.DROP,
    b"te": Kind.TE,
    b"upgrade": Kind.UPGRADE,
    b"via": Kind.VIA,
    b"http2-settings": Kind.DROP,
    b"host": Kind.HOST,
    b"cookie": Kind.COOKIE,
    b"x-request-id": Kind.REQUEST_ID,
    b"forwarded": Kind.FORWARDED,
    b"expect": Kind.EXPECT,
    b"content-type": Kind.CONTENT_TYPE,
    b"cache-control": Kind.CACHE_CONTROL,
    b"x-strangler-user": Kind.USER,
    b"x-strangler-lsn": Kind.POSITION,
    b"x-strangler-applied": Kind.APPLIED,
}
# A message cannot lose these by naming them in Connection: the frame would no longer fit, or the routing.
_NOT_DROPPABLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"x-request-id"})


@lru_cache(maxsize=512)  # clients choose the names, up to 32 KiB long: what is remembered stays small
def kind_of(name: bytes) -> Kind:
    """What the header `name` means here. Remembered for each spelling."""
    lower = name.lower()
    plain = lower.replace(b"_", b"-")
    kind = _KINDS.get(plain, Kind.PASS)
    if kind is Kind.PASS:
        if plain.startswith(b"x-strangler-"):
            kind = Kind.INTERNAL
        elif plain.startswith(b"x-forwarded-"):
            kind = Kind.FORWARDED
    return Kind.DROP if kind is not Kind.PASS and plain != lower else kind


class BadHeadError(ValueError):
    """The client's request head cannot be served. `status` is the answer, the message its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True, init=False)
class RequestHead:
    """A request's headers, sorted by meaning. `lines` are those passed on, ready to be sent.

    `ready` is empty, or the request line and all headers passed on, as they came, Host and the client's
    X-Request-ID among them; `lines` is empty then (see `recognise.py`, and `Request.lines`).
    """

    lines: list[bytes]
    host: bytes
    cookies: bytes
    request_id: bytes
    length: int | None
    chunked: bool
    connection: bytes
    expects_continue: bool
    forwarded: list[tuple[bytes, bytes]] | None
    upgrade: bytes  # the protocol asked for, where Connection says so too
    trailers: bool
    via: bytes  # what was said of the way here, on all lines
    ready: bytes

    # Written out: what the decorator would generate is not compiled, and costs as much as matching the head.
    def __init__(
        self,
        lines: list[bytes] | None = None,
        host: bytes = b"",
        cookies: bytes = b"",
        request_id: bytes = b"",
        *,
        length: int | None = None,
        chunked: bool = False,
        connection: bytes = b"",
        expects_continue: bool = False,
        forwarded: list[tuple[bytes, bytes]] | None = None,
        upgrade: bytes = b"",
        trailers: bool = False,
        via: bytes = b"",
        ready: bytes = b"",
    ) -> None:
        self.lines = [] if lines is None else lines
        self.host = host
        self.cookies = cookies
        self.request_id = request_id
        self.length = length
        self.chunked = chunked
        self.connection = connection
        self.expects_continue = expects_continue
        self.forwarded = forwarded
        self.upgrade = upgrade
        self.trailers = trailers
        self.via = via
        self.ready = ready


def read_request(headers: RawHeaders, *, http11: bool) -> RequestHead:
    """Sort a request's headers. Raises BadHeadError for what must not be served (RFC 9112 §3.2, §6.1)."""
    head = RequestHead()
    lines = head.lines
    hosts = 0
    for name, value in headers:
        kind = kind_of(name)
        if kind is Kind.PASS or kind is Kind.CONTENT_TYPE or kind is Kind.CACHE_CONTROL:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif kind is Kind.HOST:
            hosts += 1
            head.host = value
        elif kind is Kind.COOKIE:
            lines.append(b"%b: %b\r\n" % (name, value))
            head.cookies = head.cookies + b"; " + value if head.cookies else value
        elif kind is Kind.CONNECTION:
            head.connection = head.connection + b"," + value.lower() if head.connection else value.lower()
        else:
            _read_rare(head, kind, name, value)
    if hosts > 1 or (http11 and not hosts):
        raise BadHeadError(400, "a request has exactly one Host header")
    if not HOST.fullmatch(head.host):
        raise BadHeadError(400, "the Host header is not a host")
    if head.chunked and not http11:
        raise BadHeadError(400, "an HTTP/1.0 request cannot be chunked")
    if head.connection:
        _drop_named(lines, head.connection)
    if head.upgrade and not (http11 and _names(head.connection, b"upgrade")):
        head.upgrade = b""  # RFC 9110 §7.8: of HTTP/1.0, and without the connection option, it is ignored
    return head


def _read_rare(head: RequestHead, kind: Kind, name: bytes, value: bytes) -> None:
    if kind is Kind.LENGTH:
        head.length = int(value)
    elif kind is Kind.CODING:
        if value.strip().lower() != b"chunked" or head.chunked:
            raise BadHeadError(501, "the only transfer coding understood is chunked")
        head.chunked = True
    elif kind is Kind.REQUEST_ID:
        if _REQUEST_ID.fullmatch(value):
            head.request_id = value
    elif kind is Kind.EXPECT:
        if value.lower() != b"100-continue":
            raise BadHeadError(417, "the only expectation understood is 100-continue")
        head.expects_continue = True
    elif kind is Kind.UPGRADE:
        head.upgrade = b"%b, %b" % (head.upgrade, value) if head.upgrade else value
    elif kind is Kind.VIA:
        head.lines.append(b"%b: %b\r\n" % (name, value))
        head.via = b"%b, %b" % (head.via, value) if head.via else value
    elif kind is Kind.TE:
        head.trailers |= _names(value.lower(), b"trailers")
    elif kind is Kind.FORWARDED:
        if head.forwarded is None:
            head.forwarded = []
        head.forwarded.append((name, value))


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of the other end of a client connection. `trusted`: its X-Forwarded-* are believed;
    `secure`: it came over TLS."""

    address: bytes
    trusted: bool = False
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """The client as the backends are told: its forwarding header lines, its address, whether it used TLS."""

    lines: bytes
    address: bytes
    secure: bool


def origin_of(
    peer: Peer,
    host: bytes,
    forwarded: RawHeaders | None,
    *,
    via: bytes = b"",
    trusts: Callable[[bytes], bool] = lambda _: False,
) -> Origin:
    """The forwarding headers for a request that came over `peer` with `forwarded` on it. `via` is a ready line;
    `trusts` tells of an address in a trusted proxy's chain whether it is another trusted proxy's."""
    if not peer.trusted or not forwarded:
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\n%b"
        proto = b"https" if peer.secure else b"http"
        element = _element(peer.address, proto, host)
        told = lines % (peer.address, proto, host, element, via)
        return Origin(told, peer.address, secure=peer.secure)
    chain = b""
    proto = b"https" if peer.secure else b"http"
    original = host
    others: list[bytes] = []
    elements: list[bytes] = []
    for name, value in forwarded:
        lower = name.lower()
        if lower == b"x-forwarded-for":
            chain = chain + b", " + value if chain else value
        elif lower == b"x-forwarded-proto":
            proto = value
        elif lower == b"x-forwarded-host":
            original = value
        elif lower == b"forwarded":
            elements.append(value)
        else:
            others.append(b"%b: %b\r\n" % (name, value))
    # The trusted proxy itself appended the last address; what stands left of it anybody may have written, unless it
    # is another trusted proxy's, which appended the one before.
    hops = [hop.strip() for hop in chain.split(b",")]
    address = hops.pop()
    while hops and trusts(address):
        address = hops.pop()
    address = address or peer.address
    chain = chain + b", " + peer.address if chain else peer.address
    elements.append(_element(peer.address, b"https" if peer.secure else b"http", host))
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\n%b%b"
    secure = proto.rpartition(b",")[2].strip().lower() == b"https"
    told = lines % (chain, proto, original, b", ".join(elements), b"".join(others), via)
    return Origin(told, address, secure=secure)


def _element(address: bytes, proto: bytes, host: bytes) -> bytes:
    """One element of Forwarded (RFC 7239 §4); the host was found to be one, so nothing in it needs escaping."""
    node = b'"[%b]"' % address if b":" in address else address or b"unknown"
    return b'for=%b;host="%b";proto=%b' % (node, host, proto)


def request_bytes(
    *,
    method: bytes,
    target: bytes,
    lines: Sequence[bytes] | None,
    head: RequestHead,
    origin: Origin,
    request_id: bytes,
    extra: bytes = b"",
) -> bytes:
    """The head to send upstream. `lines` are the header lines passed on (`head.lines`, or what duties made of
    them), None when `head.ready` is to be sent; `extra` are further ready lines (a tester's override header).
    """
    if lines is None:
        if head.request_id == request_id:
            return b"%b%b%b\r\n" % (head.ready, origin.lines, extra)
        return b"%b%bX-Request-ID: %b\r\n%b\r\n" % (head.ready, origin.lines, request_id, extra)
    if head.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.length is not None:
        framing = b"Content-Length: %d\r\n" % head.length
    else:
        framing = b""
    if head.expects_continue and framing:
        framing += b"Expect: 100-continue\r\n"
    if head.upgrade:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif head.trailers:
        framing += b"Connection: TE\r\nTE: trailers\r\n"
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-ID: %b\r\n%b\r\n" % (
        method,
        target,
        head.host,
        b"".join(lines),
        framing,
        origin.lines,
        request_id,
        extra,
    )


@dataclass(slots=True, init=False)
class ResponseHead:
    """A response's headers, sorted by meaning. `user` is the value of X-Strangler-User, None when absent;
    `position` that of X-Strangler-LSN, `applied` that of X-Strangler-Applied, empty when absent; `raw` are the
    headers as they came, internal ones too.

    `ready` is empty, or the status line and all headers passed on, as they came, Content-Length among them;
    `raw` and `lines` are empty then (see `recognise.py`).
    """

    raw: RawHeaders
    lines: list[bytes]
    length: int | None
    chunked: bool
    foreign_coding: bool
    close: bool
    html: bool
    shared_cacheable: bool
    user: bytes | None
    upgrade: bytes
    ready: bytes
    position: bytes
    applied: bytes

    def __init__(  # written out as RequestHead's
        self,
        raw: RawHeaders = (),
        lines: list[bytes] | None = None,
        *,
        length: int | None = None,
        chunked: bool = False,
        foreign_coding: bool = False,
        close: bool = False,
        html: bool = False,
        shared_cacheable: bool = False,
        user: bytes | None = None,
        upgrade: bytes = b"",
        ready: bytes = b"",
        position: bytes = b"",
        applied: bytes = b"",
    ) -> None:
        self.raw = raw
        self.lines = [] if lines is None else lines
        self.length = length
        self.chunked = chunked
        self.foreign_coding = foreign_coding
        self.close = close
        self.html = html
        self.shared_cacheable = shared_cacheable
        self.user = user
        self.upgrade = upgrade
        self.ready = ready
        self.position = position
        self.applied = applied

    def reread_cache_control(self) -> None:
        """`lines` were changed: may a shared cache keep the answer as they stand now?"""
        values = [line.lower() for line in self.lines if line[:14].lower() == b"cache-control:"]
        self.shared_cacheable = any(b"public" in value or b"s-maxage" in value for value in values)


def read_response(headers: RawHeaders) -> ResponseHead:
    """Sort a response's headers."""
    head = ResponseHead(headers)
    lines = head.lines
    connection = b""
    for name, value in headers:
        kind = kind_of(name)
        if (
            kind is Kind.PASS
            or kind is Kind.HOST
            or kind is Kind.COOKIE
            or kind is Kind.FORWARDED
            or kind is Kind.VIA
        ):
            lines.append(b"%b: %b\r\n" % (name, value))
        elif kind is Kind.LENGTH:
            head.length = int(value)
        elif kind is Kind.CONTENT_TYPE:
            lines.append(b"%b: %b\r\n" % (name, value))
            head.html = value[:9].lower() == b"text/html"
        elif kind is Kind.CACHE_CONTROL:
            lines.append(b"%b: %b\r\n" % (name, value))
            lower = value.lower()
            head.shared_cacheable |= b"public" in lower or b"s-maxage" in lower
        elif kind is Kind.CODING:
            head.chunked = value.strip().lower() == b"chunked"
            head.foreign_coding |= not head.chunked
        elif kind is Kind.CONNECTION:
            connection = connection + b"," + value.lower() if connection else value.lower()
        elif kind is Kind.USER:
            head.user = value
        elif kind is Kind.POSITION:
            head.position = value
        elif kind is Kind.APPLIED:
            head.applied = value
        elif kind is Kind.UPGRADE:
            head.upgrade = value
    if connection:
        head.close = b"close" in connection
        _drop_named(lines, connection)
    return head


def has_body(status: int, head: ResponseHead, *, head_request: bool) -> bool:
    """Do bytes follow this head, as many as it says?"""
    return bool(head.length) and not head_request and status not in (204, 304)


def response_start(
    status: int, reason: bytes, head: ResponseHead, *, head_request: bool, http11: bool
) -> tuple[bytes, bool, bool]:
    """The beginning of the head for the client, framing included; whether the body is to be sent in chunks,
    and whether only the end of the connection tells its end (RFC 9112 §6.3).
    """
    if head.ready:
        return head.ready, False, False
    framing, rechunk, ends_with_close = b"", False, False
    if head.upgrade and status in (101, 426):  # RFC 9110 §15.2.2, §15.5.22
        framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    if status in (101, 204):
        pass
    elif head.length is not None:
        framing += b"Content-Length: %d\r\n" % head.length
    elif head_request or status == 304:
        pass
    elif http11:
        framing += b"Transfer-Encoding: chunked\r\n"
        rechunk = True
    else:
        ends_with_close = True
    start = b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, b"".join(head.lines), framing)
    return start, rechunk, ends_with_close


def _names(connection: bytes, token: bytes) -> bool:
    return token in (name.strip() for name in connection.split(b","))


def _drop_named(lines: list[bytes], connection: bytes) -> None:
    """Take out of `lines` every header that Connection names."""
    named = {token.strip() for token in connection.split(b",")} - {b"keep-alive", b"close", b""}
    named -= _NOT_DROPPABLE
    if named:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in named]


def value_of(headers: RawHeaders, name: bytes) -> bytes:
    """The value of the first header `name` (lower case), or empty."""
    for header, value in headers:
        if header.lower() == name:
            return value
    return b""
