"""Nobody gets past a signature by changing a token, whatever is changed."""

from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.gateway.auth import Verified, judge
from tests.unit.test_gateway_tokens import NOW, issuer, jwk, token, tokens

GOOD = token("ES256")
VERIFIER = tokens(jwk("ES256"), believed=issuer("ES256"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_never_changes_who_is_verified(at: int, byte: int) -> None:
    changed = GOOD[:at] + bytes((byte,)) + GOOD[at + 1 :]
    found = VERIFIER.verify(changed, "shop", NOW)
    # the last character of a base64url text has bits that mean nothing: then it is the same token
    assert not isinstance(found, Verified) or found.subject == "42"
    if changed != GOOD and at < GOOD.rindex(b".") and changed[at : at + 1] not in b"=":
        assert not isinstance(found, Verified)


@given(token=st.binary(max_size=200))
def test_noise_is_never_verified_and_never_an_error(token: bytes) -> None:
    assert not isinstance(VERIFIER.verify(token, "shop", NOW), Verified)


@given(claims=st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "scope", "scp"]), JSON))
def test_any_claims_are_judged_without_an_error(claims: object) -> None:
    judge(claims, issuer(), NOW)
