"""The instances of one backend in one worker: which there are, which are up, and who takes the next request.

Connections and breakers are the data plane's, one of each for an instance; how many requests an instance has is
what its connections say, so nothing is counted on the way of a request but its turn.

The breaker of the backend as a whole is the sum: closed while one instance's is, open when all are.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from chassis.resilience.breaker import BreakerState
from strangler_proxy.cluster.choose import Standing, choose
from strangler_proxy.cluster.several import Address
from strangler_proxy.table import Backend

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

MOST_TRIES = 4  # instances that one request is tried on
_FIRST_SHARE = 0.1  # of its turns that a newcomer takes at first


class Members:
    """Invariant: `instances` hold no address twice. `_since`: when an instance joined or came back, for those that
    did so after the beginning."""

    def __init__(self, plane: "DataPlane", backend: Backend, addresses: Sequence[Address]) -> None:
        self._plane = plane
        self._turn = 0
        self._down: frozenset[str] = frozenset()
        self._since: dict[str, float] = {}
        self._chosen: Counter[str] = Counter()
        self.backend = backend
        self.instances: tuple[Backend, ...] = tuple(backend.at(address) for address in addresses)

    def replace(self, backend: Backend, addresses: Iterable[Address], down: Iterable[Address]) -> None:
        """These from now on; requests under way end where they are."""
        before, were_down = {instance.url for instance in self.instances}, self._down
        self.backend = backend
        self.instances = tuple(backend.at(address) for address in addresses)
        self._down = frozenset(address.url for address in down)
        for instance in self.instances:
            new = bool(before) and instance.url not in before
            if new or (instance.url in were_down and instance.url not in self._down):
                self._since[instance.url] = self._plane.now()
        urls = {instance.url for instance in self.instances}
        self._since = {url: since for url, since in self._since.items() if url in urls}

    def choose(self, *, safe: bool, counts: bool, tried: Collection[Backend] = ()) -> Backend | None:
        """The instance that takes a request; None when nobody can. A request that does not count (a tester's)
        is not held up by breakers."""
        self._turn += 1
        standings = [self._standing(instance, counts=counts) for instance in self.instances]
        places = [place for place, instance in enumerate(self.instances) if instance in tried]
        place = choose(standings, turn=self._turn, safe=safe, tried=places)
        if place is None:
            return None
        instance = self.instances[place]
        self._chosen[instance.url] += 1
        return instance

    def _standing(self, instance: Backend, *, counts: bool) -> Standing:
        now = self._plane.now()
        breaker = self._plane.breaker(instance)
        return Standing(
            self._plane.pool(instance).pending,
            up=instance.url not in self._down,
            admits=not counts or breaker.would_permit(now),
            proven=not counts or breaker.state is BreakerState.CLOSED,
            share=self._share(instance.url, now),
        )

    def _share(self, url: str, now: float) -> float:
        since = self._since.get(url)
        several = self.backend.several
        if since is None or several is None or several.health is None or not several.health.slow_start:
            return 1.0
        return min(1.0, max(_FIRST_SHARE, (now - since) / several.health.slow_start))

    def breaker(self) -> BreakerState:
        """The sum of the instances' breakers."""
        states = {self._plane.breaker(instance).state for instance in self.instances}
        if not states or BreakerState.CLOSED in states:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if BreakerState.HALF_OPEN in states else BreakerState.OPEN

    def report(self) -> list[dict[str, Any]]:
        """For people: what each instance has and had of this worker."""
        return [
            {
                "at": [instance.host, instance.port],
                "pending": self._plane.pool(instance).pending,
                "requests": self._chosen[instance.url],
                "breaker": self._plane.breaker(instance).state.value,
            }
            for instance in self.instances
        ]

    def pause(self) -> float:
        """Seconds until one of the instances may be tried again."""
        now = self._plane.now()
        waits = [self._plane.breaker(instance).retry_after(now) for instance in self.instances]
        return min(waits, default=1.0)


class Tries:
    """On which instances of `backend` one request was tried.

    A request of which nothing was sent goes on to the next instance, whatever its method. One that was sent goes
    on once, when it is safe and was not answered: a second instance may just have been unlucky too, but a third
    would mean that the request itself does the harm.
    """

    __slots__ = ("_backend", "_counts", "_plane", "_resent", "_safe", "_tried")

    def __init__(self, plane: "DataPlane", backend: Backend, *, safe: bool, counts: bool) -> None:
        self._plane = plane
        self._backend = backend
        self._safe = safe
        self._counts = counts
        self._tried: list[Backend] = []
        self._resent = False

    def next(self, *, sent: bool = False) -> Backend | None:
        """The first instance to try or, after that, another one; None when it is over. `sent`: the last one had
        the request and did not answer it."""
        if len(self._tried) >= MOST_TRIES or (sent and (self._resent or not self._safe)):
            return None
        instance = self._plane.instance(
            self._backend, safe=self._safe, counts=self._counts, tried=self._tried
        )
        if instance is not None:
            self._tried.append(instance)
            self._resent |= sent
        return instance
