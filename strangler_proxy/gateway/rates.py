"""Rate limits: who is counted, under which key, and what the limited client is told. Pure.

The rule is the generic cell rate algorithm of `chassis/resilience/limiter.py`: at most `burst` requests at one
instant and `per_second` on average. Where the state is kept is `rate_table.py`'s business.

Several limits may apply to one request; it passes when all of them let it, and takes from none of them
otherwise, so a client that is refused by one limit does not use up another.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import blake2b

from chassis.resilience.limiter import Rate, Taken

_IPV6_PREFIX = 64  # what one customer of a provider gets: single addresses of it cost nothing


class Counted(Enum):
    """Whom a limit counts."""

    GROUP = "group"  # everybody together
    IP = "ip"  # the client's address by the trust list; IPv6 by /64
    USER = "user"  # the verified `strangler_user` cookie, else the address
    SUBJECT = "subject"  # the verified token's subject, else the address
    HEADER = "header"  # the value of a header, else the address


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`scope` is the group's name, or empty for the whole site; `place` tells limits of one scope apart;
    `header` is the one `Counted.HEADER` names, lower case."""

    scope: str
    place: int
    counted: Counted
    rate: Rate
    header: bytes = b""

    @property
    def name(self) -> str:
        """What clients and metrics see: `ip`, `site-ip`."""
        return self.counted.value if self.scope else f"site-{self.counted.value}"


@dataclass(frozen=True, slots=True)
class Facts:
    """Who asks. What is not known is empty."""

    address: bytes
    user: bytes = b""
    subject: bytes = b""
    header: bytes = b""


def client_key(limit: RateLimit, facts: Facts) -> bytes:
    """The client as `limit` counts it. The unverified never share a bucket with the verified."""
    match limit.counted:
        case Counted.GROUP:
            return b"all"
        case Counted.USER if facts.user:
            return b"user:" + facts.user
        case Counted.SUBJECT if facts.subject:
            return b"subject:" + facts.subject
        case Counted.HEADER if facts.header:
            return b"header:" + facts.header
        case _:
            return b"ip:" + network_of(facts.address)


@lru_cache(maxsize=4096)
def network_of(address: bytes) -> bytes:
    """The address, of IPv6 its /64, of IPv4 in IPv6 the IPv4; what is no address stands for itself."""
    try:
        parsed = ipaddress.ip_address(address.decode("latin-1").partition("%")[0].strip("[]"))
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped).encode()
        return str(ipaddress.IPv6Network((parsed, _IPV6_PREFIX), strict=False)).encode()
    return str(parsed).encode()


def slot_key(limit: RateLimit, client: bytes, *, secret: bytes) -> int:
    """The 64-bit key of a client's state, never 0. Keyed, so that nobody can choose whose state he shares."""
    text = b"%b\0%d\0%b\0%b" % (limit.scope.encode(), limit.place, limit.header, client)
    return int.from_bytes(blake2b(text, digest_size=8, key=secret[:64]).digest(), "big") or 1


def worst(taken: Sequence[tuple[RateLimit, Taken]]) -> tuple[RateLimit, float] | None:
    """The limit that refuses for longest, with its seconds; None when all let the request pass."""
    refusing = [(limit, said.retry_after) for limit, said in taken if not said.allowed]
    return max(refusing, key=lambda pair: pair[1], default=None)


def limit_lines(limit: RateLimit, retry_after: float) -> tuple[bytes, ...]:
    """What a refused client is told (draft-ietf-httpapi-ratelimit-headers): the policy and the state. The
    quota is the burst, the window the time in which an idle client's burst comes back."""
    window = max(1, math.ceil(limit.rate.burst * limit.rate.interval))
    name = limit.name.encode()
    return (
        b'RateLimit-Policy: "%b";q=%d;w=%d\r\n' % (name, limit.rate.burst, window),
        b'RateLimit: "%b";r=0;t=%d\r\n' % (name, max(1, math.ceil(retry_after))),
    )
