"""What a worker's duties remember beyond one version of the routes: a change of a percentage must not log
anybody out, empty a cache or forget a key.

Made when the first duty asks for it. Each part is keyed by the values it belongs to, so another configuration
begins empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strangler_proxy.gateway.auth import Issuer, SessionCheck
from strangler_proxy.gateway.rate_table import RateTable, make_table
from strangler_proxy.gateway.remembered import Remembered

if TYPE_CHECKING:
    from strangler_proxy.gateway.tokens import Jwk, Tokens


@dataclass(slots=True)
class GatewayState:
    """`rates` is the table that all workers share; without one, limits hold for this worker alone.
    `want_keys(issuer)` asks the parent for newer keys."""

    rates: RateTable | None
    want_keys: Callable[[str], None]
    tokens: Tokens | None = None
    _sessions: dict[tuple[str, SessionCheck], Remembered[bytes]] = field(default_factory=dict)
    _keys: dict[str, list[Jwk] | None] = field(default_factory=dict)

    def rate_table(self) -> RateTable:
        """The state of rate limits."""
        if self.rates is None:
            self.rates = RateTable(make_table())
        return self.rates

    def sessions(self, group: str, check: SessionCheck) -> Remembered[bytes]:
        """The sessions of `group` that were found good."""
        return self._sessions.setdefault((group, check), Remembered())

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
