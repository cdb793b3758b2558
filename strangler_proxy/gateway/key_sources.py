"""Where issuers' keys come from; the parent's part. Workers get JSON Web Keys (RFC 7517) over their link.

    check(routes)  when a routes file is read: variables and files that cannot be used are faults of the file
    follow()       files are looked at every second, URLs asked again after `refresh`; whatever changes is told
    want(issuer)   a worker met a key it does not know: ask the URL now, unless that was done a moment ago

The last good keys stay when a file becomes broken or a URL does not answer; the log says so. A URL is asked with a
deadline, its answer is bounded, redirects are not followed, and secret keys in it are not taken: what anybody
can fetch is no secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from jwt import PyJWTError
from jwt.algorithms import get_default_algorithms

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.gateway.auth import Issuer, KeyPlace

_LOOK_SECONDS = 1.0
_COOL_SECONDS = 5.0  # between two questions to one URL
_ASK_SECONDS = 5.0
_LARGEST = 262_144  # bytes of a key set
_PUBLIC_KINDS = frozenset({"RSA", "EC", "OKP"})
_SHORTEST_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes (RFC 7518 §3.2)

Jwk = dict[str, Any]
Told = Callable[[str, list[Jwk] | None], None]


class NoKeysError(Exception):
    """Keys cannot be had: what is wrong, and what to do."""

    def __init__(self, fault: str, remedy: str) -> None:
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{fault} ({remedy})")


def read_local(issuer: Issuer, environment: Mapping[str, str]) -> list[Jwk]:
    """The keys of an issuer whose keys are on this machine. Raises NoKeysError."""
    where = issuer.keys.where
    match issuer.keys.place:
        case KeyPlace.SECRET:
            return [_secret(where, issuer.algorithms, environment)]
        case KeyPlace.PEM:
            return [_pem(_content(where), where)]
        case KeyPlace.JWKS_FILE:
            return parse_jwks(_content(where), where)
        case KeyPlace.JWKS_URL:
            raise AssertionError("a URL is not on this machine")


def parse_jwks(content: bytes, where: str) -> list[Jwk]:
    """The public keys of a key set. Raises NoKeysError when it is none or holds none."""
    try:
        said = json.loads(content)
        keys = [key for key in said["keys"] if key["kty"] in _PUBLIC_KINDS]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NoKeysError(f"{where} holds no JSON Web Key Set", 'it is {"keys": [{"kty": ...}]}') from error
    if not keys:
        raise NoKeysError(f"{where} holds no public key", "a key set needs keys of kty RSA, EC or OKP")
    private = [key for key in keys if "d" in key]
    if private:
        raise NoKeysError(f"{where} holds a private key", "publish and name the public part alone")
    return keys


def _secret(variable: str, algorithms: tuple[str, ...], environment: Mapping[str, str]) -> Jwk:
    given = environment.get(variable, "")
    if not given:
        raise NoKeysError(f"environment variable {variable} is not set", "set it before the proxy is started")
    secret = os.fsencode(given)
    needed = max(_SHORTEST_SECRET[algorithm] for algorithm in algorithms)
    if len(secret) < needed:
        raise NoKeysError(f"{variable} has {len(secret)} bytes", f"{needed} are needed: openssl rand -hex 32")
    return {"kty": "oct", "k": urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")}


def _pem(content: bytes, where: str) -> Jwk:
    try:
        if b"BEGIN CERTIFICATE" in content:
            key: Any = x509.load_pem_x509_certificate(content).public_key()
        else:
            key = serialization.load_pem_public_key(content)
    except ValueError as error:
        kind = "a private key" if b"PRIVATE KEY" in content else "no public key"
        raise NoKeysError(
            f"{where} holds {kind}", "give the public key or the certificate, as PEM"
        ) from error
    for algorithm in ("RS256", "ES256", "EdDSA"):
        try:
            jwk: Jwk = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
        except (PyJWTError, TypeError, ValueError, AttributeError):
            continue  # not a key of this kind
        return {name: value for name, value in jwk.items() if name not in ("key_ops", "use")}
    raise NoKeysError(f"{where} holds a key that signs no tokens", "use an RSA, EC or Ed25519 key")


def _content(where: str) -> bytes:
    try:
        return Path(where).read_bytes()
    except OSError as error:
        raise NoKeysError(
            f"{where} cannot be read: {error.strerror}", "check path and permissions"
        ) from error


def faults_of(issuers: Mapping[str, Issuer], places: Places) -> Iterator[Problem]:
    """What of the issuers' keys cannot be used on this machine, each at its line."""
    for name, issuer in issuers.items():
        if issuer.keys.place is not KeyPlace.JWKS_URL:
            try:
                read_local(issuer, os.environ)
            except NoKeysError as fault:
                yield places.problem(("issuers", name, "keys"), fault.fault, fault.remedy)


@dataclass(slots=True)
class _Kept:
    issuer: Issuer
    keys: list[Jwk] | None = None
    asked_at: float = float("-inf")
    fault: str = ""


@dataclass(slots=True)
class KeySources:
    """Holds every issuer's keys and tells of changes. `told` is called in the loop that runs `follow`."""

    told: Told
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: set[str] = field(default_factory=set)

    def use(self, issuers: Mapping[str, Issuer]) -> None:
        """These issuers are believed from now on. Keys on this machine are read at once; those of an issuer whose
        keys are at another place now are withdrawn before."""
        before = self._kept
        self._kept = {}
        for name, issuer in issuers.items():
            old = before.get(name)
            if old is not None and old.issuer.keys.same_place(issuer.keys):
                self._kept[name] = old if old.issuer == issuer else _Kept(issuer, old.keys, old.asked_at)
            else:
                self._kept[name] = _Kept(issuer)
                if old is not None:
                    self.told(name, None)
            self._look(name)
        for name in before.keys() - self._kept.keys():
            self.told(name, None)
        self._wake.set()

    def all(self) -> dict[str, list[Jwk]]:
        """What is known now, for a worker that begins."""
        return {name: kept.keys for name, kept in self._kept.items() if kept.keys is not None}

    def want(self, name: str) -> None:
        """A worker knows too few keys of issuer `name`; it is answered by `told` in any case."""
        self._wanted.add(name)
        self._wake.set()

    async def follow(self) -> None:
        """Look and ask until cancelled."""
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line for every look at a URL
        async with httpx.AsyncClient(follow_redirects=False, timeout=_ASK_SECONDS) as client:
            while True:
                wanted, self._wanted = self._wanted, set()
                asked = [name for name in self._kept if self._due(name, wanted=name in wanted)]
                await asyncio.gather(*(self._ask(client, name, self._kept[name]) for name in asked))
                for name in self._kept:
                    self._look(name)
                for name in wanted - set(asked):
                    kept = self._kept.get(name)
                    self.told(name, kept.keys if kept is not None else None)
                self._wake.clear()
                if not self._wanted:
                    try:
                        await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
                    except TimeoutError:
                        continue

    def _due(self, name: str, *, wanted: bool) -> bool:
        kept = self._kept[name]
        if kept.issuer.keys.place is not KeyPlace.JWKS_URL:
            return False
        pause = _COOL_SECONDS if wanted or kept.fault or kept.keys is None else kept.issuer.keys.refresh
        return time.monotonic() - kept.asked_at >= pause

    async def _ask(self, client: httpx.AsyncClient, name: str, kept: _Kept) -> None:
        kept.asked_at = time.monotonic()
        where = kept.issuer.keys.where
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                keys: list[Jwk] | None = parse_jwks(await _fetch(client, where), where)
        except (NoKeysError, httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # ValueError: a host that no name server could be asked for
            self._fault(name, kept, str(error) or type(error).__name__)
            keys = None
        if self._kept.get(name) is not kept:
            return  # the routes were changed meanwhile: these are not the issuer's keys any more
        if keys is None:
            self.told(name, kept.keys)
        else:
            self._have(name, kept, keys)

    def _look(self, name: str) -> None:
        kept = self._kept[name]
        if kept.issuer.keys.place is not KeyPlace.JWKS_URL:
            try:
                keys = read_local(kept.issuer, os.environ)
            except NoKeysError as fault:
                self._fault(name, kept, str(fault))
            else:
                if keys != kept.keys:
                    self._have(name, kept, keys)

    def _have(self, name: str, kept: _Kept, keys: list[Jwk]) -> None:
        if keys != kept.keys:
            structlog.get_logger().info("keys of an issuer read", issuer=name, keys=len(keys))
        kept.keys, kept.fault = keys, ""
        self.told(name, keys)

    def _fault(self, name: str, kept: _Kept, fault: str) -> None:
        if fault != kept.fault:
            known = len(kept.keys or [])
            structlog.get_logger().error("keys cannot be read", issuer=name, reason=fault, keys_kept=known)
        kept.fault = fault


async def _fetch(client: httpx.AsyncClient, where: str) -> bytes:
    """The body at a URL. Raises NoKeysError when it is no plain answer, or too long a one; httpx.HTTPError."""
    async with client.stream("GET", where) as answer:
        if answer.status_code != 200:
            raise NoKeysError(f"{where} answers {answer.status_code}", "name the key set's own URL")
        content = b""
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > _LARGEST:
                raise NoKeysError(f"{where} answers with more than {_LARGEST} bytes", "name a key set")
    return content
