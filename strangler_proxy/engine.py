"""What carries the traffic, as the parent process sees it: Python workers (`fleet.py`) or Envoy (`envoy/`)."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from strangler_proxy.cluster.several import Address
from strangler_proxy.fleet import Slot
from strangler_proxy.table import Routes


class Engine(Protocol):
    """A data path that the parent drives. What an engine has no use for it takes and leaves be."""

    known_keys: Callable[[], dict[str, Any]]
    want_keys: Callable[[str], None]

    @property
    def name(self) -> str:
        """`python` or `envoy`."""

    @property
    def slots(self) -> list[Slot]:
        """The processes that serve, by id."""

    async def keep(self, slot: Slot) -> None:
        """Keep a process in `slot` until `stop`."""

    async def stop(self) -> None:
        """Finish what runs, then end."""

    def use(self, routes: Routes) -> None:
        """Serve by `routes` from now on; a slot's `version` tells when that is so."""

    async def wait_for_version(self, version: str, seconds: float) -> bool:
        """Wait until every slot runs `version`, at most `seconds`."""

    def ready(self) -> bool:
        """Does everything serve?"""

    def breaker(self, backend: str) -> str:
        """The state of a backend's breaker: `closed`, `half_open` or `open`."""

    def instances(self, backend: str) -> dict[Address, dict[str, Any]]:
        """What is known of each instance of a backend."""

    def tell_members(self, known: Any) -> None:
        """Which instances there are, and which are down."""

    def tell_keys(self, issuer: str, keys: list[dict[str, Any]] | None) -> None:
        """The keys of an issuer."""

    async def empty_caches(self, groups: Sequence[str], seconds: float) -> bool:
        """Empty the caches of `groups`; was it done within `seconds`?"""
