"""A request as it was parsed, and what an exchange needs of the connection it came over."""

from dataclasses import dataclass
from typing import Protocol

from strangler_proxy.headers import Peer, RequestHead
from strangler_proxy.table import Routes


@dataclass(slots=True)
class Request:  # not frozen: freezing costs a microsecond for each request
    """A request's head as it was parsed. `path` is the target without its query; `keep_alive` the client's
    wish."""

    method: bytes
    target: bytes
    path: bytes
    headers: list[tuple[bytes, bytes]]
    head: RequestHead
    http11: bool
    keep_alive: bool


class Client(Protocol):
    """The client's connection, as an exchange sees it."""

    write_blocked: bool

    def peer(self, routes: Routes) -> Peer:
        """Who is at the other end."""

    def send(self, data: bytes) -> None:
        """Write to the client."""

    def exchange_done(self, *, close: bool, abort: bool) -> None:
        """The exchange is over: answer the next request, close after what is written, or cut the
        connection."""

    def body_blocked(self, *, blocked: bool) -> None:
        """Stop (or go on) reading the request's body."""
