"""The only home of what a legal routes file is.

`load_routes` reads a file whole, collects every fault with file, line, field and remedy, and returns a frozen
`Routes` or raises `InvalidFileError` with all of them. Nothing else in the toolkit judges a routes file.

    version: 1
    default: monolith                 # backend of everything no group names; the control arm
    backends:
      NAME: {url | instances | discover, health?, timeouts?, limits?, breaker?}
    groups:
      NAME: {paths, backend?, percent?, owner?, sticky?, fallback?, timeouts?, overrides?, expose?,
             limits?, rate_limit?, auth?, transform?, cache?, shadow?,
             aggregate?}
    issuers: {NAME: {issuer, audience, algorithms, keys, leeway?}}    # whose tokens are believed
    rate_limit: [...]                 # for the whole site
    overrides: {header, cookie}       # testers; for every group that has none of its own
    expose: false                     # X-Strangler-Arm on responses
    trusted_proxies: [10.0.0.0/8]     # peers whose X-Forwarded-* headers are believed
    listen: {...}                     # what a client's connection is granted
    via: {name?, requests?, responses?}

Durations are milliseconds. Two rounds: pydantic checks the shape, then the references between the parts are
checked on the plain data, so that one run names the faults of both kinds.
"""

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from chassis.problems import InvalidFileError, Problem
from chassis.resilience.breaker import BreakerPolicy
from chassis.yamlfile import Places, parse
from strangler_proxy.gateway.rates import RateLimit
from strangler_proxy.sections.aggregate import AggregateFile, aggregate_faults
from strangler_proxy.sections.auth import AuthFile, IssuerFile, IssuerName, token_faults
from strangler_proxy.sections.cache import CacheFile
from strangler_proxy.sections.fields import TOKEN, Milliseconds, Name, Network, Strict, Token
from strangler_proxy.sections.fields import Path as UrlPath
from strangler_proxy.sections.freshness import PositionFile, ReadYourWrites, guarding_of, position_faults
from strangler_proxy.sections.instances import Place
from strangler_proxy.sections.listen import ListenFile
from strangler_proxy.sections.rates import RateFile, limits_of
from strangler_proxy.sections.shadow import ShadowFile
from strangler_proxy.sections.tls import FrontTlsFile
from strangler_proxy.sections.transform import TransformFile
from strangler_proxy.sections.via import ViaFile
from strangler_proxy.table import (
    UNROUTED,
    Backend,
    Group,
    Limits,
    Overrides,
    Routes,
    Sticky,
    StickyKind,
    Timeouts,
)


def _percent(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("percent must be a number from 0 to 100")  # noqa: TRY004  # pydantic reports ValueError
    percent = Decimal(str(value))
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise ValueError("percent must lie between 0 and 100")
    if percent != round(percent, 2):
        raise ValueError("percent has steps of 0.01")
    return percent


def _sticky(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind in ("header", "cookie"):
        if not TOKEN.fullmatch(name):
            raise ValueError(f"write {kind}:NAME with the name of a {kind}")
    elif kind not in ("user", "session", "ip", "jwt") or name:
        raise ValueError("sticky is one of user, session, ip, jwt, header:NAME, cookie:NAME")
    return value


class _TimeoutsFile(Strict):
    connect: Milliseconds | None = None
    read: Milliseconds | None = None
    total: Milliseconds | None = None

    def over(self, base: Timeouts) -> Timeouts:
        return Timeouts(
            connect=self.connect / 1000 if self.connect is not None else base.connect,
            read=self.read / 1000 if self.read is not None else base.read,
            total=self.total / 1000 if self.total is not None else base.total,
        )


class _LimitsFile(Strict):
    connections: Annotated[int, Field(ge=1, le=100_000)] = 512
    waiting: Annotated[int, Field(ge=0, le=100_000)] = 1024
    keep_alive: Milliseconds = 4000
    in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _GroupLimitsFile(Strict):
    in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _BreakerFile(Strict):
    # Below 5 in a row the breaker would hide from the controller the very failures it has to count.
    consecutive: Annotated[int, Field(ge=5, le=100_000)] = 10
    window: Annotated[int, Field(ge=10, le=100_000)] = 100
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    pause: Milliseconds = 1000
    longest_pause: Milliseconds = 30_000
    probes: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _pauses(self) -> Self:
        if self.longest_pause < self.pause:
            raise ValueError("longest_pause is shorter than pause")
        return self


class _BackendFile(Place):
    position: PositionFile | None = None
    timeouts: _TimeoutsFile = _TimeoutsFile()
    limits: _LimitsFile = _LimitsFile()
    breaker: _BreakerFile = _BreakerFile()


class _OverridesFile(Strict):
    header: Token | None = None
    cookie: Token | None = None


class _GroupFile(Strict):
    backend: str | None = None
    paths: Annotated[list[UrlPath], Field(min_length=1)]
    percent: Annotated[Decimal, BeforeValidator(_percent)] | None = None
    owner: str | None = None
    sticky: Annotated[str, AfterValidator(_sticky)] = "user"
    fallback: bool = True
    timeouts: _TimeoutsFile = _TimeoutsFile()
    overrides: _OverridesFile | None = None
    expose: bool | None = None
    rate_limit: list[RateFile] = Field(default_factory=list)
    auth: AuthFile | None = None
    transform: TransformFile | None = None
    cache: CacheFile | None = None
    shadow: ShadowFile | None = None
    limits: _GroupLimitsFile = _GroupLimitsFile()
    aggregate: AggregateFile | None = None
    read_your_writes: ReadYourWrites = None


class _RoutesFile(Strict):
    version: Literal[1]
    backends: Annotated[dict[Name, _BackendFile], Field(min_length=1)]
    default: str
    groups: dict[Name, _GroupFile] = Field(default_factory=dict)
    overrides: _OverridesFile | None = None
    expose: bool = False
    read_your_writes: ReadYourWrites = None
    tls: FrontTlsFile | None = None
    rate_limit: list[RateFile] = Field(default_factory=list)
    issuers: dict[IssuerName, IssuerFile] = Field(default_factory=dict)
    trusted_proxies: list[Network] = Field(default_factory=list)
    listen: ListenFile = ListenFile()
    via: ViaFile = ViaFile()


def load_routes(path: Path) -> Routes:
    """Read the routes file at `path`. Raises InvalidFileError with every fault found in it."""
    return parse_routes(read_content(path), str(path))


def read_content(path: Path) -> bytes:
    """The bytes of the routes file at `path`. Raises InvalidFileError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        problem = Problem(
            str(path), 0, 0, "", f"cannot be read: {error.strerror}", "check the path and its permissions"
        )
        raise InvalidFileError([problem]) from error


def version_of(content: bytes) -> str:
    """The version of a routes file: the first 12 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()[:12]


def parse_routes(content: bytes, file: str) -> Routes:
    """The routes in `content`; `file` is the name used in faults. Raises InvalidFileError."""
    return parse_with_places(content, file)[0]


def parse_with_places(content: bytes, file: str) -> tuple[Routes, Places]:
    """As `parse_routes`, and where each value stands, for who wants to edit the text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidFileError([Problem(file, line, 0, "", "is not UTF-8", "save it as UTF-8")]) from error
    data, places = parse(text, file)
    if not isinstance(data, dict):
        fault = places.problem((), "holds no mapping", "begin with version, backends, default and groups")
        raise InvalidFileError([fault])
    problems: list[Problem] = []
    parsed: _RoutesFile | None = None
    try:
        parsed = _RoutesFile.model_validate(data)
    except ValidationError as error:
        problems.extend(places.problems_of(error))
    problems.extend(_references(data, places))
    problems.extend(aggregate_faults(data.get("groups"), places))
    if parsed is None or problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return _freeze(parsed, version_of(content)), places


def _references(data: Mapping[str, Any], places: Places) -> Iterator[Problem]:
    """Faults between parts. Works on unchecked data: what has the wrong shape is pydantic's to name."""
    backends = data.get("backends")
    known = [str(name) for name in backends] if isinstance(backends, dict) else []
    names = ", ".join(known) or "none"
    default = data.get("default")
    if isinstance(default, str) and default not in known:
        yield places.problem(("default",), f"unknown backend {default!r}", f"name one of: {names}")
    yield from position_faults(backends, default, places)
    groups = data.get("groups")
    taken: dict[str, str] = {}
    for name, group in groups.items() if isinstance(groups, dict) else ():
        if not isinstance(group, dict):
            continue
        backend, owner = group.get("backend"), group.get("owner")
        if isinstance(backend, str) and backend not in known:
            at = ("groups", name, "backend")
            yield places.problem(at, f"unknown backend {backend!r}", f"name one of: {names}")
        elif isinstance(backend, str) and backend == default:
            at = ("groups", name, "backend")
            yield places.problem(
                at, f"{backend!r} is the default backend: there is nothing to move", "name the service's"
            )
        if backend is None:
            yield from _moves_nothing(name, group, places)
        elif "percent" not in group:
            at = ("groups", name, "percent")
            yield places.problem(
                at, "missing key", "say 0 to begin with, or leave backend out to move nothing"
            )
        if backend is not None and isinstance(owner, str) and owner not in (backend, default):
            at = ("groups", name, "owner")
            remedy = f"name the default backend ({default}) or the group's own ({backend})"
            yield places.problem(at, f"owner {owner!r} is not one of this group's two sides", remedy)
        yield from token_faults(name, group, data.get("issuers"), places)
        paths = group.get("paths")
        for position, path in enumerate(paths if isinstance(paths, list) else ()):
            if not isinstance(path, str):
                continue
            if path in taken:
                other = "this group" if taken[path] == name else f"group {taken[path]!r}"
                yield places.problem(
                    ("groups", name, "paths", position),
                    f"path {path!r} belongs to {other} already",
                    "keep it in one place",
                )
            else:
                taken[path] = name


def _moves_nothing(name: str, group: Mapping[str, Any], places: Places) -> Iterator[Problem]:
    """A group without a backend is there for its duties alone."""
    for key in ("percent", "owner", "fallback", "overrides", "shadow", "read_your_writes"):
        if key in group:
            at = ("groups", name, key)
            yield places.problem(at, "says nothing without a backend", f"name a backend, or leave {key} out")


def _freeze(parsed: _RoutesFile, version: str) -> Routes:
    backends = {name: _backend(name, item) for name, item in parsed.backends.items()}
    groups: dict[str, Group] = {}
    site = limits_of(parsed.rate_limit, "")
    for name, item in parsed.groups.items():
        kind, _, key = item.sticky.partition(":")
        moves = item.backend is not None
        # Who moves nothing has no other side a tester could ask for, nor one to fall back from.
        overrides = (item.overrides or parsed.overrides if moves else None) or _OverridesFile()
        backend = item.backend or parsed.default
        groups[name] = Group(
            name=name,
            backend=backend,
            paths=tuple(item.paths),
            percent=item.percent or Decimal(0),
            owner=item.owner if item.owner is not None else parsed.default,
            sticky=Sticky(StickyKind(kind), key),
            fallback=item.fallback and moves,
            timeouts=item.timeouts.over(backends[backend].timeouts),
            overrides=Overrides(header=overrides.header or "", cookie=overrides.cookie or ""),
            expose=parsed.expose if item.expose is None else item.expose,
            rates=(*site, *limits_of(item.rate_limit, name)),
            auth=item.auth.value() if item.auth is not None else None,
            cache=item.cache.value() if item.cache is not None else None,
            transforms=item.transform.value() if item.transform is not None else None,
            shadow=item.shadow.value() if item.shadow is not None else None,
            in_flight=item.limits.in_flight,
            aggregate=item.aggregate.value() if item.aggregate is not None else None,
            guarding=guarding_of(
                item.read_your_writes, parsed.read_your_writes, moves=moves, tells=backends[backend].position
            ),
        )
    return Routes(
        version=version,
        default=parsed.default,
        backends=backends,
        groups=groups,
        trusted=tuple(parsed.trusted_proxies),
        listen=parsed.listen.value(),
        via=parsed.via.value(),
        issuers={name: item.value(name) for name, item in parsed.issuers.items()},
        rest=_rest(parsed.default, backends, site) if site else None,
        tls=parsed.tls.value() if parsed.tls is not None else None,
    )


def _rest(default: str, backends: Mapping[str, Backend], site: tuple[RateLimit, ...]) -> Group:
    return Group(
        name=UNROUTED,
        backend=default,
        paths=(),
        percent=Decimal(0),
        owner=default,
        sticky=Sticky(StickyKind.IP),
        fallback=False,
        timeouts=backends[default].timeouts,
        rates=site,
    )


def _backend(name: str, item: _BackendFile) -> Backend:
    address = item.address()
    return Backend(
        name=name,
        host=address.host,
        port=address.port,
        several=item.several(),
        position=item.position.value() if item.position is not None else None,
        tls=item.backend_tls(),
        timeouts=item.timeouts.over(Timeouts()),
        limits=Limits(
            connections=item.limits.connections,
            waiting=item.limits.waiting,
            keep_alive=item.limits.keep_alive / 1000,
            in_flight=item.limits.in_flight,
        ),
        breaker=BreakerPolicy(
            consecutive=item.breaker.consecutive,
            window=item.breaker.window,
            rate=item.breaker.rate,
            pause=item.breaker.pause / 1000,
            longest_pause=item.breaker.longest_pause / 1000,
            probes=item.breaker.probes,
        ),
    )
