"""One answer made of several: the rules. Pure.

    {"products": <the part's JSON, byte for byte>, "cart": null, "_errors": {"cart": {"status": 504, "reason": "..."}}}

The status is 200 as long as no required part failed, else 502; the parts that came are told either way. A part is
good when its answer is 2xx and JSON, or 204 (null).

A cache may do with the whole what it may do with every part of it (RFC 9111 §5.2.2): one `no-store` is everybody's,
one `private` too, the shortest lifetime left counts (less the `Age` of a part that came from a cache), and what says
nothing of caching must be asked for again. Anything missing must not be kept at all.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn

from strangler_proxy.headers import RawHeaders, value_of

_DIRECTIVE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9a-z-]+)\s*(?:=\s*(?:"[^"]*"|([^",\s]*)))?\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Part:
    """One part: a request to `target` (with its query), which may take `seconds` on each backend that is asked
    and `most` bytes. Without a `required` part there is no whole. `pass_query`: the client's query is added."""

    name: str
    target: bytes
    required: bool
    seconds: float
    most: int
    pass_query: bool


@dataclass(frozen=True, slots=True)
class Aggregate:
    """All parts, asked at once; `seconds` for everything together."""

    parts: tuple[Part, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """What came of a part; `reason` says what is wrong where no answer of a backend does."""

    status: int
    headers: RawHeaders = ()
    body: bytes = b""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Whole:
    """The answer: header lines with their CRLF, without framing."""

    status: int
    lines: tuple[bytes, ...]
    body: bytes


def target_of(part: Part, query: bytes) -> bytes:
    """What a part is asked for when the client's target has `query`."""
    if not part.pass_query or not query:
        return part.target
    return part.target + (b"&" if b"?" in part.target else b"?") + query


def merge(parts: Sequence[Part], answers: Sequence[PartAnswer]) -> Whole:
    """The whole of `answers`, one for each of `parts`."""
    told: list[bytes] = []
    errors: dict[str, dict[str, object]] = {}
    lost = False
    for part, answer in zip(parts, answers, strict=True):
        fault = _fault(answer)
        if fault is not None:
            errors[part.name] = fault
            lost |= part.required
        body = b"null" if fault is not None or answer.status == HTTPStatus.NO_CONTENT else answer.body.strip()
        told.append(b"%b:%b" % (json.dumps(part.name).encode(), body))
    told.append(b'"_errors":' + json.dumps(errors, separators=(",", ":")).encode())
    cookies = _cookies(answers)
    caching = b"no-store" if errors else strictest([answer.headers for answer in answers])
    lines = [b"Content-Type: application/json\r\n", b"Cache-Control: %b\r\n" % caching]
    vary = _vary(answers)
    if vary:
        lines.append(b"Vary: %b\r\n" % vary)
    lines.extend(b"Set-Cookie: %b\r\n" % cookie for cookie in cookies)
    return Whole(502 if lost else 200, tuple(lines), b"{%b}" % b",".join(told))


def strictest(all_headers: Sequence[RawHeaders]) -> bytes:
    """The Cache-Control of a whole whose parts were answered with these headers."""
    seen = [_directives(headers) for headers in all_headers]
    if not seen or any("no-store" in directives for directives in seen):
        return b"no-store"
    private = any("private" in directives for directives in seen)
    words = ["private"] if private else ["public"] if all("public" in each for each in seen) else []
    ages = [_lifetime(directives, headers) for directives, headers in zip(seen, all_headers, strict=True)]
    if any("no-cache" in directives for directives in seen) or None in ages:
        return ", ".join([*words, "no-cache"]).encode()
    words.append(f"max-age={min(age for age in ages if age is not None)}")
    if any("must-revalidate" in directives or "proxy-revalidate" in directives for directives in seen):
        words.append("must-revalidate")
    return ", ".join(words).encode()


def _fault(answer: PartAnswer) -> dict[str, object] | None:
    if answer.reason:
        return {"status": answer.status, "reason": answer.reason}
    if not 200 <= answer.status < 300:
        known = {status.value for status in HTTPStatus}
        phrase = HTTPStatus(answer.status).phrase if answer.status in known else "unknown status"
        return {"status": answer.status, "reason": phrase}
    if answer.status != HTTPStatus.NO_CONTENT and not _is_json(answer.body):
        return {"status": 502, "reason": "the answer is not JSON"}
    return None


def _is_json(body: bytes) -> bool:
    """RFC 8259: UTF-8, and no NaN or Infinity, which Python would let pass."""
    try:
        json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _values(headers: RawHeaders, name: bytes) -> list[bytes]:
    return [value for header, value in headers if header.lower() == name]


def _directives(headers: RawHeaders) -> dict[str, str | None]:
    text = b",".join(_values(headers, b"cache-control")).decode("latin-1").lower()
    return {found[1]: found[2] for found in _DIRECTIVE.finditer(text)}


def _lifetime(directives: dict[str, str | None], headers: RawHeaders) -> int | None:
    """Seconds for which a part is still fresh; None when it does not say."""
    limits = [value for name in ("max-age", "s-maxage") if (value := directives.get(name)) is not None]
    if not limits or not all(limit.isascii() and limit.isdigit() for limit in limits):
        return None
    age = value_of(headers, b"age")
    spent = int(age) if age.isdigit() and len(age) < 12 else 0
    return max(0, min(2**31, *(int(limit[:11]) for limit in limits)) - spent)


def _vary(answers: Iterable[PartAnswer]) -> bytes:
    names: dict[bytes, bytes] = {}
    for answer in answers:
        for value in _values(answer.headers, b"vary"):
            for name in value.split(b","):
                if name.strip():
                    names.setdefault(name.strip().lower(), name.strip())
    return b"*" if b"*" in names else b", ".join(names.values())


def _cookies(answers: Iterable[PartAnswer]) -> list[bytes]:
    """Every cookie that parts set, also failed ones; of equal name, path and domain the last (RFC 6265 §5.3)."""
    found: dict[tuple[bytes, ...], bytes] = {}
    for answer in answers:
        for cookie in _values(answer.headers, b"set-cookie"):
            pair, *attributes = cookie.split(b";")
            scope = sorted(
                attribute.strip().lower()
                for attribute in attributes
                if attribute.strip().lower().startswith((b"path=", b"domain="))
            )
            key = (pair.partition(b"=")[0].strip(), *scope)
            found.pop(key, None)
            found[key] = cookie
    return list(found.values())
