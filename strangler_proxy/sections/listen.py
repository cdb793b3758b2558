"""Section `listen`: what a client's connection is granted.

listen:
  connections: 10000      # of clients at a time, in each worker; none unless said
  min_body_rate: 200      # bytes a second that a request's body has to come with; none unless said
  header_timeout: 10000   # ms for a request's head
  body_timeout: 60000     # ms a client may send, or take, nothing of a body
  idle_timeout: 75000     # ms between requests
  tunnel_timeout: 300000  # ms without a byte in either direction after a switch of protocols
  upgrades: [websocket]   # what clients may switch to; [] is nothing
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from strangler_proxy.listen import Listen
from strangler_proxy.sections.fields import TOKEN, Milliseconds, Strict

_DEFAULT = Listen()
# Another version of HTTP inside a tunnel would carry requests that no rule of the routes file ever sees.
_HTTP = ("h2c", "h2", "http", "tls")


def _protocol(value: str) -> str:
    name = value.lower()
    if not TOKEN.fullmatch(name):
        raise ValueError("a protocol is a token such as websocket")
    if name in _HTTP:
        raise ValueError(
            f"{name} would carry requests past the routes; leave it out: clients go on in HTTP/1.1"
        )
    return name


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


class ListenFile(Strict):
    """The section."""

    connections: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    min_body_rate: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    header_timeout: Milliseconds = _milliseconds(_DEFAULT.header_timeout)
    body_timeout: Milliseconds = _milliseconds(_DEFAULT.body_timeout)
    idle_timeout: Milliseconds = _milliseconds(_DEFAULT.idle_timeout)
    tunnel_timeout: Milliseconds = _milliseconds(_DEFAULT.tunnel_timeout)
    upgrades: list[Annotated[str, AfterValidator(_protocol)]] = [  # noqa: RUF012  # pydantic copies defaults
        name.decode() for name in _DEFAULT.upgrades
    ]

    def value(self) -> Listen:
        """The frozen value."""
        return Listen(
            connections=self.connections,
            min_body_rate=self.min_body_rate,
            header_timeout=self.header_timeout / 1000,
            body_timeout=self.body_timeout / 1000,
            idle_timeout=self.idle_timeout / 1000,
            tunnel_timeout=self.tunnel_timeout / 1000,
            upgrades=tuple(name.encode() for name in self.upgrades),
        )
