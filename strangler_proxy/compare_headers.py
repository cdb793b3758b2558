"""The differences between the headers of two answers that a client or a browser would act on. Pure.

An allow-list: most headers (Date, Server, ETag, lengths, framing) tell who answered, not what. Compared are

* Content-Type: the media type; another spelling of its parameters is REPRESENTATION;
* Location and Content-Location: without scheme and host;
* Cache-Control, Vary, Allow: as sets of tokens (RFC 9110 §5.6.1);
* Set-Cookie: names and attributes (RFC 6265 §4.1), never values; of Expires only that it is there;
* what browsers enforce: the security headers, exactly; of Content-Security-Policy without its nonces;
* Content-Language, Content-Disposition, WWW-Authenticate, Retry-After (that it is there), and whatever the
  rules add.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from strangler_proxy.compare_json import ABSENT, Difference, Weight, What
from strangler_proxy.compare_values import Alike, urls

RawHeaders = Sequence[tuple[bytes, bytes]]

SECURITY = (
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
)
_URLS = frozenset({"location", "content-location"})
_TOKENS = frozenset({"cache-control", "vary", "allow"})
_PRESENCE = frozenset({"retry-after"})
COMPARED = frozenset(
    {"content-type", "content-language", "content-disposition", "www-authenticate", "set-cookie"}
    | _URLS
    | _TOKENS
    | _PRESENCE
    | set(SECURITY)
)
_NONCE = re.compile(r"'nonce-[^']*'")
_SECRET_ATTRIBUTES = frozenset({"expires"})


def header_differences(
    control: RawHeaders, candidate: RawHeaders, *, more: Iterable[str] = (), ignored: Iterable[str] = ()
) -> Iterator[Difference]:
    """The differences, by header and, for cookies, by cookie. `more`: further names (lower case); `ignored`:
    places like `header:vary` that are not looked at."""
    skipped = frozenset(ignored)
    left, right = _grouped(control), _grouped(candidate)
    for name in sorted((COMPARED | frozenset(more)) & (left.keys() | right.keys())):
        path = f"header:{name}"
        if path in skipped:
            continue
        if name == "set-cookie":
            yield from _cookies(left.get(name, []), right.get(name, []))
            continue
        if name not in left or name not in right:
            yield _absent(path, left.get(name), right.get(name))
            continue
        weight = _relation(name, ", ".join(left[name]), ", ".join(right[name]))
        if weight is not None:
            one, other = ", ".join(left[name]), ", ".join(right[name])
            yield Difference(path, path, What.HEADER, weight, one, other)


def _grouped(headers: RawHeaders) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return grouped


def _absent(path: str, left: list[str] | None, right: list[str] | None) -> Difference:
    what = What.MISSING if right is None else What.EXTRA
    one = ", ".join(left) if left is not None else ABSENT
    other = ", ".join(right) if right is not None else ABSENT
    return Difference(path, path, what, Weight.REAL, one, other)


_WEIGHTS = {Alike.SAME: None, Alike.NOTATION: Weight.REPRESENTATION, Alike.OTHER: Weight.REAL}


def _relation(name: str, left: str, right: str) -> Weight | None:
    if left == right or name in _PRESENCE:
        return None
    if name == "content-type":
        return _media_types(left, right)
    if name in _URLS:
        return _WEIGHTS[urls(left, right)]
    if name in _TOKENS:
        same = _tokens(left) == _tokens(right)
    else:
        same = name == "content-security-policy" and _NONCE.sub("", left) == _NONCE.sub("", right)
    return None if same else Weight.REAL


def _media_types(left: str, right: str) -> Weight | None:
    one, other = media_type(left), media_type(right)
    if one != other:
        return Weight.REAL
    parameters = [
        sorted(part.strip().lower().replace('"', "") for part in text.split(";")[1:])
        for text in (left, right)
    ]
    return None if parameters[0] == parameters[1] else Weight.REPRESENTATION


def media_type(content_type: str) -> str:
    """`type/subtype` in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def _tokens(text: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in text.split(",") if token.strip())


def _cookies(left: list[str], right: list[str]) -> Iterator[Difference]:
    here, there = dict(map(_cookie, left)), dict(map(_cookie, right))
    for name in sorted(here.keys() | there.keys()):
        path = f"header:set-cookie:{name}"
        if name not in here or name not in there:
            what = What.MISSING if name not in there else What.EXTRA
            one = "; ".join(sorted(here[name])) if name in here else ABSENT
            other = "; ".join(sorted(there[name])) if name in there else ABSENT
            yield Difference(path, path, what, Weight.REAL, one, other)
        elif here[name] != there[name]:
            one, other = "; ".join(sorted(here[name])), "; ".join(sorted(there[name]))
            yield Difference(path, path, What.HEADER, Weight.REAL, one, other)


def _cookie(line: str) -> tuple[str, frozenset[str]]:
    """A cookie's name and its attributes, without what may differ from answer to answer."""
    pair, *attributes = line.split(";")
    shown = set()
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        lower = name.strip().lower()
        shown.add(lower if lower in _SECRET_ATTRIBUTES or not value else f"{lower}={value.strip().lower()}")
    return pair.partition("=")[0].strip(), frozenset(shown)
