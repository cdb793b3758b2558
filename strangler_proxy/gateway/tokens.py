"""Tokens: which key, is the signature good, are the claims (`auth.py`). PyJWT does the cryptography.

* A key is bound to one algorithm when it is read, and only the issuer's algorithms are read at all. The token's
  own `alg` is compared with that and never chooses anything: `none`, and a public key taken for a secret,
  have no way in (RFC 8725 §3.1).
* A token names its key by `kid`. An unknown one is a reason to ask for newer keys, once, and to wait for them.
* Good tokens are remembered until they expire, by their SHA-256; new keys make everything forgotten, so a key
  that was withdrawn ends the tokens it signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Any

import jwt
from jwt import PyJWK
from jwt.api_jws import PyJWS

from strangler_proxy.gateway.auth import BadToken, Issuer, TokenCheck, Verified, judge
from strangler_proxy.gateway.remembered import Remembered
from strangler_proxy.headers import RawHeaders

LONGEST_TOKEN = 8192  # bytes
_MOST_TRIED = 8  # keys tried for a token that names none
Jwk = Mapping[str, Any]


def bearer(headers: RawHeaders) -> bytes | None:
    """The bearer token of a request (RFC 6750 §2.1), empty when there is none, None when there are two
    Authorization headers."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if len(values) > 1:
        return None
    scheme, _, token = values[0].partition(b" ") if values else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" else b""


class Unsure(Enum):
    """`KEYS`: the keys are not here yet, or the token names one that is not known."""

    KEYS = "keys"


@dataclass(slots=True)
class KeySet:
    """An issuer's keys, and the tokens they were found to have signed."""

    keys: tuple[PyJWK, ...]
    known: Remembered[Verified] = field(default_factory=Remembered)


def key_set(jwks: Sequence[Jwk], algorithms: Sequence[str]) -> KeySet:
    """The keys of `jwks` that may sign with one of `algorithms`; the others, and broken ones, are left out."""
    keys = []
    for jwk in jwks:
        if jwk.get("use", "sig") != "sig":
            continue
        for algorithm in [jwk["alg"]] if "alg" in jwk else algorithms:
            if algorithm not in algorithms:
                continue
            try:
                keys.append(PyJWK(dict(jwk), algorithm))
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue  # of another kind than this algorithm's, or broken: it signs nothing here
    return KeySet(tuple(keys))


class Tokens:
    """Verifies by the current keys. `want(issuer)` asks for newer ones; they come by `put`."""

    def __init__(self, want: Callable[[str], None]) -> None:
        self._want = want
        self._jws = PyJWS()
        self._issuers: Mapping[str, Issuer] = {}
        self._jwks: dict[str, Sequence[Jwk]] = {}
        self._sets: dict[str, KeySet] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def use(self, issuers: Mapping[str, Issuer]) -> None:
        """These issuers are believed from now on. One that did not change keeps its keys and tokens; keys from
        another place than the one named now are forgotten, until `put` brings the right ones."""
        for name, before in self._issuers.items():
            if name not in issuers or not before.keys.same_place(issuers[name].keys):
                self._jwks.pop(name, None)
                self._sets.pop(name, None)
        for name, issuer in issuers.items():
            if self._issuers.get(name) != issuer and name in self._jwks:
                self._sets[name] = key_set(self._jwks[name], issuer.algorithms)
        self._issuers = issuers

    def put(self, name: str, jwks: Sequence[Jwk] | None) -> None:
        """The keys of issuer `name`, also when nothing changed (None: there are none yet): who waits for them
        waits no longer."""
        if jwks is not None and (name not in self._sets or self._jwks.get(name) != jwks):
            self._jwks[name] = jwks
            if name in self._issuers:
                self._sets[name] = key_set(jwks, self._issuers[name].algorithms)
        for go_on in self._waiting.pop(name, []):
            go_on()

    def ready(self, name: str) -> bool:
        """Are there keys of issuer `name`?"""
        return name in self._sets

    def wait(self, name: str, go_on: Callable[[], None]) -> None:
        """Ask for newer keys of issuer `name`; `go_on` is called when an answer came."""
        waiting = self._waiting.setdefault(name, [])
        waiting.append(go_on)
        if len(waiting) == 1:
            self._want(name)

    def issuer_of(self, token: bytes, names: Sequence[str]) -> str:
        """Which of the issuers `names` the token says it is from; the first when it names none of them."""
        if len(names) > 1:
            try:
                claims = json.loads(
                    self._jws.decode_complete(token, options={"verify_signature": False})["payload"]
                )
            except (jwt.PyJWTError, ValueError, RecursionError):
                return names[0]
            said = claims.get("iss") if isinstance(claims, dict) else None
            for name in names:
                if self._issuers[name].issuer == said:
                    return name
        return names[0]

    def verify(self, token: bytes, name: str, now: float) -> Verified | BadToken | Unsure:
        """Is `token` a good one of issuer `name` at `now` (seconds since 1970)?"""
        if len(token) > LONGEST_TOKEN:
            return BadToken("the token is too long")
        keys = self._sets.get(name)
        if keys is None:
            return Unsure.KEYS
        digest = sha256(token).digest()
        known = keys.known.get(digest, now)
        if known is not None:
            return known if known.valid(now) else BadToken("the token is not valid yet")
        payload = self._payload(token, keys)
        if not isinstance(payload, bytes):
            return payload
        try:
            claims = json.loads(payload)
        except (ValueError, RecursionError):
            return BadToken("the token's payload is not JSON")
        verified = judge(claims, self._issuers[name], now)
        if isinstance(verified, Verified):
            keys.known.put(digest, verified, until=verified.expires)
        return verified

    def subject(self, headers: RawHeaders, check: TokenCheck, now: float) -> bytes:
        """The identity that a request's token proves, as far as it can be told at once; else empty."""
        token = bearer(headers)
        if not token:
            return b""
        verified = self.verify(token, self.issuer_of(token, check.issuers), now)
        return verified.identity if isinstance(verified, Verified) else b""

    def _payload(self, token: bytes, keys: KeySet) -> bytes | BadToken | Unsure:
        """The payload, once a key of ours proved to have signed it."""
        try:
            header = self._jws.get_unverified_header(token)
        except jwt.PyJWTError:
            return BadToken("not a signed JSON Web Token")
        kid, algorithm = header.get("kid"), header.get("alg")
        fitting = [key for key in keys.keys if kid is None or key.key_id is None or key.key_id == kid]
        if not fitting:
            return Unsure.KEYS
        for key in [key for key in fitting if key.algorithm_name == algorithm][:_MOST_TRIED]:
            try:
                complete = self._jws.decode_complete(token, key=key, algorithms=[key.algorithm_name])
            except jwt.PyJWTError:
                continue
            payload: bytes = complete["payload"]
            return payload
        return BadToken("no key of the issuer signed this token with an algorithm that is accepted")
