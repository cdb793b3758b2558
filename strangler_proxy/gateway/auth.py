"""Who may pass: the values of `auth` and `issuers`, and the judgement of a token's claims. Pure, fed the time.

A token's signature is another matter (`tokens.py`, by PyJWT); here stands what is asked of its claims, after
RFC 7519 §4.1 and RFC 8725:

* `iss` is the issuer's, `aud` names one of ours, `sub` is there, `exp` is there and not reached, `nbf` is;
* then what the group asks for: scopes (`scope`, RFC 8693 §4.2, or `scp`) and claims with certain values.

The first fault makes the token invalid (401), the second makes it insufficient (403), as in RFC 6750 §3.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

_LONGEST_SUBJECT = 255
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can write half a character; UTF-8 cannot


class KeyPlace(Enum):
    """Where an issuer's keys are found."""

    SECRET = "secret"  # noqa: S105  # the kind's name; the value is an environment variable's name
    PEM = "pem"
    JWKS_FILE = "jwks_file"
    JWKS_URL = "jwks_url"


@dataclass(frozen=True, slots=True)
class KeySource:
    """`where` is a variable's name, a path or a URL; `refresh` the seconds after which a URL is asked again."""

    place: KeyPlace
    where: str
    refresh: float = 300.0

    def same_place(self, other: KeySource) -> bool:
        """Are the keys the same ones, however often they are asked for?"""
        return (self.place, self.where) == (other.place, other.where)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are believed. `issuer` and `audience` are what `iss` and `aud` must say; `algorithms` are the
    only ones accepted; `leeway` is in seconds."""

    name: str
    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    keys: KeySource
    leeway: float = 30.0


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What a group asks of a token. `claims`: each named claim must have one of these values (a list: hold
    one). `optional`: a request without a token goes on; a bad token never does."""

    issuers: tuple[str, ...]
    scopes: frozenset[str] = frozenset()
    claims: tuple[tuple[str, frozenset[str]], ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SessionCheck:
    """The default backend is asked at `path` whether a session is good. `every`, `timeout`: seconds.
    `pass_on`: what it answers to a bad one goes to the client (a redirect to the login page), else 401."""

    path: bytes
    every: float = 5.0
    timeout: float = 2.0
    pass_on: bool = False


@dataclass(frozen=True, slots=True)
class Auth:
    """Any one of these lets a request pass; a bearer token, where there is one, decides alone."""

    token: TokenCheck | None = None
    session: SessionCheck | None = None
    user: bool = False  # the proxy's own signed cookie


@dataclass(frozen=True, slots=True)
class Verified:
    """A good token. `expires`: seconds since 1970, leeway included."""

    issuer: str
    subject: str
    expires: float
    not_before: float
    scopes: frozenset[str]
    claims: Mapping[str, Any]

    @property
    def identity(self) -> bytes:
        """The subject, apart from that of any other issuer."""
        return self.issuer.encode() + b":" + self.subject.encode()

    def valid(self, now: float) -> bool:
        """At `now`, seconds since 1970."""
        return self.not_before <= now < self.expires


@dataclass(frozen=True, slots=True)
class BadToken:
    """Why a token is not accepted; words of ours, nothing of the token's."""

    reason: str


def judge(claims: object, issuer: Issuer, now: float) -> Verified | BadToken:
    """Are these claims (parsed JSON, signature verified) good at `now`, seconds since 1970?"""
    if not isinstance(claims, dict):
        return BadToken("the token's payload is not an object")
    expires, not_before = _date(claims.get("exp")), _date(claims.get("nbf", 0))
    subject = claims.get("sub")
    fault = ""
    if claims.get("iss") != issuer.issuer:
        fault = "the token is another issuer's"
    elif not _names(claims.get("aud"), issuer.audience):
        fault = "the token is for another audience"
    elif (
        not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or _SURROGATE.search(subject)
    ):
        fault = "the token names no subject"
    elif expires is None or not_before is None:
        fault = "the token needs exp, and nbf must be a number where it is given"
    elif now >= expires + issuer.leeway:
        fault = "the token has expired"
    elif now < not_before - issuer.leeway:
        fault = "the token is not valid yet"
    if fault:
        return BadToken(fault)
    assert isinstance(subject, str)
    assert expires is not None
    assert not_before is not None
    return Verified(
        issuer=issuer.name,
        subject=subject,
        expires=expires + issuer.leeway,
        not_before=not_before - issuer.leeway,
        scopes=_scopes(claims),
        claims=claims,
    )


def _names(audience: object, ours: tuple[str, ...]) -> bool:
    named = audience if isinstance(audience, list) else [audience]
    return any(isinstance(name, str) and name in ours for name in named)


def lacks(check: TokenCheck, verified: Verified) -> str:
    """What a good token lacks for this group, in words; empty when nothing."""
    missing = check.scopes - verified.scopes
    if missing:
        return f"scope {' '.join(sorted(missing))}"
    for name, wanted in check.claims:
        value = _claim(verified.claims, name)
        values = value if isinstance(value, list) else [value]
        if not any(_text(item) in wanted for item in values):
            return f"claim {name}"
    return ""


def _date(value: object) -> float | None:
    """A NumericDate (RFC 7519 §2)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e12 else None


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    said = claims.get("scope", claims.get("scp", ""))
    if isinstance(said, str):
        return frozenset(said.split())
    return (
        frozenset(item for item in said if isinstance(item, str)) if isinstance(said, list) else frozenset()
    )


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim `name`; `realm_access.roles` looks inside, unless a claim is called just so."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _text(value: object) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            return None


def header_text(subject: str) -> bytes:
    """A subject as a header's value: visible ASCII as it is, anything else and `%` percent-encoded (UTF-8)."""
    return b"".join(
        bytes((byte,)) if 0x21 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in subject.encode("utf-8", "surrogatepass")
    )
