"""Sections `issuers` (whose tokens are believed, once for the whole file) and `auth` (of a group).

    issuers:
      shop:
        issuer: https://id.example/            # what `iss` must say
        audience: shop-api                     # what `aud` must name: one, or a list
        algorithms: [RS256]
        keys: {jwks: https://id.example/jwks}  # or a file's path; or {pem: PATH}; or {secret: VARIABLE}
        leeway: 30000
    groups:
      orders:
        auth:
          jwt: {issuer: shop, scopes: [orders:read], claims: {role: [staff, admin]}, optional: false}
          user: true                           # the proxy's own signed cookie
          session: {check: /api/session, every: 5000, timeout: 2000, refuse: 401}

Secrets never stand in the file: `secret` names an environment variable. What can only be known on the machine
(is the variable set, can the file be read) is judged by `gateway/key_sources.py`.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.gateway.auth import Auth, Issuer, KeyPlace, KeySource, SessionCheck, TokenCheck
from strangler_proxy.sections.fields import HOST, Milliseconds, Name, Strict
from strangler_proxy.sections.fields import Path as UrlPath

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip
_WORD = re.compile(r"[!#-\[\]-~]+")  # of RFC 6749 §3.3: a scope, and safe inside a quoted string
_VISIBLE = re.compile(r"[!-~]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError('visible ASCII without spaces, " and \\')
    return value


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError("secret is the name of an environment variable; the secret itself never stands here")
    return value


def _issuer_name(value: str) -> str:
    if value == "session":
        raise ValueError("session is what the monolith's own users are called; choose another name")
    return value


def _jwks(value: str) -> str:
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
        legal = parts.port != 0 and _VISIBLE.fullmatch(value) and HOST.fullmatch(parts.hostname or "")
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if not legal:
        raise ValueError("not a URL: write https://HOST/PATH in visible ASCII (percent-encode others)")
    if parts.scheme == "https" and parts.hostname and not parts.username:
        return value
    if parts.scheme == "http" and _loopback(parts.hostname or ""):
        return value
    raise ValueError(
        "keys come over https:// (http:// only from this machine), without credentials in the URL"
    )


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Word = Annotated[str, Field(max_length=256), AfterValidator(_word)]
IssuerName = Annotated[Name, AfterValidator(_issuer_name)]


class KeysFile(Strict):
    """Exactly one of the three."""

    jwks: Annotated[str, Field(min_length=1), AfterValidator(_jwks)] | None = None
    pem: Annotated[str, Field(min_length=1)] | None = None
    secret: Annotated[str, AfterValidator(_variable)] | None = None
    refresh: Milliseconds = 300_000

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.jwks, self.pem, self.secret)) != 1:
            raise ValueError("keys come from one place: jwks, pem or secret")
        return self

    def value(self) -> KeySource:
        """The frozen value."""
        if self.secret is not None:
            return KeySource(KeyPlace.SECRET, self.secret)
        if self.pem is not None:
            return KeySource(KeyPlace.PEM, self.pem)
        assert self.jwks is not None
        place = KeyPlace.JWKS_URL if "://" in self.jwks else KeyPlace.JWKS_FILE
        return KeySource(place, self.jwks, self.refresh / 1000)


class IssuerFile(Strict):
    """One issuer."""

    issuer: Annotated[str, Field(min_length=1, max_length=1024)]
    audience: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    keys: KeysFile
    leeway: Annotated[int, Field(ge=0, le=600_000)] = 30_000

    @model_validator(mode="after")
    def _secrets_are_not_public(self) -> Self:
        symmetric = [name for name in self.algorithms if name.startswith("HS")]
        if self.keys.secret is not None and len(symmetric) != len(self.algorithms):
            raise ValueError("a secret signs by HS256, HS384 or HS512 only; algorithms names others")
        if self.keys.secret is None and symmetric:
            raise ValueError(f"{symmetric[0]} needs a secret: whoever knows a public key could sign with it")
        return self

    def value(self, name: str) -> Issuer:
        """The frozen value."""
        audience = (self.audience,) if isinstance(self.audience, str) else tuple(self.audience)
        leeway = self.leeway / 1000
        return Issuer(name, self.issuer, audience, tuple(self.algorithms), self.keys.value(), leeway)


class TokenFile(Strict):
    """What is asked of a token."""

    issuer: str | Annotated[list[str], Field(min_length=1)]
    scopes: list[Word] = Field(default_factory=list)
    claims: dict[Word, str | int | bool | Annotated[list[str | int | bool], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    optional: bool = False

    def value(self) -> TokenCheck:
        """The frozen value."""
        issuers = (self.issuer,) if isinstance(self.issuer, str) else tuple(self.issuer)
        claims = tuple((name, _texts(value)) for name, value in self.claims.items())
        return TokenCheck(issuers, frozenset(self.scopes), claims, self.optional)


def _texts(value: str | int | bool | list[str | int | bool]) -> frozenset[str]:
    values = value if isinstance(value, list) else [value]
    return frozenset(str(item).lower() if isinstance(item, bool) else str(item) for item in values)


class SessionFile(Strict):
    """Where the default backend is asked, how long its yes holds, and what becomes of its no."""

    check: UrlPath
    every: Milliseconds = 5000
    timeout: Annotated[int, Field(ge=10, le=9000)] = 2000
    refuse: Literal[401, "pass"] = 401

    def value(self) -> SessionCheck:
        """The frozen value."""
        every, timeout = self.every / 1000, self.timeout / 1000
        return SessionCheck(self.check.encode(), every, timeout, self.refuse == "pass")


class AuthFile(Strict):
    """Any one of these lets a request pass."""

    jwt: TokenFile | None = None
    session: SessionFile | None = None
    user: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.jwt is None and self.session is None and not self.user:
            raise ValueError("auth needs jwt, session or user: true")
        if self.jwt is not None and self.jwt.optional and (self.session is not None or self.user):
            raise ValueError("with jwt.optional everybody passes: leave out session and user")
        return self

    def value(self) -> Auth:
        """The frozen value."""
        token = self.jwt.value() if self.jwt is not None else None
        session = self.session.value() if self.session is not None else None
        return Auth(token, session, self.user)


def token_faults(name: str, group: Mapping[str, Any], issuers: object, places: Places) -> Iterator[Problem]:
    """Faults between a group and what its tokens need. Works on unchecked data."""
    known = [str(issuer) for issuer in issuers] if isinstance(issuers, dict) else []
    auth = group.get("auth")
    jwt = auth.get("jwt") if isinstance(auth, dict) else None
    named = jwt.get("issuer") if isinstance(jwt, dict) else None
    for issuer in named if isinstance(named, list) else [named]:
        if isinstance(issuer, str) and issuer not in known:
            at = ("groups", name, "auth", "jwt", "issuer")
            remedy = f"name one of: {', '.join(known) or 'none'} (or write it under issuers)"
            yield places.problem(at, f"unknown issuer {issuer!r}", remedy)
    if jwt is not None:
        return
    remedy = "give the group auth: {jwt: ...}; with optional: true everybody passes"
    if group.get("sticky") == "jwt":
        yield places.problem(("groups", name, "sticky"), "jwt: no token is verified in this group", remedy)
    limits = group.get("rate_limit")
    for position, limit in enumerate(limits if isinstance(limits, list) else ()):
        if isinstance(limit, dict) and limit.get("by") == "subject" and not isinstance(auth, dict):
            fault = "by subject: nobody is verified in this group"
            yield places.problem(("groups", name, "rate_limit", position), fault, remedy)
