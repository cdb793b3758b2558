"""Envoy in the place of the workers: one slot, whose process is Envoy with a thread for each worker asked for.

    use(routes) ─► clusters (old and new) ─► routes ─► clusters (new alone)      each acknowledged by Envoy first
    Envoy's log ─► pipe ─► Tally ─► drained every few ms ─► hub
    Envoy's counters ─► once a second ─► breakers, and whether the log has lost a line

A version counts as running when Envoy's own statistics name it. A percentage changes the routes alone: one file.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from chassis.resilience.breaker import BreakerState
from strangler_proxy.cluster.several import Address
from strangler_proxy.envoy import front, render
from strangler_proxy.envoy.access_log import BadLineError, Reconciliation, Tally
from strangler_proxy.envoy.process import Admin, AdminError, drain, system_authorities
from strangler_proxy.fleet import Slot
from strangler_proxy.hub import Hub
from strangler_proxy.outcomes import Recorder
from strangler_proxy.table import Routes
from strangler_proxy.tls import FollowedContext

SECRET_SETTING = "STRANGLER_ENVOY_SECRET"  # noqa: S105  # the variable's name, not a secret
_FLUSH_MS = 5  # how long Envoy may keep a log line
_GATHER_SECONDS = 0.004  # how long lines may gather here before subscribers are told
_LOOK_SECONDS = 1.0
_APPLY_SECONDS = 5.0
_START_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE, _STABLE_SECONDS = 0.05, 5.0, 5.0

_CDS = "cluster_manager.cds"
_LDS = "listener_manager.lds"
_RDS = f"http.{front.STAT_PREFIX}.rds.{render.ROUTES_NAME}"


class _Lines(asyncio.Protocol):
    """Envoy's end of the log pipe: whole lines go to `on_lines`."""

    def __init__(self, on_lines: Callable[[list[bytes]], None]) -> None:
        self._on_lines = on_lines
        self._rest = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._on_lines(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended.set()


class EnvoyEngine:
    """Runs `program` on `reserved`'s address (a bound socket that does not listen: it keeps the port ours between two
    lives of Envoy). `workers` are Envoy's threads; `drain_seconds` is what requests have to end."""

    name = "envoy"

    def __init__(
        self,
        *,
        program: Path,
        reserved: socket.socket,
        workers: int,
        routes: Routes,
        secret: bytes,
        drain_seconds: float,
        hub: Hub,
    ) -> None:
        self.known_keys: Callable[[], dict[str, Any]] = dict
        self.want_keys: Callable[[str], None] = lambda _: None
        self._program = program
        address, port = reserved.getsockname()[:2]
        self._place = render.Place(address, port, workers, system_authorities())
        self._slot = Slot(0, reserved, compiled=True)
        self._routes = routes
        self._secret = secret
        self._drain_seconds = drain_seconds
        self._hub = hub
        self._directory = Path(tempfile.mkdtemp(prefix="strangler-envoy-"))  # mode 0700
        self._watched = self._directory / "live"
        self._watched.mkdir()
        self._admin = Admin(self._directory / "admin.sock")
        self._lua = render.lua_source()
        self._written: dict[str, str] = {}  # by file: the version in it
        self._front = FollowedContext(routes.tls) if routes.tls is not None else None
        self._certificates = 0
        self._stop = asyncio.Event()
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._tally = Tally(Recorder())
        self._gathering: asyncio.TimerHandle | None = None
        self._reader: asyncio.ReadTransport | None = None

    @property
    def slots(self) -> list[Slot]:
        """Envoy's, alone."""
        return [self._slot]

    def use(self, routes: Routes) -> None:
        """Serve by `routes` from now on."""
        self._routes = routes
        if self._front is not None and routes.tls is not None:
            self._front.front = routes.tls  # other files, perhaps: `look` finds them
        self._wanted.set()

    def tell_members(self, known: Any) -> None:
        """Instances stand in the routes file here; what discovers them is refused."""

    def tell_keys(self, issuer: str, keys: list[dict[str, Any]] | None) -> None:
        """Tokens are refused in the routes file."""

    async def empty_caches(self, groups: Sequence[str], seconds: float) -> bool:
        """There are none: they are refused in the routes file."""
        del seconds
        return not groups

    def instances(self, backend: str) -> dict[Address, dict[str, Any]]:
        """What Envoy's statistics say of instances is not read."""
        del backend
        return {}

    def breaker(self, backend: str) -> str:
        """`open` while Envoy has ejected every instance of `backend`."""
        return self._slot.breakers.get(backend, BreakerState.CLOSED.value)

    def ready(self) -> bool:
        """Does Envoy serve?"""
        return not self._stop.is_set() and self._slot.version is not None

    async def wait_for_version(self, version: str, seconds: float) -> bool:
        """Wait until Envoy runs `version`, at most `seconds`."""
        try:
            async with self._changed, asyncio.timeout(seconds):
                await self._changed.wait_for(lambda: self._slot.version == version)
        except TimeoutError:
            return False
        return True

    # Envoy's life

    async def keep(self, slot: Slot) -> None:
        """Keep an Envoy running until `stop`."""
        log = structlog.get_logger()
        while not self._stop.is_set():
            began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                process = await self._spawn(slot)
                helpers = [
                    tasks.create_task(self._repeat_log(process)),
                    tasks.create_task(self._apply(process)),
                    tasks.create_task(self._look()),
                ]
                if self._stop.is_set():  # `stop` came while it was being started and did not see it
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                code = await process.wait()
                await self._read_rest()
                for helper in helpers[1:]:
                    helper.cancel()
            slot.process, slot.version = None, None
            slot.breakers.clear()
            if self._stop.is_set():
                return
            slot.restarts += 1
            if time.monotonic() - began > _STABLE_SECONDS:
                slot.pause = _FIRST_PAUSE
            log.error("Envoy died, replacing it", pid=process.pid, code=code)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), slot.pause)
            slot.pause = min(slot.pause * 2, _LONGEST_PAUSE)

    async def stop(self) -> None:
        """Finish what runs, then end Envoy."""
        self._stop.set()
        self._slot.listener.close()
        process = self._slot.process
        if process is not None and not await drain(process, self._admin, self._drain_seconds):
            structlog.get_logger().warning("requests were cut off at the end of the drain time")
        await self._read_rest()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _spawn(self, slot: Slot) -> asyncio.subprocess.Process:
        self._written.clear()
        self._tally = Tally(Recorder())
        for path in self._watched.iterdir():
            path.unlink()
        routes = self._routes
        self._write_clusters(routes, routes)
        self._write_routes(routes)
        self._write_certificate()
        self._write_listener(routes)
        start = self._directory / "envoy.json"
        bootstrap = render.bootstrap(
            admin_socket=str(self._directory / "admin.sock"),
            listeners=self._source("listeners"),
            clusters=self._source("clusters"),
        )
        start.write_text(json.dumps(bootstrap), encoding="utf-8")
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._program), "-c", str(start), "--concurrency", str(self._place.workers),
                "--use-dynamic-base-id",
                "--file-flush-interval-msec", str(_FLUSH_MS), "-l", "warning", "--drain-time-s", "5",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", ""), SECRET_SETTING: self._secret.hex()},
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        loop = asyncio.get_running_loop()
        self._lines = _Lines(self._took)
        self._reader, _ = await loop.connect_read_pipe(lambda: self._lines, os.fdopen(read, "rb", 0))
        slot.process = process
        return process

    async def _read_rest(self) -> None:
        """Read the log to its end: Envoy's lines are in the pipe when it has gone."""
        if self._reader is not None:
            await self._lines.ended.wait()
            self._tell()

    async def _repeat_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        log = structlog.get_logger()
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            if "no configured limit to the number of allowed active downstream" not in text:
                log.warning("Envoy says", line=text)

    # Routes

    async def _apply(self, process: asyncio.subprocess.Process) -> None:
        """Bring Envoy to the routes that are wanted, again and again."""
        running = self._routes
        version = {
            f"{_CDS}.version_text": self._written["clusters"],
            f"{_LDS}.version_text": self._written["listeners"],
        }
        version[f"{_RDS}.version_text"] = running.version
        began = time.time_ns()
        while process.returncode is None:
            if await self._acknowledged(version, _LDS, _START_SECONDS):
                self._runs(running.version, since_ns=began)
                break
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            routes = self._routes
            try:
                if await self._switch(running, routes):
                    running = routes
            except AdminError as error:
                structlog.get_logger().error(
                    "Envoy did not acknowledge the routes", version=routes.version, reason=str(error)
                )

    async def _switch(self, before: Routes, routes: Routes) -> bool:
        """From one version to another. A request meets either the old routes and clusters or the new ones."""
        if self._write_clusters(before, routes) and not await self._clusters_there():
            return False
        began = time.time_ns()
        self._write_routes(routes)
        if not await self._acknowledged({f"{_RDS}.version_text": routes.version}, _RDS):
            return False
        if self._write_listener(routes):
            wanted = {f"{_LDS}.version_text": self._written["listeners"]}
            if not await self._acknowledged(wanted, _LDS):
                return False
        self._runs(routes.version, since_ns=began)
        self._write_clusters(routes, routes)
        return True

    async def _clusters_there(self) -> bool:
        wanted = {f"{_CDS}.version_text": self._written["clusters"], "cluster_manager.warming_clusters": "0"}
        return await self._acknowledged(wanted, _CDS)

    async def _acknowledged(self, wanted: dict[str, str], of: str, seconds: float = _APPLY_SECONDS) -> bool:
        if await self._admin.until(wanted, refused=f"{of}.update_rejected", seconds=seconds):
            return True
        structlog.get_logger().error("Envoy does not run what it was given", wanted=wanted)
        return False

    def _runs(self, version: str, *, since_ns: int) -> None:
        self._slot.version = version
        self._slot.since_ns, self._slot.applied_at_ns = since_ns, time.time_ns()
        self._hub.switched(self._slot.id, version, self._slot.applied_at_ns)
        task = asyncio.ensure_future(self._notify())
        self._notifying = task

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _write_clusters(self, before: Routes, routes: Routes) -> bool:
        """The clusters of both versions; did the file change?"""
        found = {
            cluster["name"]: cluster
            for cluster in (*render.clusters(before, self._place), *render.clusters(routes, self._place))
        }
        return self._write("clusters", list(found.values()), None)

    def _write_routes(self, routes: Routes) -> bool:
        return self._write("routes", [render.route_configuration(routes, self._place)], routes.version)

    def _write_listener(self, routes: Routes) -> bool:
        made = front.listener(
            routes,
            self._place,
            lua=self._lua,
            table=front.followed(self._source("routes")),
            certificate_source=self._source("certificate"),
        )
        return self._write("listeners", [made], None)

    def _write_certificate(self) -> None:
        """Show Envoy the front's certificate under a name it has not seen: only then does it read the files again."""
        if self._front is None:
            return
        self._certificates += 1
        shown = self._directory / f"certificate-{self._certificates}"
        shown.mkdir()
        chain, key = shown / "chain.pem", shown / "key.pem"
        chain.symlink_to(self._front.front.certificate)
        key.symlink_to(self._front.front.key)
        self._write("certificate", [front.certificate(str(chain), str(key))], None)

    def _follow_certificate(self) -> None:
        """Take up new files, as the Python engine does: those that do not fit together leave the old ones in use."""
        if self._front is None:
            return
        fault = self._front.look()
        if fault:
            structlog.get_logger().error("the new certificate cannot be used", reason=fault)
        elif fault is not None:
            self._write_certificate()
            structlog.get_logger().info("a new certificate is in use")

    def _source(self, name: str) -> dict[str, Any]:
        return render.file_source(str(self._watched / f"{name}.json"), str(self._watched))

    def _write(self, name: str, resources: list[dict[str, Any]], version: str | None) -> bool:
        """Replace a watched file, unless it holds this already. `version` None: a hash of its content."""
        version = version or render.version_of(resources)
        if self._written.get(name) == version:
            return False
        content = json.dumps(render.discovery_response(version, resources))
        new = self._directory / f"{name}.new"
        new.write_text(content, encoding="utf-8")
        new.rename(self._watched / f"{name}.json")
        self._written[name] = version
        return True

    # Outcomes

    def _took(self, lines: list[bytes]) -> None:
        urgent = False
        for line in lines:
            try:
                urgent |= self._tally.line(line)
            except BadLineError as error:
                self._hub.totals.dropped += 1
                structlog.get_logger().error("a line of Envoy's log is lost", reason=str(error))
        if urgent:
            self._tell()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        wire = self._tally.recorder.drain()
        if wire is not None:
            self._hub.outcomes(self._slot.id, wire)

    async def _look(self) -> None:
        """Once a second: a new certificate, has the log lost a line, who is ejected?"""
        check = Reconciliation()
        requests = rf"http\.{front.STAT_PREFIX}\.downstream_rq_(total|active)"
        ejected = r"cluster\..*\.(outlier_detection\.ejections_active|membership_total)"
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._follow_certificate()
            try:
                stats = await self._admin.stats(f"{requests}|{ejected}")
            except AdminError:
                continue  # it starts, or ends: either shows elsewhere
            prefix = f"http.{front.STAT_PREFIX}.downstream_rq_"
            counted = int(stats.get(f"{prefix}total", 0)) - int(stats.get(f"{prefix}active", 0))
            lost = check.look(counted=counted, read=self._tally.ended)
            if lost:
                self._hub.totals.dropped += lost
                structlog.get_logger().error(
                    "outcomes are lost: Envoy counts more requests than it logged", lost=lost
                )
            self._slot.breakers = {
                name: BreakerState.OPEN.value
                for name, backend in self._routes.backends.items()
                if _ejected(stats, render.cluster_name(self._routes, backend, self._place))
            }


def _ejected(stats: Any, cluster: str) -> bool:
    """Are all of the cluster's instances ejected? Envoy writes a cluster's dots as they are in names of statistics."""
    active = int(stats.get(f"cluster.{cluster}.outlier_detection.ejections_active", 0))
    return 0 < int(stats.get(f"cluster.{cluster}.membership_total", 0)) <= active
