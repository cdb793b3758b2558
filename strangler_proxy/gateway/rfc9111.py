"""A shared HTTP cache's rules, a strict subset of RFC 9111. Pure: heads and times in, decisions out.

Strict means: whatever is kept and served here, the RFC allows; much that it allows is not done.

* Looked up and stored for `GET` (and served to `HEAD`) without credentials: no Authorization, no cookie but the
  proxy's anonymous one and those the policy ignores, no body, no Range, no Upgrade, no precondition but
  If-None-Match and If-Modified-Since.
* Stored: a whole answer of status 200, 203, 301, 308, 404 or 410 with a freshness that was said (`s-maxage`,
  `max-age`, `Expires`) or that the policy gives to a 200 whose head says nothing; never with `no-store`,
  `private`, `no-cache`, Set-Cookie, `Vary: *` or a user named by the backend. No heuristics (§4.2.2).
* Age after §4.2.3; variants after §4.1, where a Cookie header counts without the cookies ignored above.
* Request directives `no-cache`, `no-store`, `max-age`, `min-fresh`, `only-if-cached`; `max-stale` is not granted.

Times: `now` is monotonic seconds, `wall` seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime

from strangler_proxy.headers import RawHeaders

STORED_STATUSES = frozenset({200, 203, 301, 308, 404, 410})
_DIRECTIVE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,;\"]*)))?")
_ENTITY_TAG = re.compile(rb'(?:W/)?"[!#-~\x80-\xff]*"')
_NEVER_STORED = frozenset({b"no-store", b"private", b"no-cache"})
_STOPS = frozenset({b"authorization", b"range", b"if-match", b"if-unmodified-since", b"if-range", b"upgrade"})
# §5.2.2.2, §5.2.2.8, §5.2.2.10: not to be served stale, whatever the policy grants
_STRICT = frozenset({b"must-revalidate", b"proxy-revalidate", b"s-maxage"})
_FAR = 2**31  # §1.2.2: what is greater is taken for this


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Of a group. `fresh`: seconds a silent 200 counts as fresh, 0 for not at all. `stale`: seconds a stale
    answer may still be given while a new one is fetched. `room` and `largest` are bytes, of everything and
    of one answer. `cookies` are those that mean nothing; a change in one of `tables` empties the cache."""

    fresh: float = 0.0
    stale: float = 0.0
    room: int = 33_554_432
    largest: int = 1_048_576
    cookies: frozenset[bytes] = frozenset()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request that may be answered from memory asks for."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float = 0.0
    tags: bytes = b""
    since: bytes = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored answer. `age` is the age it came with, at `at` (monotonic); `lines` hold no Age."""

    status: int
    reason: bytes
    lines: tuple[bytes, ...]
    body: bytes
    at: float
    age: float
    lifetime: float
    vary: tuple[tuple[bytes, bytes], ...]
    etag: bytes = b""
    modified: bytes = b""
    strict: bool = False  # never to be served stale

    @property
    def size(self) -> int:
        """Bytes it takes, about."""
        return len(self.body) + sum(map(len, self.lines)) + sum(len(a) + len(b) for a, b in self.vary) + 512

    def age_at(self, now: float) -> float:
        """§4.2.3."""
        return self.age + now - self.at

    def fresh_for(self, wish: Wish, now: float) -> bool:
        """May it answer `wish` without asking again?"""
        age = self.age_at(now)
        return (
            not wish.no_cache
            and age + wish.min_fresh < self.lifetime
            and (wish.max_age is None or age <= wish.max_age)
        )

    def stale_for(self, wish: Wish, now: float, *, stale: float) -> bool:
        """May it, though stale, answer `wish` while a new one is fetched (RFC 5861 §3)?"""
        asked = wish.no_cache or wish.max_age is not None or wish.min_fresh > 0
        return not asked and not self.strict and self.age_at(now) < self.lifetime + stale


def directives(values: Sequence[bytes]) -> dict[bytes, bytes]:
    """Cache-Control, names in lower case. Of a directive said twice the smaller number, else the first."""
    found: dict[bytes, bytes] = {}
    for match in _DIRECTIVE.finditer(b",".join(values)):
        name, value = match[1].lower(), match[2] if match[2] is not None else match[3] or b""
        if name not in found or seconds(value) < seconds(found[name]):
            found[name] = value
    return found


def seconds(value: bytes) -> float:
    """delta-seconds (§1.2.2); what is none is 0: an answer with a broken lifetime is stale."""
    return min(int(value), _FAR) if value.isdigit() and len(value) < 20 else 0


def all_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The values of every header `name` (lower case)."""
    return [value for header, value in headers if header.lower() == name]


def meaningful_cookies(cookies: bytes, ignored: frozenset[bytes]) -> bytes:
    """The Cookie header without the cookies that mean nothing to a backend."""
    kept = [
        part
        for part in (item.strip() for item in cookies.split(b";"))
        if part and part.partition(b"=")[0].strip() not in ignored
    ]
    return b"; ".join(kept)


def wish_of(method: bytes, headers: RawHeaders, cookies: bytes) -> Wish | None:
    """What the request asks of a cache; None when it is none of a cache's business. `cookies` are the
    meaningful ones."""
    if method not in (b"GET", b"HEAD") or cookies:
        return None
    if any(name.lower() in _STOPS for name, _ in headers):
        return None
    said = directives(all_values(headers, b"cache-control"))
    pragma = b"no-cache" in b",".join(all_values(headers, b"pragma")).lower() and not said
    return Wish(
        no_cache=b"no-cache" in said or pragma,
        no_store=b"no-store" in said,
        only_if_cached=b"only-if-cached" in said,
        max_age=seconds(said[b"max-age"]) if b"max-age" in said else None,
        min_fresh=seconds(said.get(b"min-fresh", b"")),
        tags=b",".join(all_values(headers, b"if-none-match")),
        since=b"".join(all_values(headers, b"if-modified-since")),
    )


def selecting(headers: RawHeaders, names: Sequence[bytes], cookies: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The request's values of the headers that Vary names (§4.1); of Cookie the meaningful ones."""
    return tuple(
        (
            name,
            cookies if name == b"cookie" else b",".join(value.strip() for value in all_values(headers, name)),
        )
        for name in names
    )


def vary_names(headers: RawHeaders) -> tuple[bytes, ...]:
    """The names in Vary, lower case, sorted; `*` among them when the answer fits no second request."""
    said = b",".join(all_values(headers, b"vary")).lower()
    return tuple(sorted({name.strip() for name in said.split(b",") if name.strip()}))


def lifetime_of(status: int, headers: RawHeaders, policy: CachePolicy, *, wall: float) -> float:
    """For how many seconds an answer is fresh, counted from its creation; 0 when it must not be stored."""
    said = directives(all_values(headers, b"cache-control"))
    if (
        status not in STORED_STATUSES
        or not _NEVER_STORED.isdisjoint(said)
        or all_values(headers, b"set-cookie")
        or b"*" in vary_names(headers)
    ):
        return 0.0
    for name in (b"s-maxage", b"max-age"):
        if name in said:
            return seconds(said[name])
    expires = all_values(headers, b"expires")
    if expires:
        at, date = _date(expires[0]), _date(b"".join(all_values(headers, b"date")[:1]))
        return (
            max(0.0, at - (date if date is not None else wall))
            if at is not None and len(expires) == 1
            else 0.0
        )
    return policy.fresh if status == 200 and not said else 0.0


def age_of(headers: RawHeaders, *, wall: float, waited: float) -> float:
    """The age an answer comes with (§4.2.3). `waited`: seconds from the request to the answer's head."""
    date = _date(b"".join(all_values(headers, b"date")[:1]))
    apparent = max(0.0, wall - date) if date is not None else 0.0
    return max(apparent, max(map(seconds, all_values(headers, b"age")), default=0) + waited)


def stored_of(
    *,
    status: int,
    reason: bytes,
    headers: RawHeaders,
    request: RawHeaders,
    cookies: bytes,
    policy: CachePolicy,
    now: float,
    wall: float,
    waited: float,
) -> Stored | None:
    """The answer as it is kept, its body still to come; None when it must not be. `headers` are those that are
    passed on, `cookies` the request's meaningful ones."""
    lifetime = lifetime_of(status, headers, policy, wall=wall)
    age = age_of(headers, wall=wall, waited=waited)
    if lifetime <= age:
        return None
    etag = b"".join(all_values(headers, b"etag")[:1])
    return Stored(
        status=status,
        reason=reason,
        lines=tuple(b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() != b"age"),
        body=b"",
        at=now,
        age=age,
        lifetime=lifetime,
        vary=selecting(request, vary_names(headers), cookies),
        etag=etag if _ENTITY_TAG.fullmatch(etag) else b"",
        modified=b"".join(all_values(headers, b"last-modified")[:1]),
        strict=not _STRICT.isdisjoint(directives(all_values(headers, b"cache-control"))),
    )


def freshened(stored: Stored, again: Stored) -> Stored:
    """`stored` after a 304 whose head, taken for a whole answer's, is `again` (§4.3.4)."""
    said = {line.partition(b":")[0].lower() for line in again.lines}
    kept = tuple(line for line in stored.lines if line.partition(b":")[0].lower() not in said)
    return replace(again, status=stored.status, reason=stored.reason, lines=kept + again.lines, body=stored.body,
                   etag=again.etag or stored.etag, modified=again.modified or stored.modified)  # fmt: skip


def not_modified(stored: Stored, wish: Wish) -> bool:
    """Does the client have this answer already (§4.3.2)? Tags are compared weakly; a date must be the same."""
    if wish.tags:
        tags = {tag.removeprefix(b"W/") for tag in _ENTITY_TAG.findall(wish.tags)}
        return wish.tags.strip() == b"*" or (bool(stored.etag) and stored.etag.removeprefix(b"W/") in tags)
    return bool(wish.since) and wish.since == stored.modified


def _date(value: bytes) -> float | None:
    if not value:
        return None
    try:
        return parsedate_to_datetime(value.decode("ascii")).timestamp()
    except (ValueError, UnicodeDecodeError, OverflowError):
        return None


def headers_of(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Header lines taken apart."""
    pairs = (line.partition(b":") for line in lines)
    return [(name, value.strip()) for name, _, value in pairs]


def conditions(stored: Stored) -> Mapping[bytes, bytes]:
    """The headers that ask whether `stored` still holds (§4.3.1); empty when it has no validator."""
    asked = {}
    if stored.etag:
        asked[b"If-None-Match"] = stored.etag
    elif stored.modified:
        asked[b"If-Modified-Since"] = stored.modified
    return asked
