"""Who is asking, as far as stickiness is concerned: the key whose bucket decides the side.

For `sticky: user` the order is:

1. the subject of the proxy's own signed cookie `strangler_user`. It is set when a response of the default
   backend carries `X-Strangler-User: <primary key>` and deleted when that header is present and empty;
2. else the signed anonymous cookie `strangler_id`, 128 random bits.

A login or logout is a change of identity: the side may change at that moment, and at no other. `session` is
the value of Django's `sessionid` cookie; `header:NAME`, `cookie:NAME` and `ip` are as named, `jwt` is
the verified subject of a bearer token. Where the
named thing is missing, the anonymous cookie stands in.

Cookies and caches: `strangler_id` is issued only where it is of use, on a response of a group that asked
for it and on HTML pages (so that the requests a page fires in parallel share one identity), never on images
and other assets. A response that issues one also gets `Cache-Control: private="Set-Cookie"` (RFC 9111
§5.2.2.7): a shared cache must not hand the cookie to a second person.

Signing: HMAC-SHA256 over `purpose NUL value`, cut to 128 bits, base64url. The value is in the clear; it is
a primary key or a random number, and only its origin must be certain.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache

from strangler_proxy.table import Sticky, StickyKind

USER_COOKIE = b"strangler_user"
ANONYMOUS_COOKIE = b"strangler_id"
SESSION_COOKIE = b"sessionid"
WROTE_COOKIE = b"strangler_wrote"
SHORTEST_SECRET = 16  # bytes
_YEAR = 31_536_000
_REMEMBERED = 20_000
_LONGEST_REMEMBERED = 1024  # bytes
_SUBJECT = re.compile(rb"[!-~]{1,128}")
# Of RFC 6265's cookie-octets, without % that marks the others: a key `x;Domain=...` stays a value.
_NOT_IN_COOKIES = re.compile(rb'["%,;\\]')


@lru_cache(maxsize=64)
def _cookie_pattern(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'(?:^|[;,]\s*)%b\s*=\s*"?([^;,"\s]*)' % re.escape(name))


def cookie_value(cookies: bytes, name: bytes) -> bytes:
    """The value of the first cookie `name` in a Cookie header, or empty."""
    if name not in cookies:
        return b""
    match = _cookie_pattern(name).search(cookies)
    return match[1] if match else b""


@dataclass(slots=True)
class CookieSigner:
    """Signs and verifies the proxy's cookies. Remembers verified ones: the same few come again and again."""

    secret: bytes = field(repr=False)  # stays out of tracebacks
    _verified: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < SHORTEST_SECRET:
            raise ValueError(f"the cookie secret needs at least {SHORTEST_SECRET} bytes")

    def sign(self, purpose: bytes, value: bytes) -> bytes:
        """The cookie's value: `value.signature`."""
        return value + b"." + self._signature(purpose, value)

    def verify(self, purpose: bytes, cookie: bytes) -> bytes:
        """The value that was signed, or empty when the signature is not ours."""
        known = self._verified.get((purpose, cookie))
        if known is not None:
            return known
        value, _, signature = cookie.rpartition(b".")
        if not value or not hmac.compare_digest(signature, self._signature(purpose, value)):
            return b""
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified[(purpose, cookie)] = value
        return value

    def _signature(self, purpose: bytes, value: bytes) -> bytes:
        digest = hmac.digest(self.secret, purpose + b"\0" + value, "sha256")
        return urlsafe_b64encode(digest[:16]).rstrip(b"=")


class Digests:
    """Who came with which cookies lately, as a digest (`buckets.digest_of`) by group and Cookie header: whoever comes
    again is neither verified nor hashed again. Only what follows from cookies alone may be kept here, and only
    until the routes change. At most 20,000 headers of at most 1 KiB.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], int] = {}

    def find(self, group: str, cookies: bytes) -> int:
        """The digest, -1 when it is not known."""
        return self._known.get((group, cookies), -1)

    def keep(self, group: str, cookies: bytes, digest: int) -> None:
        """Remember it; when there are too many, all others are forgotten."""
        if len(cookies) > _LONGEST_REMEMBERED:
            return
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[(group, cookies)] = digest

    def forget(self) -> None:
        """The routes have changed: what a group's users are told apart by may be something else."""
        self._known.clear()


def identify(
    *,
    sticky: Sticky,
    signer: CookieSigner,
    cookies: bytes,
    named_header: bytes,
    ip: bytes,
    subject: bytes = b"",
) -> bytes:
    """The key that the bucket of a request is drawn from; empty when the client has no identity yet and
    must be issued one (its key is then `anonymous_key` of it).

    `named_header` is the value of the header that `header:NAME` names, `subject` the verified one of a token;
    empty when absent.
    """
    key = b""
    match sticky.kind:
        case StickyKind.USER:
            subject = signer.verify(USER_COOKIE, cookie_value(cookies, USER_COOKIE))
            key = b"user:" + subject if subject else b""
        case StickyKind.SESSION:
            session = cookie_value(cookies, SESSION_COOKIE)
            key = b"session:" + session if session else b""
        case StickyKind.HEADER:
            key = b"header:" + named_header if named_header else b""
        case StickyKind.COOKIE:
            value = cookie_value(cookies, sticky.name.encode())
            key = b"cookie:" + value if value else b""
        case StickyKind.IP:
            key = b"ip:" + ip
        case StickyKind.JWT:
            key = b"subject:" + subject if subject else b""
    if key:
        return key
    anonymous = signer.verify(ANONYMOUS_COOKIE, cookie_value(cookies, ANONYMOUS_COOKIE))
    return anonymous_key(anonymous) if anonymous else b""


def anonymous_key(value: bytes) -> bytes:
    """The key of whoever holds the anonymous id `value`."""
    return b"anonymous:" + value


def anonymous_cookie(*, signer: CookieSigner, value: bytes, secure: bool) -> bytes:
    """The Set-Cookie value that issues an anonymous id."""
    return _set_cookie(ANONYMOUS_COOKIE, signer.sign(ANONYMOUS_COOKIE, value), _YEAR, secure=secure)


def user_cookie(*, signer: CookieSigner, said: bytes, cookies: bytes, secure: bool) -> bytes:
    """The Set-Cookie value that follows from `X-Strangler-User: said`, or empty when nothing changes."""
    present = cookie_value(cookies, USER_COOKIE)
    if not said:
        return _set_cookie(USER_COOKIE, b"", 0, secure=secure) if present else b""
    subject = user_subject(said)
    if not subject:
        return b""
    if signer.verify(USER_COOKIE, present) == subject:
        return b""
    return _set_cookie(USER_COOKIE, signer.sign(USER_COOKIE, subject), _YEAR, secure=secure)


def user_subject(said: bytes) -> bytes:
    """The user that `X-Strangler-User: said` names, as the proxy's cookie carries it; empty when it cannot."""
    if not _SUBJECT.fullmatch(said):
        return b""
    return _NOT_IN_COOKIES.sub(lambda found: b"%%%02X" % found[0][0], said)


def cookie_lines(
    *,
    signer: CookieSigner,
    cookies: bytes,
    said: bytes | None,
    issue: bytes,
    page: bytes,
    secure: bool,
    shared_cacheable: bool,
) -> bytes:
    """The header lines a response gets, often none.

    `said` is what the default backend's `X-Strangler-User` says, None when absent; `issue` the anonymous id
    that a client without identity is to be issued; `page` one to issue with an HTML page unless the client
    has one already.
    """
    made: list[bytes] = []
    if said is not None:
        made.append(user_cookie(signer=signer, said=said, cookies=cookies, secure=secure))
    if page and not signer.verify(ANONYMOUS_COOKIE, cookie_value(cookies, ANONYMOUS_COOKIE)):
        issue = page
    if issue:
        made.append(anonymous_cookie(signer=signer, value=issue, secure=secure))
    lines = b"".join(b"Set-Cookie: %b\r\n" % cookie for cookie in made if cookie)
    if lines and shared_cacheable:
        lines += b'Cache-Control: private="Set-Cookie"\r\n'
    return lines


def signed_cookie(name: bytes, value: bytes, seconds: int, *, secure: bool) -> bytes:
    """The Set-Cookie value for a signed `value` that lives for `seconds`."""
    return _set_cookie(name, value, seconds, secure=secure)


def _set_cookie(name: bytes, value: bytes, seconds: int, *, secure: bool) -> bytes:
    end = b"; Secure" if secure else b""
    return b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b" % (name, value, seconds, end)
