"""The workers: start them, tell them the routes, replace the dead, end them all.

Each worker has a slot with an own listening socket (SO_REUSEPORT: the kernel spreads connections over the
slots). The socket outlives the worker, so a connection that comes while a dead worker is being replaced
waits and is served.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from chassis.resilience.breaker import BreakerState
from strangler_proxy.cluster.several import Address
from strangler_proxy.gateway.rate_table import make_table
from strangler_proxy.hub import Hub
from strangler_proxy.link import Link, Message
from strangler_proxy.table import Routes
from strangler_proxy.write_table import make_write_table

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_STABLE_SECONDS = 5.0


@dataclass(slots=True)
class Slot:
    """One worker's place. `version` is None until the worker that sits in it serves. Requests may have been served by
    it from `since_ns` on, and are from `applied_at_ns` on (nanoseconds since 1970).
    """

    id: int
    listener: socket.socket
    process: asyncio.subprocess.Process | None = None
    link: Link | None = None
    version: str | None = None
    since_ns: int = 0
    applied_at_ns: int = 0
    compiled: bool = False
    breakers: dict[str, str] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)  # by backend with several instances
    pause: float = _FIRST_PAUSE
    restarts: int = 0
    invalidated: int = 0  # serial of the last order to empty caches that its worker carried out


class Fleet:
    """All slots. `secret` signs cookies; `drain_seconds` is what a worker has to finish requests."""

    name = "python"

    def __init__(
        self,
        *,
        listeners: list[socket.socket],
        routes: Routes,
        secret: bytes,
        drain_seconds: float,
        hub: Hub,
    ) -> None:
        self._rates = make_table()
        self._writes = make_write_table(len(listeners), born=time.monotonic())
        self.known_keys: Callable[[], dict[str, Any]] = dict  # by issuer, for workers that begin
        self._known_members: Any = {}
        self._serial = 0
        self.want_keys: Callable[[str], None] = lambda _: None
        self._slots = [Slot(number, listener) for number, listener in enumerate(listeners)]
        self._routes = routes
        self._secret = secret
        self._drain_seconds = drain_seconds
        self._hub = hub
        self._stop = asyncio.Event()
        self._changed = asyncio.Condition()
        self._notifiers: set[asyncio.Task[None]] = set()

    @property
    def slots(self) -> list[Slot]:
        """The slots, by id."""
        return self._slots

    def use(self, routes: Routes) -> None:
        """Tell every worker to use `routes`."""
        self._routes = routes
        message = {"t": "routes", "routes": routes.as_wire()}
        for slot in self._slots:
            if slot.link is not None:
                slot.link.send(message)

    def tell_members(self, known: Any) -> None:
        """Tell every worker which instances there are, and which are down."""
        self._known_members = known
        for slot in self._slots:
            if slot.link is not None:
                slot.link.send({"t": "members", "of": known})

    def instances(self, backend: str) -> dict[Address, dict[str, Any]]:
        """What all workers together said of each instance of a backend."""
        merged: dict[Address, dict[str, Any]] = {}
        for slot in self._slots:
            for said in slot.members.get(backend, ()):
                into = merged.setdefault(
                    Address(*said["at"]), {"pending": 0, "requests": 0, "breaker": BreakerState.CLOSED.value}
                )
                into["pending"] += said["pending"]
                into["requests"] += said["requests"]
                into["breaker"] = _worst({into["breaker"], said["breaker"]})
        return merged

    def tell_keys(self, issuer: str, keys: list[dict[str, Any]] | None) -> None:
        """Tell every worker the keys of an issuer (None: there are none yet)."""
        for slot in self._slots:
            if slot.link is not None:
                slot.link.send({"t": "keys", "issuer": issuer, "keys": keys})

    async def empty_caches(self, groups: Sequence[str], seconds: float) -> bool:
        """Empty the caches of `groups` in every worker; did all do so within `seconds`? A worker that begins has
        an empty one."""
        self._serial += 1
        serial = self._serial
        asked = self._tell_to_empty(groups, serial)

        def done() -> bool:
            return all(slot.invalidated >= serial or slot.link is not link for slot, link in asked)

        try:
            async with self._changed, asyncio.timeout(seconds):
                await self._changed.wait_for(done)
        except TimeoutError:
            return False
        return True

    def _tell_to_empty(
        self, groups: Sequence[str], serial: int, *, but: Slot | None = None
    ) -> list[tuple[Slot, Link]]:
        asked = [(slot, slot.link) for slot in self._slots if slot.link is not None and slot is not but]
        for _, link in asked:
            link.send({"t": "invalidate", "groups": list(groups), "serial": serial})
        return asked

    async def wait_for_version(self, version: str, seconds: float) -> bool:
        """Wait until every worker runs `version`, at most `seconds`."""

        def all_there() -> bool:
            return all(slot.version == version for slot in self._slots)

        try:
            async with self._changed, asyncio.timeout(seconds):
                await self._changed.wait_for(all_there)
        except TimeoutError:
            return False
        return True

    def ready(self) -> bool:
        """Does every worker serve?"""
        return not self._stop.is_set() and all(slot.version is not None for slot in self._slots)

    def breaker(self, backend: str) -> str:
        """The worst state of a backend's breaker over all workers."""
        return _worst({slot.breakers.get(backend, BreakerState.CLOSED.value) for slot in self._slots})

    async def keep(self, slot: Slot) -> None:
        """Keep a worker in `slot` until `stop`."""
        log = structlog.get_logger()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                process = await self._spawn(slot)
            except OSError as error:  # no memory, no descriptors, too many processes: it may pass
                log.error("worker cannot be started, trying again", worker=slot.id, reason=str(error))  # noqa: TRY400  # no fault of ours, a traceback would not help
                await self._pause(slot)
                continue
            if self._stop.is_set():  # `stop` came while it was being started and did not see it
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            code = await process.wait()
            if slot.link is not None:
                await slot.link.lost.wait()  # what it sent last is still in the socket: read on until its end
            slot.process, slot.link, slot.version = None, None, None
            slot.breakers.clear()
            slot.members.clear()
            if self._stop.is_set():
                return
            slot.restarts += 1
            if time.monotonic() - began > _STABLE_SECONDS:
                slot.pause = _FIRST_PAUSE
            log.error("worker died, replacing it", worker=slot.id, pid=process.pid, code=code)
            await self._pause(slot)

    async def _pause(self, slot: Slot) -> None:
        """Let some time pass, twice as much the next time; `stop` cuts it short."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), slot.pause)
        slot.pause = min(slot.pause * 2, _LONGEST_PAUSE)

    async def stop(self) -> None:
        """Ask every worker to finish and end; kill those that do not within the drain time."""
        self._stop.set()
        for slot in self._slots:
            slot.listener.close()
            if slot.process is not None and slot.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                    slot.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + 2.0
        for slot in self._slots:
            process = slot.process
            if process is None:
                continue
            try:
                await asyncio.wait_for(process.wait(), max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                structlog.get_logger().error("worker did not end, killing it", worker=slot.id)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        os.close(self._rates)
        os.close(self._writes)

    async def _spawn(self, slot: Slot) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies in the working directory is not to stand in for modules of ours
                "-m",
                "strangler_proxy.start",
                str(theirs.fileno()),
                str(slot.listener.fileno()),
                str(self._rates),
                str(self._writes),
                pass_fds=(theirs.fileno(), slot.listener.fileno(), self._rates, self._writes),
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": _python_path()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        link = Link(lambda message: self._on_message(slot, message))
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        slot.process, slot.link = process, link
        link.send(
            {
                "t": "start",
                "routes": self._routes.as_wire(),
                "secret": self._secret.hex(),
                "drain_seconds": self._drain_seconds,
                "keys": self.known_keys(),
                "members": self._known_members,
                "row": slot.id,
                "rows": len(self._slots),
            }
        )
        return process

    def _on_message(self, slot: Slot, message: Message) -> None:
        match message["t"]:
            case "applied":
                slot.version = message["version"]
                slot.since_ns = slot.applied_at_ns = message["at_ns"]
                slot.compiled = message["compiled"]
                self._hub.switched(slot.id, message["version"], message["at_ns"])
                self._something_changed()
            case "invalidated":
                slot.invalidated = max(slot.invalidated, message["serial"])
                self._something_changed()
            case "emptied":
                self._tell_to_empty([message["group"]], 0, but=slot)
            case "outcomes":
                self._hub.outcomes(slot.id, message)
            case "comparisons":
                self._hub.comparisons.add(message)
            case "keys_wanted":
                self.want_keys(message["issuer"])
            case "members":
                slot.members = message["of"]
            case "breaker":
                slot.breakers[message["backend"]] = message["state"]
            case other:
                structlog.get_logger().error("unknown message from a worker", worker=slot.id, type=other)

    def _something_changed(self) -> None:
        task = asyncio.ensure_future(self._notify())
        self._notifiers.add(task)
        task.add_done_callback(self._notifiers.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _worst(states: set[str]) -> str:
    for state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
        if state.value in states:
            return str(state.value)
    return str(BreakerState.CLOSED.value)


def _python_path() -> str:
    """The worker finds this package wherever the parent found it."""
    here = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return f"{here}{os.pathsep}{inherited}" if inherited else here


def make_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets on one port. Raises OSError (EADDRINUSE when the port is taken).

    The first is opened without SO_REUSEPORT, or two proxies of one user would silently share a port.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
        bound: Any = probe.getsockname()
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(bound)
            listener.listen(4096)
            listener.setblocking(False)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners
