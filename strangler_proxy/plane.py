"""The data path of one worker: what its connections share.

Routes are replaced whole by one assignment (`apply`); a request keeps the routes it began with. Pools and
breakers outlive a change of routes as long as their backend is the same.

Deadlines are looked at every 25 ms, instead of one timer for each request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from chassis.resilience.breaker import Breaker, BreakerState
from strangler_proxy.cluster.members import Members
from strangler_proxy.cluster.several import Address
from strangler_proxy.decide import Choices, choices_of
from strangler_proxy.downstream import ClientConnection
from strangler_proxy.duties import Duty, build
from strangler_proxy.exchange import Exchange
from strangler_proxy.gateway.rate_table import RateTable
from strangler_proxy.gateway.state import GatewayState
from strangler_proxy.guard import Guard
from strangler_proxy.identity import CookieSigner, Digests
from strangler_proxy.outcomes import Recorder
from strangler_proxy.request import Client, Request
from strangler_proxy.table import Backend, Group, Routes
from strangler_proxy.tls import HANDSHAKE_SECONDS, FollowedContext
from strangler_proxy.tunnel import Tunnel
from strangler_proxy.upstream import Pool
from strangler_proxy.write_table import WriteTable, make_write_table

if TYPE_CHECKING:
    from strangler_proxy.comparisons import Recorder as ComparisonRecorder

_TICK = 0.025
_SWEEP = 1.0


@lru_cache(maxsize=256)
def _networks(trusted: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in trusted)


class Expiring(Protocol):
    """An exchange, as far as deadlines go: `expired` is called at or after `deadline` (the loop's clock)."""

    deadline: float

    def expired(self, now: float) -> None:
        """The deadline has passed."""


class DataPlane:
    """Serves clients on listening sockets by the current routes.

    `on_outcome(urgent)` is called after an outcome was recorded; `on_breaker(backend, state)` when one
    changed; `want_keys(issuer)` when a token's key is not known (`gateway.keys_came` answers);
    `tell_emptied(group)` when a group's cache was emptied here. `rates` is the table of rate limits that all
    workers share; without one, limits hold for this worker alone.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        signer: CookieSigner,
        loop: asyncio.AbstractEventLoop,
        on_outcome: Callable[[bool], None],
        on_breaker: Callable[[str, BreakerState], None],
        rates: RateTable | None = None,
        writes: WriteTable | None = None,
        want_keys: Callable[[str], None] = lambda _: None,
        tell_emptied: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.routes = routes
        self.gateway = GatewayState(rates, want_keys, tell_emptied)
        self.rest_duties: tuple[Duty, ...] = ()  # of requests that no group claims
        self.under_way: dict[str, int] = {}  # by group; what bulkheads count, whatever routes they came with
        self.duties: dict[str, tuple[Duty, ...]] = {}  # by group; only groups that have some
        self.choices: dict[str, Choices] = {}  # by group
        self.signer = signer
        self.digests = Digests()
        self.loop = loop
        self.recorder = Recorder()
        self.comparisons: ComparisonRecorder | None = None  # once some group asks for them
        self.active: set[Expiring] = set()
        self.clients: set[ClientConnection | Tunnel] = set()
        self.draining = False
        self.now = loop.time
        self._on_outcome = on_outcome
        self._on_breaker = on_breaker
        self._pools: dict[str, Pool] = {}
        self._breakers: dict[str, Breaker] = {}
        self._told: dict[str, BreakerState] = {}  # by backend: what `on_breaker` was told last
        self._known: dict[str, dict[str, list[Address]]] = {}
        self._members: dict[str, Members] = {}  # by backend; only those of several instances
        self._servers: list[asyncio.Server] = []
        self._front: FollowedContext | None = None
        self._id_prefix = secrets.token_hex(10).encode()
        self._id_count = 0
        self._empty = asyncio.Event()
        self._next_sweep = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writes = writes
        self.guard: Guard | None = None  # of those who wrote; None when the routes want none
        self._set_guard(begins=False)
        self._prepare_groups()
        self._gather_members()
        self._tick()

    async def listen(self, listener: socket.socket) -> None:
        """Serve on `listener`, a bound TCP socket; with TLS when the routes ask for it now."""
        front = self.routes.tls
        if front is not None:
            self._front = FollowedContext(front)
        server = await self.loop.create_server(
            lambda: ClientConnection(self).protocol(),
            sock=listener,
            backlog=4096,
            ssl=self._front.context if self._front is not None else None,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._front is not None else None,
        )
        self._servers.append(server)

    def _look_at_certificate(self) -> None:
        said = self._front.look() if self._front is not None else None
        if said:
            structlog.get_logger().error("new certificate refused, the old one stays", reason=said)
        elif said is not None:
            structlog.get_logger().info("new certificate in use")

    def apply(self, routes: Routes) -> None:
        """Use `routes` for every request that begins from now on."""
        self.routes = routes
        if self._front is not None and routes.tls is not None:
            self._front.front = routes.tls
        self._set_guard(begins=True)
        self._prepare_groups()
        self._gather_members()
        self._let_go()

    def _let_go(self) -> None:
        """Part with what belongs to no backend of the routes any more; the rest goes by the new policies."""
        kept = {backend.key: backend for backend in self.routes.backends.values() if backend.several is None}
        for members in self._members.values():
            kept |= {instance.key: instance for instance in members.instances}
        for key in [key for key in self._pools if key not in kept]:
            self._pools.pop(key).close()
        for key in [key for key in self._breakers if key not in kept]:
            del self._breakers[key]
        for key, backend in kept.items():
            if key in self._pools:
                self._pools[key].backend = backend
            if key in self._breakers:
                self._breakers[key].policy = backend.breaker
        for name in list(self._told):
            self._tell_breaker(name)

    def members_came(self, known: dict[str, dict[str, list[list[Any]]]]) -> None:
        """The parent tells, by backend, `at` which addresses instances are and which of them are `down`."""
        self._known = {
            name: {kind: [Address(*each) for each in addresses] for kind, addresses in said.items()}
            for name, said in known.items()
        }
        self._gather_members()
        self._let_go()

    def _gather_members(self) -> None:
        before, self._members = self._members, {}
        for name, backend in self.routes.backends.items():
            if backend.several is None:
                continue
            known = self._known.get(name, {})
            addresses = (
                known.get("at", ()) if backend.several.source is not None else backend.several.addresses
            )
            members = self._members[name] = before.get(name) or Members(self, backend, addresses)
            members.replace(backend, addresses, known.get("down", ()))

    def report_members(self) -> dict[str, list[dict[str, Any]]]:
        """How the instances of each backend that has several stand in this worker."""
        return {name: members.report() for name, members in self._members.items()}

    def instance(
        self, backend: Backend, *, safe: bool, counts: bool = True, tried: Collection[Backend] = ()
    ) -> Backend | None:
        """The instance of `backend`, which has several, that takes a request now; None when none can."""
        return self._members_of(backend).choose(safe=safe, counts=counts, tried=tried)

    def _members_of(self, backend: Backend) -> Members:
        """Those of `backend`; a request may outlive its backend's place in the routes, and goes by what it
        began with then."""
        members = self._members.get(backend.name)
        if members is None:
            addresses = backend.several.addresses if backend.several is not None else ()
            members = Members(self, backend, addresses)
        return members

    def _set_guard(self, *, begins: bool) -> None:
        """`begins`: requests have come already, and were not watched unless there is a guard."""
        if not self.routes.guards:
            self.guard = None
        elif self.guard is not None:
            self.guard.use()
        else:
            if self._writes is None:
                self._writes = WriteTable(make_write_table(1), row=0, rows=1)
            if begins:
                self._writes.begin(self.now())
            self.guard = Guard(self, self._writes)

    def _prepare_groups(self) -> None:
        routes = self.routes
        self.digests.forget()
        self.gateway.believe(routes.issuers)
        built = {name: build(group, self) for name, group in routes.groups.items()}
        self.duties = {name: duties for name, duties in built.items() if duties}
        self.choices = {name: choices_of(group, routes.default) for name, group in routes.groups.items()}
        self.rest_duties = build(self.routes.rest, self) if self.routes.rest is not None else ()

    def comparison_recorder(self) -> ComparisonRecorder:
        """Where comparisons are recorded; there from the first group that asks for them."""
        if self.comparisons is None:
            from strangler_proxy.comparisons import Recorder as ComparisonRecorder  # noqa: PLC0415  # costs nothing when off

            self.comparisons = ComparisonRecorder(secrets.token_bytes(16))
        return self.comparisons

    def subject(self, request: Request, group: Group) -> bytes:
        """Whom a request's token names, verified; empty when it has none, or its keys are not here yet."""
        tokens = self.gateway.tokens
        if tokens is None or group.auth is None or group.auth.token is None:
            return b""
        return tokens.subject(request.headers, group.auth.token, time.time())

    def exchange(self, client: Client, request: Request, *, limit: float) -> Exchange:
        """A request on behalf of a client that is none of ours: to be started by who asks. Each attempt at it may
        take `limit` seconds."""
        exchange = Exchange(self, client, request, complete=True)
        exchange.limit = limit
        return exchange

    def pool(self, backend: Backend) -> Pool:
        """The connections to a backend, or to one instance of several."""
        pool = self._pools.get(backend.key)
        if pool is None:
            if backend.several is not None:
                instance = self.instance(backend, safe=True, counts=False)
                return Pool(backend, loop=self.loop) if instance is None else self.pool(instance)
            pool = self._pools[backend.key] = Pool(backend, loop=self.loop)
        return pool

    def breaker_permits(self, backend: Backend) -> int | None:
        """The breaker's epoch when a request may be sent to `backend`, to be given back; else None."""
        breaker = self.breaker(backend)
        before = breaker.state
        if before is BreakerState.CLOSED:
            return breaker.epoch
        permitted = breaker.permit(self.now())
        if breaker.state is not before:
            self._tell_breaker(backend.name)
        return breaker.epoch if permitted else None

    def breaker_pause(self, backend: Backend) -> float:
        """Seconds until the next request may be tried on a backend that is given a pause."""
        if backend.several is not None:
            return self._members_of(backend).pause()
        return self.breaker(backend).retry_after(self.now())

    def breaker_record(self, backend: Backend, *, ok: bool, epoch: int) -> None:
        """How a request permitted in `epoch` ended."""
        breaker = self.breaker(backend)
        before = breaker.state
        breaker.record(ok=ok, now=self.now(), epoch=epoch)
        if breaker.state is not before:
            self._tell_breaker(backend.name)

    def breaker_forget(self, backend: Backend, *, epoch: int) -> None:
        """A request permitted in `epoch` ended without evidence."""
        self.breaker(backend).forget(epoch=epoch)

    def breaker(self, backend: Backend) -> Breaker:
        """The breaker of a backend with one instance, or of an instance."""
        breaker = self._breakers.get(backend.key)
        if breaker is None:
            breaker = self._breakers[backend.key] = Breaker(backend.breaker)
        return breaker

    def _tell_breaker(self, name: str) -> None:
        """Say how the breaker of the backend `name` stands, unless it was said before."""
        backend, members = self.routes.backends.get(name), self._members.get(name)
        state = BreakerState.CLOSED
        if members is not None:
            state = members.breaker()
        elif backend is not None and backend.key in self._breakers:
            state = self._breakers[backend.key].state
        if state is not self._told.get(name, BreakerState.CLOSED):
            self._told[name] = state
            self._on_breaker(name, state)

    def outcome_recorded(self, *, urgent: bool) -> None:
        """The recorder has something new."""
        self._on_outcome(urgent)

    def new_request_id(self) -> bytes:
        """Unique in the fleet, cheap to make: a random prefix for the worker and a count."""
        self._id_count += 1
        return b"%b-%x" % (self._id_prefix, self._id_count)

    def new_anonymous_id(self) -> bytes:
        """128 random bits, base64url."""
        return urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=")

    def trusts_hop(self, address: bytes) -> bool:
        """As `trusts`, of what a header says is an address."""
        try:
            return self.trusts(address.decode("ascii"))
        except ValueError:
            return False

    def trusts(self, address: str) -> bool:
        """Are the X-Forwarded-* headers of a client at `address` believed?"""
        if not self.routes.trusted:
            return False
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped  # an IPv4 client of a socket that listens on ::
        return any(parsed in network for network in _networks(self.routes.trusted))

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """A tunnel holds a client's connection now."""
        self.clients.add(tunnel)

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """It is gone."""
        self.clients.discard(tunnel)
        self.client_left()

    def client_left(self) -> None:
        """A client's connection is gone."""
        if self.draining and not self.clients:
            self._empty.set()

    async def drain(self, seconds: float) -> bool:
        """Accept nothing more, let what runs finish for at most `seconds`; True when everything did."""
        self.draining = True
        for server in self._servers:
            server.close()
        for client in list(self.clients):
            client.drain()
        finished = True
        if self.clients:
            try:
                await asyncio.wait_for(self._empty.wait(), seconds)
            except TimeoutError:
                finished = False
        for client in list(self.clients):
            client.cut()
        if self._timer is not None:
            self._timer.cancel()
        if self.guard is not None:
            self.guard.close()
        for pool in self._pools.values():
            pool.close()
        return finished

    def _tick(self) -> None:
        # First of all, so that no fault of ours can stop the clock.
        self._timer = self.loop.call_later(_TICK, self._tick)
        now = self.now()
        late = [exchange for exchange in self.active if now >= exchange.deadline]
        for exchange in late:
            exchange.expired(now)
        if self.guard is not None:
            self.guard.poll(now)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            self._look_at_certificate()
            for pool in self._pools.values():
                pool.sweep(now)
            for client in list(self.clients):
                client.sweep(now)
