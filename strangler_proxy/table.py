"""The routes as the data path uses them: frozen values, path lookup compiled once.

`routes.py` makes these values from a file a person wrote; the parent sends them to its workers pickled
(`Routes.as_wire`, `Routes.from_wire`), so a worker needs neither YAML nor pydantic and can never disagree
with the parent about what is legal.

Precedence of path patterns: an exact pattern wins over any `/*` pattern; among `/*` patterns the longest
wins. A pattern is compared with the raw bytes that are forwarded, up to `?`; nothing is decoded or
normalised, so what was routed is what the backend gets. `/a/*` matches `/a/` and everything below it, not
`/a`.
"""

import pickle
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum

from chassis.resilience.breaker import BreakerPolicy
from strangler_proxy.cluster.several import Address, Several
from strangler_proxy.freshness import Guarding
from strangler_proxy.gateway.aggregate import Aggregate
from strangler_proxy.gateway.auth import Auth, Issuer
from strangler_proxy.gateway.rates import RateLimit
from strangler_proxy.gateway.rfc9111 import CachePolicy
from strangler_proxy.gateway.transform import Transforms
from strangler_proxy.listen import Listen
from strangler_proxy.shadow_policy import Shadow
from strangler_proxy.tls import BackendTls, FrontTls
from strangler_proxy.via import Via

UNROUTED = "*"  # stands for a group's name where requests that no group claims are counted
BUCKETS = 10_000  # one bucket is 0.01 percent


class StickyKind(Enum):
    """What tells one user from another."""

    USER = "user"
    SESSION = "session"
    HEADER = "header"
    COOKIE = "cookie"
    IP = "ip"
    JWT = "jwt"  # the verified subject of a bearer token


@dataclass(frozen=True, slots=True)
class Sticky:
    """The sticky key of a group; `name` is the header's or cookie's, else empty."""

    kind: StickyKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `read` is the longest silence of a backend; `total` of None is no limit (downloads,
    streams)."""

    connect: float = 1.0
    read: float = 15.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """For each worker: open connections, requests waiting for one, and seconds an idle connection is kept.
    `in_flight` is the most requests under way or waiting at a time (a bulkhead), None for no such limit.

    `keep_alive` stays below the five seconds after which uvicorn closes an idle connection, so that the
    proxy is the one that closes it and no request meets a connection that is just being closed.
    """

    connections: int = 512
    waiting: int = 1024
    keep_alive: float = 4.0
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a backend tells how far it has followed the default backend's log, and the seconds between two
    questions while somebody waits for it."""

    path: str
    every: float


@dataclass(frozen=True, slots=True)
class Backend:
    """A server that requests can be sent to, or `several`: then `host` and `port` are those of the first that the
    file names, empty and 0 when it names none, and requests go to `at` one of its instances."""

    name: str
    host: str
    port: int
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    several: Several | None = None
    position: Position | None = None
    tls: BackendTls | None = None
    key: str = field(init=False, compare=False)  # name and address: what pools and breakers belong to

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.name} {self.url} {self.tls or ''}".rstrip())

    @property
    def url(self) -> str:
        """`http://host:port` or `https://host:port`, an IPv6 address in brackets."""
        url = Address(self.host, self.port).url
        return url if self.tls is None else "https" + url.removeprefix("http")

    def at(self, address: Address) -> "Backend":
        """The instance of this backend at `address`."""
        return replace(self, host=address.host, port=address.port, several=None)


@dataclass(frozen=True, slots=True)
class Overrides:
    """Where a tester names the side that is to answer; empty means not honoured."""

    header: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """One aggregate: its paths move together. `percent` has two decimals at most. A group whose backend is
    the default one moves nothing: it is there for its duties. `rates` are its limits, the site's included.
    """

    name: str
    backend: str
    paths: tuple[str, ...]
    percent: Decimal
    owner: str
    sticky: Sticky
    fallback: bool
    timeouts: Timeouts  # of the group where it sets them, else of its backend
    overrides: Overrides = Overrides()
    expose: bool = False
    rates: tuple[RateLimit, ...] = ()
    auth: Auth | None = None
    transforms: Transforms | None = None
    shadow: Shadow | None = None
    in_flight: int | None = None  # requests of the group under way at a time, in each worker
    cache: CachePolicy | None = None
    aggregate: Aggregate | None = None
    guarding: Guarding | None = None  # None: a session may read an older state than it wrote
    threshold: int = field(init=False)  # buckets below it belong to the canary: percent x 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", int(self.percent * 100))


@dataclass(frozen=True, slots=True)
class Routes:
    """A whole, legal routes file. `version` is the first 12 hex digits of the SHA-256 of its bytes.

    `trusted` holds the networks whose `X-Forwarded-*` headers are believed (CIDR notation). `rest` is what the
    requests that no group claims are held to; None when nothing is asked of them.
    """

    version: str
    default: str
    backends: Mapping[str, Backend]
    groups: Mapping[str, Group]
    trusted: tuple[str, ...] = ()
    rest: Group | None = None
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    tls: FrontTls | None = None
    listen: Listen = field(default_factory=Listen)
    via: Via = field(default_factory=Via)
    _exact: Mapping[bytes, Group] = field(init=False, repr=False, compare=False)
    _prefixes: Mapping[bytes, Group] = field(init=False, repr=False, compare=False)
    _lengths: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact: dict[bytes, Group] = {}
        prefixes: dict[bytes, Group] = {}
        for group in self.groups.values():
            for pattern in group.paths:
                raw = pattern.encode("ascii")
                if raw.endswith(b"/*"):
                    prefixes[raw[:-1]] = group
                else:
                    exact[raw] = group
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_prefixes", prefixes)
        # Trying the few different lengths, longest first, costs the same whatever path a client invents;
        # walking the path's own slashes would let it choose the cost.
        object.__setattr__(self, "_lengths", tuple(sorted({len(p) for p in prefixes}, reverse=True)))

    def lookup(self, path: bytes) -> Group | None:
        """The group that owns `path` (raw, without the query), or None: the default backend's own
        business."""
        group = self._exact.get(path)
        if group is not None:
            return group
        for length in self._lengths:
            group = self._prefixes.get(path[:length])
            if group is not None:
                return group
        return None

    def groups_with(self, *, tables: Sequence[str], names: Sequence[str]) -> list[str]:
        """The groups with a cache that is named, or that holds what is read from one of `tables` (`table` is
        `public.table`)."""
        full = {table if "." in table else f"public.{table}" for table in tables}
        return [
            group.name
            for group in self.groups.values()
            if group.cache is not None and (group.name in names or not full.isdisjoint(group.cache.tables))
        ]

    @property
    def guards(self) -> bool:
        """Is somebody kept on a side that knows what they wrote?"""
        return any(group.guarding is not None for group in self.groups.values())

    @property
    def any_sticky_user(self) -> bool:
        """Does some group tell users apart by the proxy's own cookies?"""
        return any(group.sticky.kind is StickyKind.USER for group in self.groups.values())

    def as_wire(self) -> str:
        """For the link to the workers, which are told of nothing but what was judged legal."""
        return b64encode(pickle.dumps(self)).decode("ascii")

    @classmethod
    def from_wire(cls, wire: str) -> "Routes":
        """The inverse of `as_wire`. Give it only what came over the parent's own socket pair."""
        routes: Routes = pickle.loads(b64decode(wire))  # noqa: S301  # written by the parent of this very process
        return routes
