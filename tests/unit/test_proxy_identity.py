"""Who is asking: order of the keys, what a forged cookie is worth, which cookie follows from what."""

import pytest

from strangler_proxy.identity import (
    ANONYMOUS_COOKIE,
    USER_COOKIE,
    CookieSigner,
    Digests,
    cookie_value,
    identify,
    user_cookie,
)
from strangler_proxy.table import Sticky, StickyKind

SIGNER = CookieSigner(b"0123456789abcdef")
OTHER = CookieSigner(b"fedcba9876543210")
USER = b"strangler_user=" + SIGNER.sign(USER_COOKIE, b"42")
ANONYMOUS = b"strangler_id=" + SIGNER.sign(ANONYMOUS_COOKIE, b"abc")


def who(sticky: Sticky, cookies: bytes = b"", header: bytes = b"") -> bytes:
    """The key of a request from 10.0.0.1."""
    return identify(sticky=sticky, signer=SIGNER, cookies=cookies, named_header=header, ip=b"10.0.0.1")


USER_KEY = Sticky(StickyKind.USER)


def test_user_then_anonymous_then_new() -> None:
    assert who(USER_KEY, b"a=1; " + ANONYMOUS + b"; " + USER) == b"user:42"
    assert who(USER_KEY, ANONYMOUS) == b"anonymous:abc"
    assert who(USER_KEY) == b""


@pytest.mark.parametrize(
    "forged",
    [
        b"strangler_user=42",
        b"strangler_user=42.",
        b"strangler_user=.",
        b"strangler_user=43." + USER.rpartition(b".")[2],
        b"strangler_user=" + OTHER.sign(USER_COOKIE, b"42"),
        b"strangler_user=" + SIGNER.sign(ANONYMOUS_COOKIE, b"42"),  # signed for another purpose
        b"xstrangler_user=" + SIGNER.sign(USER_COOKIE, b"42"),
    ],
)
def test_forged_cookie_is_nobody(forged: bytes) -> None:
    for _ in range(2):  # the second time it would come from memory
        assert who(USER_KEY, forged) == b""


def test_other_keys_and_what_stands_in_for_a_missing_one() -> None:
    assert who(Sticky(StickyKind.IP)) == b"ip:10.0.0.1"
    assert who(Sticky(StickyKind.SESSION), b"sessionid=s1") == b"session:s1"
    assert who(Sticky(StickyKind.COOKIE, "cart"), b"cart=c1") == b"cookie:c1"
    assert who(Sticky(StickyKind.HEADER, "X-Tenant"), header=b"t1") == b"header:t1"
    for sticky in (
        Sticky(StickyKind.SESSION),
        Sticky(StickyKind.COOKIE, "cart"),
        Sticky(StickyKind.HEADER, "X-Tenant"),
    ):
        assert who(sticky, ANONYMOUS) == b"anonymous:abc"
        assert who(sticky) == b""


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        (b"a=1", b"1"),
        (b"b=2; a=1", b"1"),
        (b"b=2;a=1", b"1"),
        (b"a=1; a=2", b"1"),
        (b'a="1"', b"1"),
        (b"ba=2; a=1", b"1"),
        (b"ab=2", b""),
        (b"b=a=1", b""),
        (b"", b""),
    ],
)
def test_cookie_value(cookies: bytes, value: bytes) -> None:
    assert cookie_value(cookies, b"a") == value


def test_user_cookie_follows_what_the_monolith_says() -> None:
    def after(said: bytes, cookies: bytes) -> bytes:
        return user_cookie(signer=SIGNER, said=said, cookies=cookies, secure=False)

    assert after(b"", b"") == b""
    assert after(b"42", USER) == b""
    assert after(b"42", b"").startswith(b"strangler_user=42.")
    assert after(b"43", USER).startswith(b"strangler_user=43.")
    assert after(b"", USER).startswith(b"strangler_user=; Path=/; Max-Age=0")
    assert after(b"4; 2", b"") == b""  # nothing that would break out of the cookie


def test_user_key_of_any_characters_stays_one_cookie_value_and_is_recognised() -> None:
    said = b'a;Domain=b,"%3B\\'
    made = user_cookie(signer=SIGNER, said=said, cookies=b"", secure=False)
    pair, *attributes = made.split(b"; ")
    assert attributes == [b"Path=/", b"Max-Age=31536000", b"HttpOnly", b"SameSite=Lax"]
    assert not set(pair.partition(b"=")[2]) & set(b' ",;\\')
    assert user_cookie(signer=SIGNER, said=said, cookies=pair, secure=False) == b""
    other = user_cookie(signer=SIGNER, said=said.replace(b"%3B", b";"), cookies=pair, secure=False)
    assert other.partition(b";")[0] != pair


def test_remembered_digests_are_by_group_and_cookies_bounded_and_forgotten() -> None:
    digests = Digests()
    digests.keep("a", b"x=1", 7)
    digests.keep("b", b"x=1", 0)
    assert (digests.find("a", b"x=1"), digests.find("b", b"x=1")) == (7, 0)
    assert digests.find("a", b"x=2") == -1
    digests.keep("a", b"x" * 1025, 7)  # clients choose how long their cookies are
    assert digests.find("a", b"x" * 1025) == -1
    for number in range(20_000):
        digests.keep("a", b"%d" % number, number)
    assert digests.find("a", b"x=1") == -1
    assert digests.find("a", b"19999") == 19_999
    digests.forget()
    assert digests.find("a", b"19999") == -1


def test_secret_is_not_shown() -> None:
    assert b"secret" not in repr(CookieSigner(b"secret" * 4)).encode().partition(b"(")[2]


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        CookieSigner(b"short")
