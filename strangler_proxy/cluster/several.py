"""Where a backend's instances come from and how they are watched, as the routes file says it.

Frozen values; `sections/instances.py` makes them. Durations in seconds.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Address(NamedTuple):
    """Where an instance listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class FromFile:
    """A YAML or JSON list of URLs; `path` as it is written, relative to the routes file."""

    path: str


@dataclass(frozen=True, slots=True)
class FromDns:
    """Every address that `host` has, asked for again `every` so many seconds."""

    host: str
    port: int
    every: float


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """The variable `name` holds URLs with commas between them, or Kubernetes' `name_SERVICE_HOST` and
    `name_SERVICE_PORT` tell of one."""

    name: str


Source = FromFile | FromDns | FromEnvironment


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """`GET path` of each instance; 2xx within `timeout` is good. `down_after` bad ones in a row take an instance
    out, `up_after` good ones bring it back; it then takes a growing share of the requests for `slow_start`
    seconds."""

    path: str
    every: float = 2.0
    timeout: float = 1.0
    down_after: int = 3
    up_after: int = 2
    slow_start: float = 0.0
    host: str = ""  # the Host header; empty is the instance's own address


@dataclass(frozen=True, slots=True)
class Several:
    """The instances of a backend: `addresses` from the routes file itself, or none there and a `source`."""

    addresses: tuple[Address, ...]
    source: Source | None = None
    health: HealthPolicy | None = None
