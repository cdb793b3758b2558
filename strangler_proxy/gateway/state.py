"""What a worker's duties remember beyond one version of the routes: a change of a percentage must not log
anybody out, empty a cache or forget a key.

Made when the first duty asks for it. Each part is keyed by the values it belongs to, so another configuration
begins empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strangler_proxy.gateway.auth import Issuer, SessionCheck
from strangler_proxy.gateway.cache_store import CacheStore
from strangler_proxy.gateway.rate_table import RateTable, make_table
from strangler_proxy.gateway.remembered import Remembered
from strangler_proxy.gateway.rfc9111 import CachePolicy

if TYPE_CHECKING:
    from strangler_proxy.gateway.tokens import Jwk, Tokens


@dataclass(slots=True)
class GatewayState:
    """`rates` is the table that all workers share; without one, limits hold for this worker alone.
    `want_keys(issuer)` asks the parent for newer keys, `tell_emptied(group)` tells it that the other workers must
    empty a group's cache too."""

    rates: RateTable | None
    want_keys: Callable[[str], None]
    tell_emptied: Callable[[str], None]
    tokens: Tokens | None = None
    _sessions: dict[tuple[str, SessionCheck], Remembered[bytes]] = field(default_factory=dict)
    _stores: dict[tuple[str, CachePolicy], CacheStore] = field(default_factory=dict)
    _keys: dict[str, list[Jwk] | None] = field(default_factory=dict)

    def rate_table(self) -> RateTable:
        """The state of rate limits."""
        if self.rates is None:
            self.rates = RateTable(make_table())
        return self.rates

    def sessions(self, group: str, check: SessionCheck) -> Remembered[bytes]:
        """The sessions of `group` that were found good."""
        return self._sessions.setdefault((group, check), Remembered())

    def store(self, group: str, policy: CachePolicy) -> CacheStore:
        """The cache of `group`. A policy that was changed begins anew, and what the old one kept is let go."""
        if (group, policy) not in self._stores:
            for other in [key for key in self._stores if key[0] == group]:
                self._stores.pop(other).clear()
            self._stores[group, policy] = CacheStore(policy.room)
        return self._stores[group, policy]

    def empty(self, groups: Sequence[str]) -> None:
        """Forget every answer of these groups, and keep none that is under way."""
        for (group, _), store in self._stores.items():
            if group in groups:
                store.clear()

    def emptied(self, group: str) -> None:
        """An unsafe request of `group` succeeded: empty its cache, here at once and in the other workers as
        soon as they hear of it."""
        self.empty((group,))
        self.tell_emptied(group)

    def believe(self, issuers: Mapping[str, Issuer]) -> None:
        """Verify tokens of these issuers from now on."""
        if issuers and self.tokens is None:
            # brings PyJWT and cryptography with it: some ten megabytes that most routes files do not need
            from strangler_proxy.gateway.tokens import Tokens  # noqa: PLC0415

            self.tokens = Tokens(self.want_keys)
        if self.tokens is not None:
            self.tokens.use(issuers)
            for name in issuers:
                if name in self._keys:
                    self.tokens.put(name, self._keys[name])

    def keys_came(self, name: str, jwks: list[Jwk] | None) -> None:
        """The parent told the keys of issuer `name`; None: there are none yet."""
        self._keys[name] = jwks
        if self.tokens is not None:
            self.tokens.put(name, jwks)
