"""Which tokens are believed: signatures, claims, keys, and what is told to whom is not."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from chassis.problems import InvalidFileError
from strangler_proxy.gateway.auth import (
    BadToken,
    Issuer,
    KeyPlace,
    KeySource,
    TokenCheck,
    Verified,
    header_text,
    judge,
    lacks,
)
from strangler_proxy.gateway.key_sources import KeySources, NoKeysError, parse_jwks, read_local
from strangler_proxy.gateway.remembered import Remembered
from strangler_proxy.gateway.tokens import Tokens, Unsure, bearer, key_set
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import routes_text, until

NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, Any] = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": SECRET,
}


def issuer(*algorithms: str, **changes: Any) -> Issuer:
    values: dict[str, Any] = {
        "name": "shop", "issuer": "https://id.test", "audience": ("api",), "algorithms": algorithms or ("RS256",),
        "keys": KeySource(KeyPlace.PEM, "unused"), "leeway": 30.0,
    }  # fmt: skip
    return Issuer(**values | changes)


def claims(**changes: Any) -> dict[str, Any]:
    said = {"iss": "https://id.test", "aud": "api", "sub": "42", "exp": NOW + 60} | changes
    return {name: value for name, value in said.items() if value is not None}


def token(
    algorithm: str, key: Any = None, *, kid: str | None = None, said: dict[str, Any] | None = None
) -> bytes:
    headers = {"kid": kid} if kid else None
    return jwt.encode(said or claims(), key or KEYS[algorithm], algorithm, headers=headers).encode()


def jwk(algorithm: str, key: Any = None, **more: str) -> dict[str, Any]:
    key = key or KEYS[algorithm]
    if algorithm.startswith("HS"):
        return {"kty": "oct", "k": urlsafe_b64encode(key).rstrip(b"=").decode()} | more
    made: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return made | more


def tokens(*keys: dict[str, Any], believed: Issuer) -> Tokens:
    made = Tokens(lambda _: None)
    made.use({"shop": believed})
    made.put("shop", list(keys))
    return made


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS256"])
def test_a_good_token_is_verified_and_remembered_until_it_expires(algorithm: str) -> None:
    verifier = tokens(jwk(algorithm), believed=issuer(algorithm))
    for _ in range(2):
        found = verifier.verify(token(algorithm), "shop", NOW)
        assert isinstance(found, Verified)
        assert (found.subject, found.identity) == ("42", b"shop:42")
    given = token(algorithm)
    assert isinstance(verifier.verify(given, "shop", NOW + 89), Verified)
    assert verifier.verify(given, "shop", NOW + 90) == BadToken("the token has expired")


def forge_none() -> bytes:
    def part(value: dict[str, Any]) -> bytes:
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    return part({"alg": "none", "typ": "JWT"}) + b"." + part(claims()) + b"."


def forge_confused() -> bytes:
    """HS256 with the public RSA key as the secret: the classical key confusion."""
    import hashlib
    import hmac

    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    signed = head + b"." + urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    return signed + b"." + urlsafe_b64encode(hmac.digest(pem, signed, hashlib.sha256)).rstrip(b"=")


@pytest.mark.parametrize(
    "forged",
    [
        forge_none,
        forge_confused,
        lambda: token("RS256", OTHER_RSA),
        lambda: token("RS256")[:-4] + b"AAAA",
        lambda: token("RS512", RSA),  # the right key, an algorithm that is not accepted
        lambda: token("HS256"),
        lambda: b"nonsense",
        lambda: b"a.b.c",
        lambda: b"",
        lambda: b"x" * 9000,
    ],
)
def test_forgeries_are_refused(forged: Callable[[], bytes]) -> None:
    verifier = tokens(jwk("RS256"), believed=issuer())
    assert isinstance(verifier.verify(forged(), "shop", NOW), BadToken)


def test_keys_of_another_kind_or_use_sign_nothing() -> None:
    assert key_set([jwk("HS256"), jwk("ES256"), jwk("RS256", use="enc")], ["RS256"]).keys == ()
    assert len(key_set([jwk("RS256"), {"kty": "RSA", "n": "broken"}], ["RS256"]).keys) == 1
    assert len(key_set([jwk("RS256")], ["RS256", "PS256"]).keys) == 2
    assert key_set([jwk("RS256", alg="RS512")], ["RS256"]).keys == ()


def test_an_unknown_kid_asks_for_keys_once_and_a_withdrawn_key_ends_its_tokens() -> None:
    wanted: list[str] = []
    went_on: list[int] = []
    verifier = Tokens(wanted.append)
    verifier.use({"shop": issuer()})
    given = token("RS256", kid="new")
    assert verifier.verify(given, "shop", NOW) is Unsure.KEYS
    verifier.put("shop", [jwk("RS256", OTHER_RSA, kid="old")])
    assert verifier.verify(given, "shop", NOW) is Unsure.KEYS
    for number in range(3):
        verifier.wait("shop", lambda number=number: went_on.append(number))  # type: ignore[misc]  # bound now
    assert wanted == ["shop"]
    verifier.put("shop", [jwk("RS256", kid="new")])
    assert went_on == [0, 1, 2]
    assert isinstance(verifier.verify(given, "shop", NOW), Verified)
    verifier.put("shop", [jwk("RS256", OTHER_RSA, kid="new")])
    assert isinstance(verifier.verify(given, "shop", NOW), BadToken)


def test_keys_and_tokens_stay_when_something_else_of_the_routes_changes() -> None:
    verifier = tokens(jwk("RS256"), believed=issuer())
    given = token("RS256")
    assert isinstance(verifier.verify(given, "shop", NOW), Verified)
    verifier.use({"shop": issuer()})
    assert isinstance(verifier.verify(given, "shop", NOW), Verified)
    verifier.use({"shop": issuer(audience=("other",))})
    assert verifier.verify(given, "shop", NOW) == BadToken("the token is for another audience")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://evil.test"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "web"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": [1, {}]}, "another audience"),
        ({"exp": None}, "needs exp"),
        ({"exp": "tomorrow"}, "needs exp"),
        ({"exp": True}, "needs exp"),
        ({"exp": 1e300}, "needs exp"),
        ({"exp": NOW - 30}, "expired"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"nbf": "now"}, "nbf must be a number"),
        ({"sub": None}, "no subject"),
        ({"sub": ""}, "no subject"),
        ({"sub": 42}, "no subject"),
        ({"sub": "x" * 256}, "no subject"),
    ],
)
def test_claims_that_are_not_good(changes: dict[str, Any], words: str) -> None:
    found = judge(claims(**changes), issuer(), NOW)
    assert isinstance(found, BadToken)
    assert words in found.reason


def test_leeway_and_lists_of_audiences() -> None:
    for changes in ({"exp": NOW - 29}, {"nbf": NOW + 30}, {"aud": ["web", "api"]}):
        assert isinstance(judge(claims(**changes), issuer(), NOW), Verified)
    for said in ([], "text", None, 5):
        assert isinstance(judge(said, issuer(), NOW), BadToken)


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ({"scope": "a b", "role": "staff"}, ""),
        ({"scp": ["a", "b"], "role": ["user", "staff"]}, ""),
        ({"scope": "a", "role": "staff"}, "scope b"),
        ({"scope": "ab", "role": "staff"}, "scope a b"),
        ({"scope": "a b", "role": "user"}, "claim role"),
        ({"scope": "a b"}, "claim role"),
        ({"scope": {"a": 1}, "role": "staff"}, "scope a b"),
    ],
)
def test_what_a_good_token_lacks(said: dict[str, Any], missing: str) -> None:
    verified = judge(claims(**said), issuer(), NOW)
    assert isinstance(verified, Verified)
    check = TokenCheck(("shop",), frozenset({"a", "b"}), (("role", frozenset({"staff", "admin"})),))
    assert lacks(check, verified) == missing


def test_claims_inside_claims() -> None:
    verified = judge(claims(realm_access={"roles": ["x"]}, ok=True), issuer(), NOW)
    assert isinstance(verified, Verified)
    check = TokenCheck(
        ("shop",), claims=(("realm_access.roles", frozenset("x")), ("ok", frozenset({"true"})))
    )
    assert lacks(check, verified) == ""


def test_bearer_tokens_are_found() -> None:
    assert bearer([(b"Authorization", b"Bearer abc")]) == b"abc"
    assert bearer([(b"AUTHORIZATION", b"bearer  abc ")]) == b"abc"
    assert bearer([(b"Authorization", b"Basic abc")]) == b""
    assert bearer([]) == b""
    assert bearer([(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")]) is None


def test_a_subject_cannot_break_out_of_its_header() -> None:
    assert header_text("42") == b"42"
    assert header_text("a b\r\nX: y%é") == b"a%20b%0D%0AX:%20y%25%C3%A9"


def test_memory_is_bounded_and_forgets_the_unused_first() -> None:
    memory: Remembered[int] = Remembered(most=2)
    memory.put(b"a", 1, until=10)
    memory.put(b"b", 2, until=10)
    assert memory.get(b"a", 5) == 1
    memory.put(b"c", 3, until=10)
    assert [memory.get(key, 5) for key in (b"a", b"b", b"c")] == [1, None, 3]
    assert memory.get(b"a", 10) is None
    assert len(memory) == 1


def local(place: KeyPlace, where: str, *algorithms: str, **environment: str) -> list[dict[str, Any]]:
    return read_local(issuer(*algorithms, keys=KeySource(place, where)), environment)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_in_pem_verifies(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    public = KEYS[algorithm].public_key()
    path.write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    keys = local(KeyPlace.PEM, str(path), algorithm)
    verifier = tokens(*keys, believed=issuer(algorithm))
    assert isinstance(verifier.verify(token(algorithm, kid="whatever"), "shop", NOW), Verified)


def test_keys_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    private = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "key.pem"
    path.write_bytes(private)
    with pytest.raises(NoKeysError, match="holds a private key"):
        local(KeyPlace.PEM, str(path))
    with pytest.raises(NoKeysError, match="cannot be read"):
        local(KeyPlace.PEM, str(tmp_path / "none"))
    with pytest.raises(NoKeysError, match="VAR is not set"):
        local(KeyPlace.SECRET, "VAR", "HS256")
    with pytest.raises(NoKeysError, match="has 5 bytes"):
        local(KeyPlace.SECRET, "VAR", "HS256", VAR="short")
    for content in (b"", b"[]", b"{}", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', b'{"keys": [5]}'):
        with pytest.raises(NoKeysError):
            parse_jwks(content, "there")
    with pytest.raises(NoKeysError, match="private key"):
        parse_jwks(json.dumps({"keys": [jwk("RS256") | {"d": "x"}]}).encode(), "there")


@pytest.mark.parametrize(
    ("issuers", "group", "words"),
    [
        ("", "auth: {jwt: {issuer: shop}}", "unknown issuer 'shop'"),
        ("", "sticky: jwt", "no token is verified"),
        ("", "rate_limit: [{by: subject, requests: 1}]", "nobody is verified"),
        ("", "auth: {}", "needs jwt, session or user"),
        ("", "auth: {session: {check: relative}}", "begins with /"),
        ("algorithms: [none], keys: {pem: a}", "", "Input should be"),
        ("algorithms: [RS256, HS256], keys: {pem: a}", "", "needs a secret"),
        ("algorithms: [RS256], keys: {secret: VAR}", "", "a secret signs by"),
        ("algorithms: [HS256], keys: {secret: 's3cr3t value'}", "", "name of an environment variable"),
        ("algorithms: [RS256], keys: {}", "", "one place"),
        ("algorithms: [RS256], keys: {pem: a, jwks: b}", "", "one place"),
        ("algorithms: [RS256], keys: {jwks: 'http://id.test/jwks'}", "", "https://"),
        ("algorithms: [RS256], keys: {jwks: 'ftp://id.test/jwks'}", "", "https://"),
        ("algorithms: [], keys: {pem: a}", "", "at least 1"),
    ],
)
def test_a_faulty_section_is_refused_with_its_place(issuers: str, group: str, words: str) -> None:
    more = f"issuers: {{shop: {{issuer: i, audience: a, {issuers}}}}}" if issuers else ""
    changes = {"sticky": "jwt"} if group == "sticky: jwt" else {"group": group, "more": more}
    text = routes_text(1, 2, **changes)
    with pytest.raises(InvalidFileError) as raised:
        parse_routes(text, "routes.yaml")
    assert all(problem.line for problem in raised.value.problems)
    assert any(words in problem.message for problem in raised.value.problems), raised.value


def test_a_subject_that_is_no_text_is_refused() -> None:
    found = judge(claims(sub="a\ud800"), issuer(), NOW)
    assert found == BadToken("the token names no subject")


def test_keys_of_another_place_are_not_the_issuers_any_more() -> None:
    verifier = tokens(jwk("RS256"), believed=issuer())
    given = token("RS256")
    assert isinstance(verifier.verify(given, "shop", NOW), Verified)
    verifier.use({"shop": issuer(keys=KeySource(KeyPlace.PEM, "elsewhere"))})
    assert verifier.verify(given, "shop", NOW) is Unsure.KEYS


@pytest.mark.parametrize(
    "url",
    ["https://id.test:99999/k", "https://id.test:x/k", "https://a\x7fb/k", "https://id.test/a b", "https://xn--/",
     "https://[v1.a]/k", "https://\u00e9\u0301.\u2260/k"],
)  # fmt: skip
def test_keys_at_what_is_no_url_are_a_fault_and_stop_nobody(url: str) -> None:
    async def main() -> None:
        told: list[list[dict[str, Any]] | None] = []
        sources = KeySources(lambda _name, keys: told.append(keys))
        sources.use({"shop": issuer(keys=KeySource(KeyPlace.JWKS_URL, url))})
        following = asyncio.ensure_future(sources.follow())
        await until(lambda: bool(told) or following.done(), 10)
        assert (told, following.done()) == ([None], False)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())
