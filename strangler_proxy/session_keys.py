"""By what a session can be known again: every identity its requests show. Pure.

A write is remembered under all of them, and a read is held when any of them has written: a browser that logs in
between keeps its anonymous id, a script its Authorization, parallel requests need not wait for a cookie. Names
that groups are sticky by count as identities too. Whoever shows none is known by its address.

A login changes the session's id by `Set-Cookie`: the answer's new identities inherit the marks of the request's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from strangler_proxy.headers import RawHeaders, ResponseHead
from strangler_proxy.identity import (
    ANONYMOUS_COOKIE,
    SESSION_COOKIE,
    USER_COOKIE,
    CookieSigner,
    cookie_value,
    user_subject,
)
from strangler_proxy.table import Group, StickyKind

_SIGNED = (USER_COOKIE, ANONYMOUS_COOKIE)


@dataclass(frozen=True, slots=True)
class Naming:
    """What of a request names its session: header names (lower case), cookie names, perhaps its address."""

    headers: frozenset[bytes]
    cookies: tuple[bytes, ...]
    address: bool
    _setting: re.Pattern[bytes]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Naming":
        """As the groups of a routes file ask for it."""
        sticky = [group.sticky for group in groups]
        headers = {each.name.lower().encode() for each in sticky if each.kind is StickyKind.HEADER}
        named = [each.name.encode() for each in sticky if each.kind is StickyKind.COOKIE]
        cookies = tuple(dict.fromkeys([SESSION_COOKIE, *named]))
        names = b"|".join(re.escape(name) for name in cookies)
        return cls(
            headers=frozenset(headers | {b"authorization"}),
            cookies=cookies,
            address=any(each.kind is StickyKind.IP for each in sticky),
            _setting=re.compile(rb'(?im:^set-cookie:\s*)(%b)\s*=\s*"?([^;,"\s]+)' % names),
        )

    def keys(
        self, *, headers: RawHeaders, cookies: bytes, address: bytes, subject: bytes, signer: CookieSigner
    ) -> list[bytes]:
        """The identities of a request; at least one. `subject` is a verified token's, or empty."""
        shown: list[tuple[bytes, bytes]] = []
        if cookies:
            shown += [(name, cookie_value(cookies, name)) for name in self.cookies]
            shown += [(name, signer.verify(name, cookie_value(cookies, name))) for name in _SIGNED]
        shown += [(name.lower(), value) for name, value in headers if name.lower() in self.headers]
        keys = [b"%b=%b" % pair for pair in shown if pair[1]]
        if subject:
            keys.append(b"subject " + subject)
        if self.address or not keys:
            keys.append(b"address " + address)
        return keys

    def given(self, head: ResponseHead, *, issued: bytes) -> list[bytes]:
        """The identities that an answer gives: by its Set-Cookie headers, by whom it says is logged in, and the
        anonymous id that the proxy adds (`issued`, may be empty)."""
        text = head.ready or b"".join(line for line in head.lines if line[:4].lower() == b"set-")
        keys = [b"%b=%b" % found for found in self._setting.findall(text)] if text else []
        user = user_subject(head.user) if head.user else b""
        keys += [b"%b=%b" % pair for pair in ((USER_COOKIE, user), (ANONYMOUS_COOKIE, issued)) if pair[1]]
        return keys
