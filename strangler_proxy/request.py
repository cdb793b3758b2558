"""A request as it was parsed, and what an exchange needs of the connection it came over."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from strangler_proxy.headers import Origin, RequestHead, read_request, value_of
from strangler_proxy.identity import cookie_value
from strangler_proxy.table import Group, Routes, StickyKind

# Of a recognised head only: there every header is written like this. The request line has no ": ", for a
# target has no space.
_HEADER = re.compile(rb"\n([^:\r\n]+): ([^\r]+)")


@dataclass(slots=True, init=False)
class Request:  # not frozen: freezing costs a microsecond for each request
    """A request's head as it was parsed. `path` is the target without its query; `keep_alive` the client's
    wish.

    The headers are given as a list or, when the head was recognised as a whole, as the `raw` head, which is
    taken apart by the first who asks.
    """

    method: bytes
    target: bytes
    path: bytes
    listed: list[tuple[bytes, bytes]] | None
    head: RequestHead
    http11: bool
    keep_alive: bool
    raw: bytes

    def __init__(  # written out as RequestHead's
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        listed: list[tuple[bytes, bytes]] | None,
        head: RequestHead,
        *,
        http11: bool,
        keep_alive: bool,
        raw: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.listed = listed
        self.head = head
        self.http11 = http11
        self.keep_alive = keep_alive
        self.raw = raw

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Every header as it came: name and value."""
        if self.listed is None:
            self.listed = _HEADER.findall(self.raw)
        return self.listed

    def lines(self) -> list[bytes]:
        """The header lines that are passed on; without Host, framing and what the proxy sets anew."""
        head = self.head
        return read_request(self.headers, http11=self.http11).lines if head.ready else head.lines

    def sticky_header(self, group: Group) -> bytes:
        """The value of the header that tells the group's users apart, or empty."""
        if group.sticky.kind is not StickyKind.HEADER:
            return b""
        return value_of(self.headers, group.sticky.name.lower().encode())

    def override(self, group: Group) -> str:
        """The side a tester asks for, or empty."""
        names = group.overrides
        value = b""
        if names.header:
            value = value_of(self.headers, names.header.lower().encode())
        if not value and names.cookie:
            value = cookie_value(self.head.cookies, names.cookie.encode())
        return value.decode("latin-1")

    def override_line(self, group: Group) -> bytes:
        """The tester's header, when it is one that would be taken out as internal."""
        if not group.overrides.header.lower().startswith("x-strangler-"):
            return b""
        name = group.overrides.header.encode()
        value = value_of(self.headers, name.lower())
        return b"%b: %b\r\n" % (name, value) if value else b""


class Client(Protocol):
    """The client's connection, as an exchange sees it."""

    write_blocked: bool

    def origin(self, routes: Routes, head: RequestHead) -> Origin:
        """Who is at the other end, as the backends are told."""

    def send(self, data: bytes) -> None:
        """Write to the client."""

    def exchange_done(self, *, close: bool, abort: bool) -> None:
        """The exchange is over: answer the next request, close after what is written, or cut the
        connection."""

    def body_blocked(self, *, blocked: bool) -> None:
        """Stop (or go on) reading the request's body."""

    def switch(self, backend: asyncio.Transport, said: bytes, ended: Callable[[], None]) -> None:
        """The protocol asked for is spoken from here on, after `said` has gone to the client: join it with
        `backend`. Call `ended` when both are closed."""
