"""Follows lists of instances and probes the instances; the parent's part.

    use(routes)    at the start and whenever routes change: what stays the same goes on undisturbed
    known()        for the workers: addresses, and which of them are down
    standing(name) for people: every instance with its health, and what is wrong with the list

A list that becomes broken changes nothing: the fault is logged, shown, and the last good list stays. A probe is a
`GET` on a connection of its own (a server that has no room for another connection is not well), its redirects are
not followed, and its time-out covers everything. Probes of one backend are spread over the interval.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.cluster.discover import NoListError, from_environment, read_list, resolve
from strangler_proxy.cluster.health import Health
from strangler_proxy.cluster.several import Address, FromDns, FromEnvironment, FromFile, HealthPolicy, Several
from strangler_proxy.fetch import fetched
from strangler_proxy.table import Backend, Routes
from strangler_proxy.upstream import Pool

_LOOK_SECONDS = 0.2  # how often a file is looked at
_LARGEST_ANSWER = 65_536  # bytes of a probe's answer that are read

_Stamp = tuple[int, int, int]
Known = dict[str, dict[str, list[Address]]]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe found: `why` is empty when it was good."""

    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the parent knows it; `probe` is the last one, None before the first and without checks."""

    address: Address
    health: Health
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A backend's instances; `fault` is what is wrong with their list, empty when nothing is."""

    instances: tuple[Instance, ...]
    fault: str = ""


@dataclass(slots=True)
class _Followed:
    backend: Backend
    several: Several
    addresses: tuple[Address, ...] = ()
    fault: str = ""
    found: dict[Address, Instance] = field(default_factory=dict)
    probing: dict[Address, asyncio.Task[None]] = field(default_factory=dict)
    following: asyncio.Task[None] | None = None
    tried: asyncio.Event = field(default_factory=asyncio.Event)  # set once the list was had, or could not be

    def cancel(self) -> None:
        for task in (*self.probing.values(), *((self.following,) if self.following else ())):
            task.cancel()


class Watch:
    """`base` is the folder that files in the routes file are relative to; `tell` is called after every change,
    with what `known` gives. Tasks run in `tasks` until `close`; `resolver` asks DNS."""

    def __init__(
        self,
        *,
        base: Path,
        tell: Callable[[Known], None],
        tasks: asyncio.TaskGroup,
        resolver: Callable[[FromDns], Awaitable[tuple[Address, ...]]] = resolve,
    ) -> None:
        self._base = base
        self._tell = tell
        self._tasks = tasks
        self._resolve = resolver
        self._followed: dict[str, _Followed] = {}

    def use(self, routes: Routes) -> None:
        """Follow the backends of `routes`."""
        wanted = {name: backend for name, backend in routes.backends.items() if backend.several is not None}
        for name in [name for name in self._followed if name not in wanted]:
            self._followed.pop(name).cancel()
        for name, backend in wanted.items():
            assert backend.several is not None
            before = self._followed.get(name)
            if before is not None and before.several == backend.several:
                before.backend = backend
                continue
            followed = self._followed[name] = _Followed(backend, backend.several)
            if before is not None:
                before.cancel()
                followed.addresses = before.addresses  # until the new list is there
                if before.several.health == backend.several.health:
                    followed.found = dict(before.found)
            self._begin(followed)
        if wanted:
            self._tell(self.known())

    def known(self) -> Known:
        """By backend: the addresses `at` which instances are, and those of them that are `down`."""
        return {
            name: {
                "at": list(followed.addresses),
                "down": [each for each in followed.addresses if not _instance(followed, each).health.up],
            }
            for name, followed in self._followed.items()
        }

    def standing(self, name: str) -> Standing | None:
        """How the instances of a backend are; None when it has no several."""
        followed = self._followed.get(name)
        if followed is None:
            return None
        instances = tuple(_instance(followed, address) for address in followed.addresses)
        return Standing(instances, followed.fault)

    async def settle(self, seconds: float) -> None:
        """Wait until every list was had once, or could not be, at most `seconds`."""

        try:
            async with asyncio.timeout(seconds):
                for followed in list(self._followed.values()):
                    await followed.tried.wait()
        except TimeoutError:
            slow = [name for name, followed in self._followed.items() if not followed.addresses]
            structlog.get_logger().warning("instances are not known yet", backends=slow)

    def close(self) -> None:
        """End every task."""
        for followed in self._followed.values():
            followed.cancel()

    # Lists

    def _begin(self, followed: _Followed) -> None:
        match followed.several.source:
            case None:
                self._listed(followed, followed.several.addresses)
            case FromEnvironment() as source:
                try:
                    self._listed(followed, from_environment(source, os.environ))
                except NoListError as error:
                    self._failed(followed, error)
            case FromFile(path):
                stamp = _stamp(self._base / path)
                self._read(followed, self._base / path)
                following = self._follow_file(followed, self._base / path, stamp)
                followed.following = self._tasks.create_task(following)
            case FromDns() as source:
                followed.following = self._tasks.create_task(self._follow_dns(followed, source))

    async def _follow_file(self, followed: _Followed, path: Path, seen: _Stamp | None) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            stamp = _stamp(path)
            if stamp != seen:
                seen = stamp  # taken before reading: an edit meanwhile is seen at the next look
                self._read(followed, path)

    def _read(self, followed: _Followed, path: Path) -> None:
        try:
            self._listed(followed, read_list(path))
        except NoListError as error:
            self._failed(followed, error)

    async def _follow_dns(self, followed: _Followed, source: FromDns) -> None:
        while True:
            try:
                self._listed(followed, await self._resolve(source))
            except NoListError as error:
                self._failed(followed, error)
            await asyncio.sleep(source.every)

    def _failed(self, followed: _Followed, error: NoListError) -> None:
        followed.tried.set()
        if str(error) == followed.fault:
            return
        followed.fault = str(error)
        structlog.get_logger().warning(
            "instances cannot be told, the last known stay",
            backend=followed.backend.name,
            fault=error.fault,
            remedy=error.remedy,
            instances=[address.url for address in followed.addresses],
        )

    def _listed(self, followed: _Followed, addresses: tuple[Address, ...]) -> None:
        followed.fault = ""
        followed.tried.set()
        changed = addresses != followed.addresses
        followed.addresses = addresses
        for address in [address for address in followed.probing if address not in addresses]:
            followed.probing.pop(address).cancel()
            followed.found.pop(address, None)
        policy = followed.several.health
        if policy is not None:
            for place, address in enumerate(addresses):
                if address not in followed.probing:
                    probing = self._probe(followed, address, policy, place / len(addresses))
                    followed.probing[address] = self._tasks.create_task(probing)
        if changed and self._followed.get(followed.backend.name) is followed:
            structlog.get_logger().info(
                "instances", backend=followed.backend.name, instances=[address.url for address in addresses]
            )
            self._tell(self.known())

    # Probes

    async def _probe(self, followed: _Followed, address: Address, policy: HealthPolicy, phase: float) -> None:
        """`phase`: where in the interval, from 0 to 1; the first probe is made at once."""
        pause = policy.every * (1 + phase)
        while True:
            probe = await probed(followed.backend.at(address), policy)
            before = _instance(followed, address)
            health = before.health.after(good=not probe.why, policy=policy)
            followed.found[address] = Instance(address, health, probe)
            if health.up is not before.health.up:
                structlog.get_logger().warning(
                    "instance is up" if health.up else "instance is down",
                    backend=followed.backend.name,
                    instance=address.url,
                    reason=probe.why or f"answers {policy.path}",
                )
                self._tell(self.known())
            await asyncio.sleep(pause)
            pause = policy.every


class _OneConnection:
    """What `fetch` needs of a data plane: a pool, of one connection, that is used once."""

    def __init__(self, backend: Backend) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self._pool = Pool(backend, loop=self.loop)

    def pool(self, _backend: Backend) -> Pool:
        return self._pool

    def close(self) -> None:
        self._pool.close()


async def probed(instance: Backend, policy: HealthPolicy) -> Probe:
    """Ask `instance` once."""
    connection = _OneConnection(instance)
    host = policy.host or instance.url.partition("://")[2]
    try:
        answer = await fetched(
            connection,
            backend=instance,
            target=policy.path.encode(),
            lines=[
                f"Host: {host}\r\n".encode(),
                b"User-Agent: strangler-health\r\nAccept: */*\r\nConnection: close\r\n",
            ],
            seconds=policy.timeout,
            max_body=_LARGEST_ANSWER,
        )
    finally:
        connection.close()
    if answer.failure is not None:
        return Probe(answer.failure.value, answer.seconds)
    return Probe("" if 200 <= answer.status < 300 else f"answers {answer.status}", answer.seconds)


def list_faults(routes: Routes, places: Places, base: Path) -> Iterator[Problem]:
    """What of the lists in `routes` cannot be used on this machine, each at its line. Names are not resolved: that
    they are not now says little about later."""
    for name, backend in routes.backends.items():
        source = backend.several.source if backend.several is not None else None
        try:
            match source:
                case FromFile(path):
                    read_list(base / path)
                case FromEnvironment():
                    from_environment(source, os.environ)
                case _:
                    pass
        except NoListError as error:
            yield places.problem(("backends", name, "discover"), error.fault, error.remedy)


def as_json(standing: Standing, reports: Mapping[Address, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The `instances` of `/admin/status`; `reports` is what workers said of each."""
    return [
        {
            "url": instance.address.url,
            "up": instance.health.up,
            "health": None if instance.probe is None else instance.health.state.value,
            "reason": None if instance.probe is None else instance.probe.why,
            "probe_ms": None if instance.probe is None else round(instance.probe.seconds * 1000, 3),
            **reports.get(instance.address, {"pending": 0, "requests": 0, "breaker": "closed"}),
        }
        for instance in standing.instances
    ]


def _instance(followed: _Followed, address: Address) -> Instance:
    return followed.found.get(address) or Instance(address, Health())


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
