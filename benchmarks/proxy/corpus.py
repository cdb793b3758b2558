"""The requests every contender gets: 10,000 different ones, a signed user each. Pure and the same in every run.

A user is one of the proxy's own signed cookies (`strangler_user`), made beforehand, beside the cookies that a
shop's user has anyway. Path, query and a few headers vary too, so that nobody lives from identical requests.
Groups are spread over `GROUPS` prefixes whatever the route table looks like: with one group and with 500 the
bytes on the wire are the same.
"""

import random
from collections.abc import Sequence

from benchmarks.proxy.figures import Body
from strangler_proxy.identity import USER_COOKIE, CookieSigner

SECRET = b"signs nothing but the benchmark's users"
USERS = 10_000
GROUPS = 500
HOST = b"shop.example:8000"
_AGENTS = (
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
)
_LANGUAGES = (b"en-GB,en;q=0.8", b"de-DE,de;q=0.9,en;q=0.5", b"fr", b"ja,en-US;q=0.7")


def cookies(user: int) -> bytes:
    """The Cookie header of a user."""
    draw = random.Random(user)  # noqa: S311  # variety, not secrecy
    signed = CookieSigner(SECRET).sign(USER_COOKIE, b"%d" % (100_000 + user))
    session, token = (b"%032x" % draw.getrandbits(128) for _ in range(2))
    return b"csrftoken=%b; sessionid=%b; strangler_user=%b" % (token, session, signed)


def prefix(group: int) -> str:
    """The path below which everything belongs to a group, without the leading `/api` or `/files`."""
    return f"/g{group:03d}"


def requests(body: Body, users: int = USERS) -> list[bytes]:
    """One request for each user."""
    draw = random.Random(17)  # noqa: S311  # as above
    top = b"/api" if body is Body.SMALL else b"/files"
    return [_request(draw, top, user) for user in range(users)]


def _request(draw: random.Random, top: bytes, user: int) -> bytes:
    group = prefix(draw.randrange(GROUPS)).encode()
    lines = [
        b"GET %b%b/products/%d?page=%d HTTP/1.1"
        % (top, group, draw.randrange(100_000), draw.randrange(1, 9)),
        b"Host: " + HOST,
        b"User-Agent: " + draw.choice(_AGENTS),
        b"Accept: application/json",
        b"Accept-Language: " + draw.choice(_LANGUAGES),
        b"Cookie: " + cookies(user),
    ]
    if draw.random() < 0.5:
        lines.append(b"Referer: https://shop.example%b/products" % group)
    if draw.random() < 0.3:
        lines.append(b'If-None-Match: "%016x"' % draw.getrandbits(64))
    return b"\r\n".join([*lines, b"", b""])


def as_file(corpus: Sequence[bytes]) -> bytes:
    """What requests.lua reads: requests separated by NUL."""
    return b"\0".join(corpus)
