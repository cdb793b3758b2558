"""The duties a group asks for, made from its frozen values in the order in which they are asked.

Loaded by `duties.build` only when some group asks for one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from strangler_proxy.duties import Duty
from strangler_proxy.gateway.aggregating import Aggregating
from strangler_proxy.gateway.caching import Caching
from strangler_proxy.gateway.limiting import Limiting
from strangler_proxy.gateway.rates import Counted
from strangler_proxy.gateway.remembered import Remembered
from strangler_proxy.table import Group

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane


def gateway_duties(group: Group, plane: DataPlane) -> Sequence[Duty]:
    """The duties of `group`. The cache comes last: it keeps what the client is given."""
    duties = list(_before_the_cache(group, plane))
    if group.cache is not None:
        store = plane.gateway.store(group.name, group.cache)
        duties.append(Caching(group.cache, store=store, before=duties, emptied=plane.gateway.emptied))
    if group.aggregate is not None:
        duties.append(Aggregating(group.aggregate))
    return duties


def _before_the_cache(group: Group, plane: DataPlane) -> Iterator[Duty]:
    """Limits that count a token's subject come after the token was verified, the others
    before, so that refusing is cheaper than verifying."""
    state = plane.gateway
    before = [limit for limit in group.rates if limit.counted is not Counted.SUBJECT]
    after = [limit for limit in group.rates if limit.counted is Counted.SUBJECT]
    if before:
        yield Limiting(before, table=state.rate_table(), signer=plane.signer)
    if group.auth is not None:
        # It brings PyJWT and cryptography with it
        from strangler_proxy.gateway.guarding import Guarding  # noqa: PLC0415

        session = group.auth.session
        sessions = state.sessions(group.name, session) if session is not None else Remembered[bytes]()
        yield Guarding(group.auth, tokens=state.tokens, sessions=sessions)
    if after:
        yield Limiting(after, table=state.rate_table(), signer=plane.signer)
    if group.transforms is not None:
        # RE2 is loaded only where a path or header is changed
        from strangler_proxy.gateway.transforming import Transforming  # noqa: PLC0415

        yield Transforming(group.transforms, default=plane.routes.default)
