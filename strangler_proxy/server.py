"""The proxy's parent process: routes file, workers, admin port. It carries no traffic.

    run ─► load routes, bind ports (a fault ends it here, nothing has started)
        ─► fleet.py   N workers
        ─► reload.py  follows the file ─► fleet.use ─► workers acknowledge
        ─► hub.py     what workers report ─► admin.py

SIGTERM and SIGINT: the listening sockets close, workers finish what runs, exit code 0.
"""

import asyncio
import errno
import ipaddress
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.problems import InvalidFileError, Problem
from chassis.speedups import VARIABLE, SpeedupsError, choose
from chassis.yamlfile import Places
from strangler_proxy.admin import AdminServer, Guard, LineStream, Reply, WithBody, json_reply
from strangler_proxy.cluster.watch import Watch, as_json, list_faults
from strangler_proxy.comparisons import Comparisons
from strangler_proxy.engine import Engine
from strangler_proxy.fleet import Fleet, make_listeners
from strangler_proxy.hub import Hub
from strangler_proxy.identity import SHORTEST_SECRET
from strangler_proxy.metrics import exposition
from strangler_proxy.open_files import allow
from strangler_proxy.reload import RoutesFollower
from strangler_proxy.routes import parse_with_places, read_content
from strangler_proxy.speedups import PROXY
from strangler_proxy.table import Routes
from strangler_proxy.totals import Totals

if TYPE_CHECKING:
    from strangler_proxy.gateway.key_sources import KeySources

TOKEN_VARIABLE = "STRANGLER_ADMIN_TOKEN"  # noqa: S105  # the variable's name, not a secret
SECRET_VARIABLE = "STRANGLER_COOKIE_SECRET"  # noqa: S105  # the variable's name, not a secret
_APPLY_SECONDS = 5.0
_SETTLE_SECONDS = 2.0  # that the first lists of instances may take before the workers start


class PortTakenError(Exception):
    """Another process listens on `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(f"port {port} is taken: end the process that listens on it, or choose another port")


class SettingError(Exception):
    """A setting the proxy is started with cannot be used: which one, what is wrong, what to do.

    A usage error: commands end with exit code 2. `fault` never holds a secret's value.
    """

    def __init__(self, setting: str, fault: str, remedy: str) -> None:
        self.setting = setting
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{setting}: {fault} ({remedy})")


def run(
    *,
    routes: Path,
    port: int,
    admin_port: int,
    workers: int = 1,
    host: str = "127.0.0.1",
    admin_host: str = "127.0.0.1",
    drain_seconds: float = 10.0,
    engine: str = "python",
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. `engine` is `python` or `envoy`.

    Raises InvalidFileError when the routes file is not legal, PortTakenError when a port is taken,
    SettingError when `STRANGLER_COOKIE_SECRET` or `STRANGLER_ADMIN_TOKEN` is too short, `workers` is not
    positive, or host and port are none that can be listened on; nothing has started then.
    """
    if workers < 1:
        raise SettingError("workers", f"{workers} cannot serve", "ask for at least 1")
    check, program = machine_faults, None
    match engine:
        case "python":
            try:
                choose(PROXY)
            except SpeedupsError as error:
                raise SettingError(VARIABLE, error.fault, error.remedy) from error
        case "envoy":
            program, check = _envoy(), _envoy_faults
        case _:
            raise SettingError("engine", f"there is no engine {engine!r}", "ask for python or envoy")
    content = read_content(routes)
    loaded, places = parse_with_places(content, str(routes))
    faults = check(loaded, places)
    if faults:
        raise InvalidFileError(faults)
    secret = _secret()
    token = _token()
    allow(loaded)
    listeners = _listeners(host, port, workers if program is None else 1)
    try:
        (admin_listener,) = _listeners(admin_host, admin_port, 1)
    except (PortTakenError, SettingError):
        for listener in listeners:
            listener.close()
        raise

    def make(hub: Hub) -> Engine:
        if program is None:
            return Fleet(
                listeners=listeners, routes=loaded, secret=secret, drain_seconds=drain_seconds, hub=hub
            )
        from strangler_proxy.envoy.engine import EnvoyEngine  # noqa: PLC0415  # costs nothing unless asked for

        return EnvoyEngine(
            program=program,
            reserved=_reserved(listeners[0]),
            workers=workers,
            routes=loaded,
            secret=secret,
            drain_seconds=drain_seconds,
            hub=hub,
        )

    parent = Parent(
        path=routes,
        routes=loaded,
        content=content,
        port=listeners[0].getsockname()[1],
        make_engine=make,
        check=check,
        admin_listener=admin_listener,
        token=token,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(parent.serve())


def _listeners(host: str, port: int, count: int) -> list[socket.socket]:
    if not 0 <= port <= 65_535:  # getaddrinfo would quietly take the number modulo 65,536
        raise SettingError("port", f"there is no port {port}", "choose one from 1 to 65535")
    try:
        return make_listeners(host, port, count)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(port) from error
        remedy = "choose an address of this machine and a port this user may open"
        raise SettingError(f"{host}:{port}", f"cannot be listened on: {error.strerror}", remedy) from error


def _token() -> bytes:
    given = os.fsencode(os.environ.get(TOKEN_VARIABLE, ""))
    if not given:
        structlog.get_logger().warning(
            "no admin token: nothing can be changed through the admin port", remedy=f"set {TOKEN_VARIABLE}"
        )
    elif len(given) < SHORTEST_SECRET:
        fault = f"has {len(given)} bytes, at least {SHORTEST_SECRET} are needed"
        raise SettingError(TOKEN_VARIABLE, fault, "set it to the output of: openssl rand -hex 32")
    return given


def _secret() -> bytes:
    given = os.environ.get(SECRET_VARIABLE, "")
    if not given:
        structlog.get_logger().warning(
            "no cookie secret: users get new identities at every restart", remedy=f"set {SECRET_VARIABLE}"
        )
        return secrets.token_bytes(32)
    secret = os.fsencode(given)
    if len(secret) < SHORTEST_SECRET:
        fault = f"has {len(secret)} bytes, at least {SHORTEST_SECRET} are needed"
        raise SettingError(SECRET_VARIABLE, fault, "set it to the output of: openssl rand -hex 32")
    return secret


def machine_faults(routes: Routes, places: Places) -> Sequence[Problem]:
    """What a legal routes file asks for that this machine has not: lists of instances, keys of issuers."""
    faults = tuple(list_faults(routes, places, Path(places.file).parent))
    if not routes.issuers:
        return faults
    from strangler_proxy.gateway.key_sources import faults_of  # noqa: PLC0415  # brings cryptography

    return (*faults, *faults_of(routes.issuers, places))


def _envoy() -> Path:
    from strangler_proxy.envoy.process import NoEnvoyError, find_envoy  # noqa: PLC0415  # costs nothing unless asked for

    try:
        return find_envoy()
    except NoEnvoyError as error:
        raise SettingError("engine", "there is no Envoy on this machine", error.remedy) from error


def _envoy_faults(routes: Routes, places: Places) -> Sequence[Problem]:
    from strangler_proxy.envoy.capability import capability_faults  # noqa: PLC0415  # as above
    from strangler_proxy.envoy.process import system_authorities  # noqa: PLC0415  # as above

    return (
        *capability_faults(routes, places, authorities=system_authorities()),
        *machine_faults(routes, places),
    )


def _reserved(listener: socket.socket) -> socket.socket:
    """The port of `listener`, bound but not listened on: Envoy listens beside it, and the port stays ours between two
    lives of Envoy."""
    address = listener.getsockname()
    listener.close()
    reserved = socket.socket(listener.family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved


class _Invalidation(BaseModel):
    """The body of `POST /admin/invalidate`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tables: list[str] = Field(default_factory=list)
    groups: list[str] = Field(default_factory=list)


class Parent:
    """Wires fleet, file and admin port."""

    def __init__(
        self,
        *,
        path: Path,
        routes: Routes,
        content: bytes,
        port: int,
        make_engine: Callable[[Hub], Engine],
        check: Callable[[Routes, Places], Sequence[Problem]],
        admin_listener: socket.socket,
        token: bytes,
    ) -> None:
        self._admin_listener = admin_listener
        admin_host = admin_listener.getsockname()[0]
        self._guard = Guard(token, loopback=ipaddress.ip_address(admin_host).is_loopback)
        self._port = port
        self._hub = Hub(hello=self._hello)
        self._fleet = make_engine(self._hub)
        self._follower = RoutesFollower(
            path, routes=routes, content=content, on_routes=self._use, check=check
        )
        self._keys: KeySources | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._watch: Watch | None = None

    async def serve(self) -> int:
        """Run until a signal; the exit code."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        admin = AdminServer(
            {
                ("GET", "/admin/status"): self._status,
                ("GET", "/admin/routes"): self._routes_text,
                ("GET", "/admin/outcomes"): self._outcomes,
                ("GET", "/admin/outcomes/stream"): self._stream,
                ("GET", "/admin/comparisons"): self._comparisons,
                ("POST", "/admin/reload"): self._reload,
                ("POST", "/admin/invalidate"): WithBody(self._invalidate),
                ("GET", "/metrics"): self._metrics,
                ("GET", "/health"): self._health,
                ("GET", "/ready"): self._ready,
            },
            self._guard,
        )
        server = await asyncio.start_server(admin.serve, sock=self._admin_listener)
        log = structlog.get_logger()
        log.info(
            "proxy started",
            port=self._port,
            admin_port=self._admin_listener.getsockname()[1],
            workers=len(self._fleet.slots),
            version=self._follower.routes.version,
        )
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            self._use_issuers(self._follower.routes)
            self._watch = Watch(base=self._follower.path.parent, tell=self._fleet.tell_members, tasks=group)
            self._watch.use(self._follower.routes)
            await self._watch.settle(_SETTLE_SECONDS)
            for slot in self._fleet.slots:
                group.create_task(self._fleet.keep(slot))
            follow = group.create_task(self._follower.follow())
            await stop.wait()
            log.info("proxy stops: finishing what runs")
            follow.cancel()
            self._tasks = None
            if self._keeping is not None:
                self._keeping.cancel()
            self._watch.close()
            await self._fleet.stop()
        self._hub.close()
        server.close()
        await admin.close()
        log.info("proxy stopped")
        return 0

    def _use(self, routes: Routes) -> None:
        self._use_issuers(routes)
        if self._watch is not None:
            self._watch.use(routes)
        self._fleet.use(routes)

    def _use_issuers(self, routes: Routes) -> None:
        """Keep the keys of those whose tokens are believed; the first one named starts it."""
        if self._keys is None and routes.issuers and self._tasks is not None:
            from strangler_proxy.gateway.key_sources import KeySources  # noqa: PLC0415  # brings cryptography

            self._keys = KeySources(self._fleet.tell_keys)
            self._fleet.known_keys, self._fleet.want_keys = self._keys.all, self._keys.want
            self._keeping = self._tasks.create_task(self._keys.follow())
        if self._keys is not None:
            self._keys.use(routes.issuers)

    # metrics.Source

    def routes(self) -> Routes:
        """The routes in use."""
        return self._follower.routes

    def totals(self) -> Totals:
        """The sums."""
        return self._hub.totals

    def comparisons(self) -> Comparisons:
        """What comparisons add up to."""
        return self._hub.comparisons

    def workers_ready(self) -> int:
        """How many workers serve."""
        return sum(slot.version is not None for slot in self._fleet.slots)

    def worker_restarts(self) -> int:
        """How many workers were replaced."""
        return sum(slot.restarts for slot in self._fleet.slots)

    def breaker(self, backend: str) -> str:
        """The worst state of a backend's breaker over all workers."""
        return self._fleet.breaker(backend)

    def refused(self) -> bool:
        """Is the routes file in a state that was refused?"""
        return self._follower.refused is not None

    # Admin handlers

    def _hello(self) -> dict[str, Any]:
        return {"version": self._follower.routes.version, "workers": self._workers()}

    def _workers(self) -> list[dict[str, Any]]:
        return [
            {
                "id": slot.id,
                "pid": slot.process.pid if slot.process is not None else None,
                "version": slot.version,
                "since_ns": slot.since_ns,
                "applied_at_ns": slot.applied_at_ns,
            }
            for slot in self._fleet.slots
        ]

    async def _status(self) -> Reply:
        routes, refused = self._follower.routes, self._follower.refused
        return json_reply(
            {
                "version": routes.version,
                "engine": self._fleet.name,
                "compiled": all(slot.compiled for slot in self._fleet.slots),
                "routes_file": str(self._follower.path),
                "error": refused.as_json() if refused is not None else None,
                "workers": self._workers(),
                "groups": {
                    group.name: {
                        "backend": group.backend,
                        "owner": group.owner,
                        "percent": float(group.percent),
                        "sticky": str(group.sticky),
                        "fallback": group.fallback,
                    }
                    for group in routes.groups.values()
                },
                "backends": {
                    backend.name: {
                        "url": backend.url,
                        "breaker": self._fleet.breaker(backend.name),
                        **self._several(backend.name),
                    }
                    for backend in routes.backends.values()
                },
            }
        )

    def instances(self, backend: str) -> list[dict[str, Any]]:
        """How the instances of a backend stand; empty when it has no several."""
        standing = self._watch.standing(backend) if self._watch is not None else None
        return [] if standing is None else as_json(standing, self._fleet.instances(backend))

    def _several(self, backend: str) -> dict[str, Any]:
        standing = self._watch.standing(backend) if self._watch is not None else None
        if standing is None:
            return {}
        urls = [instance.address.url for instance in standing.instances]
        return {
            "url": urls[0] if urls else "",
            "instances": self.instances(backend),
            "fault": standing.fault or None,
        }

    async def _routes_text(self) -> Reply:
        return Reply(body=self._follower.content, content_type="text/yaml; charset=utf-8")

    async def _outcomes(self) -> Reply:
        totals = self._hub.totals
        names = [*self._follower.routes.groups, *totals.groups]
        groups = {
            name: {arm.value: sums.as_json() for arm, sums in totals.group(name).items()}
            for name in dict.fromkeys(names)
        }
        return json_reply({"at_ns": time.time_ns(), "groups": groups})

    async def _comparisons(self) -> Reply:
        names = [group.name for group in self._follower.routes.groups.values() if group.shadow is not None]
        return json_reply({"at_ns": time.time_ns(), "groups": self._hub.comparisons.as_json(names)})

    async def _stream(self) -> LineStream:
        return LineStream(self._hub.stream())

    async def _reload(self) -> Reply:
        refused = self._follower.read_now()
        if refused is not None:
            return json_reply({"problems": refused.as_json()["problems"]}, 409)
        version = self._follower.routes.version
        if not await self._fleet.wait_for_version(version, _APPLY_SECONDS):
            fault = f"not every worker runs version {version} after {_APPLY_SECONDS:g} s"
            return json_reply({"error": fault, "version": version, "workers": self._workers()}, 503)
        return json_reply({"version": version, "workers": self._workers()})

    async def _invalidate(self, body: bytes) -> Reply:
        try:
            asked = _Invalidation.model_validate_json(body or b"{}")
        except ValidationError as error:
            return json_reply({"error": f"not an invalidation: {error.errors()[0]['msg']}"}, 400)
        groups = self._follower.routes.groups_with(tables=asked.tables, names=asked.groups)
        if not await self._fleet.empty_caches(groups, _APPLY_SECONDS):
            return json_reply({"error": f"not every worker answered within {_APPLY_SECONDS:g} s"}, 503)
        caches = sum(group.cache is not None for group in self._follower.routes.groups.values())
        return json_reply({"groups": groups, "caches": caches})

    async def _metrics(self) -> Reply:
        return Reply(body=exposition(self), content_type="text/plain; version=0.0.4; charset=utf-8")

    async def _health(self) -> Reply:
        return json_reply({"status": "ok"})

    async def _ready(self) -> Reply:
        if self._fleet.ready():
            return json_reply({"status": "ready"})
        waiting = [slot.id for slot in self._fleet.slots if slot.version is None]
        return json_reply({"status": "not ready", "reason": f"workers {waiting} do not serve"}, 503)
