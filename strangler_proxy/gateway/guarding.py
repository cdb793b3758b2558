"""The duty that lets pass only who may: by token, by the proxy's own cookie, or by asking the default backend.

    bearer token? ── yes ─► good and sufficient ─► pass       bad ─► 401       insufficient ─► 403
         │ no
    `user` and a valid strangler_user cookie ─► pass
         │ no
    `session` and a Cookie header ─► known good? pass : ask ─► 2xx pass · 3xx, 401, 403 refused · else 503
         │ no
    401

A session that was found good is remembered for `every`; a bad one is not, since a login may make it good at
any moment. Requests that come while one of theirs is being asked about wait for that answer. Whatever could not
be found out is refused with 503: a check that fails open is none.

The backend is told who it is by `X-Strangler-Subject` and `X-Strangler-Issuer`; clients cannot send these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256

from strangler_proxy.duties import WAIT, Admission, Answer, Call, Duty, Outgoing, Refusal
from strangler_proxy.fetch import Fetch, Fetched
from strangler_proxy.gateway.auth import Auth, BadToken, SessionCheck, header_text, lacks
from strangler_proxy.gateway.remembered import Remembered
from strangler_proxy.gateway.tokens import Tokens, Unsure, bearer
from strangler_proxy.headers import read_response
from strangler_proxy.identity import USER_COOKIE, cookie_value
from strangler_proxy.table import StickyKind

SESSION = "session"  # issuer of what the monolith itself vouches for
_MAX_CHECK_BODY = 65_536
_UNREADY = Refusal(
    503, "the keys that tokens are verified with are not here yet", retry_after=1.0, kind="auth"
)


class Guarding(Duty):
    """Applies `auth`. `clock` tells seconds since 1970; `sessions` are those found good, by the SHA-256 of their
    Host and Cookie headers, with the user they belong to."""

    rewrites = True  # who it is, is told to whoever is asked, in shadow too

    def __init__(
        self,
        auth: Auth,
        *,
        tokens: Tokens | None,
        sessions: Remembered[bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._tokens = tokens
        self._clock = clock
        self._sessions = sessions
        self._asked: dict[bytes, list[Call]] = {}

    def admit(self, call: Call) -> Admission:
        """May this request pass?"""
        auth = self._auth
        token = bearer(call.request.headers) if auth.token is not None else b""
        if token is None:
            return _refusal(400, "invalid_request", "a request has one Authorization header")
        if token:
            return self._by_token(call, token)
        if auth.user:
            user = call.plane.signer.verify(USER_COOKIE, cookie_value(call.request.head.cookies, USER_COOKIE))
            if user:
                self._vouch(call, SESSION, user.decode("latin-1"))
                return None
        if auth.session is not None and call.request.head.cookies:
            return self._by_session(call, auth.session)
        if auth.token is not None and auth.token.optional:
            return None
        return _refusal(401, "", "this needs authentication")

    def request(self, call: Call, outgoing: Outgoing) -> None:
        """Tell the backend who it is."""
        said = call.notes.get(self)
        if said is not None:
            outgoing.lines.append(said)

    def _vouch(self, call: Call, issuer: str, subject: str) -> None:
        call.subject = f"{issuer}:{subject}".encode()
        call.notes[self] = b"X-Strangler-Subject: %b\r\nX-Strangler-Issuer: %b\r\n" % (
            header_text(subject),
            issuer.encode(),
        )

    # By token

    def _by_token(self, call: Call, token: bytes) -> Admission:
        assert self._tokens is not None
        assert self._auth.token is not None
        name = self._tokens.issuer_of(token, self._auth.token.issuers)
        said = self._token_verdict(call, token, name)
        if said is not Unsure.KEYS:
            return said
        if call.group.sticky.kind is StickyKind.JWT:
            self._tokens.wait(name, lambda: None)
            return _UNREADY  # its side was chosen without knowing whose request it is
        self._tokens.wait(name, lambda: self._again(call, token, name))
        return WAIT

    def _again(self, call: Call, token: bytes, name: str) -> None:
        said = self._token_verdict(call, token, name)
        if said is None:
            call.proceed()
        elif said is Unsure.KEYS:
            known = self._tokens is not None and self._tokens.ready(name)
            call.refuse(_bad("no key of the issuer has the token's kid") if known else _UNREADY)
        else:
            call.refuse(said)

    def _token_verdict(self, call: Call, token: bytes, name: str) -> Refusal | Unsure | None:
        check = self._auth.token
        assert self._tokens is not None
        assert check is not None
        match self._tokens.verify(token, name, self._clock()):
            case BadToken(reason):
                return _bad(reason)
            case Unsure.KEYS as unsure:
                return unsure
            case verified:
                missing = lacks(check, verified)
                if missing:
                    extra = f', scope="{" ".join(sorted(check.scopes))}"' if check.scopes else ""
                    return _refusal(403, "insufficient_scope", f"the token lacks {missing}", extra)
                self._vouch(call, verified.issuer, verified.subject)
                return None

    # By session

    def _by_session(self, call: Call, check: SessionCheck) -> Admission:
        key = sha256(call.request.head.host.lower() + b"\0" + call.request.head.cookies).digest()
        known = self._sessions.get(key, call.plane.now())
        if known is not None:
            self._pass_session(call, known)
            return None
        waiting = self._asked.setdefault(key, [])
        waiting.append(call)
        if len(waiting) == 1:
            head = call.request.head
            Fetch(
                call.plane,
                backend=call.routes.backends[call.routes.default],
                method=b"GET",
                target=check.path,
                lines=[
                    b"Host: %b\r\n" % head.host,
                    b"Cookie: %b\r\n" % head.cookies,
                    call.origin.lines,
                    b"X-Request-ID: %b\r\n" % call.request_id,
                ],
                seconds=check.timeout,
                max_body=_MAX_CHECK_BODY,
                done=lambda fetched: self._session_answered(key, check, fetched),
            ).start()
        return WAIT

    def _session_answered(self, key: bytes, check: SessionCheck, fetched: Fetched) -> None:
        calls = self._asked.pop(key)
        good = fetched.failure is None and 200 <= fetched.status < 300
        user = fetched.header(b"x-strangler-user")
        if good:
            self._sessions.put(key, user, until=calls[0].plane.now() + check.every)
        for call in calls:
            if good:
                self._pass_session(call, user)
                call.proceed()
            else:
                call.refuse(_session_refusal(check, fetched))

    def _pass_session(self, call: Call, user: bytes) -> None:
        if user:
            self._vouch(call, SESSION, user.decode("latin-1"))


def _session_refusal(check: SessionCheck, fetched: Fetched) -> Refusal | Answer:
    refused = 300 <= fetched.status < 400 or fetched.status in (401, 403)
    if fetched.failure is not None or not refused or fetched.cut:
        return Refusal(503, "the session could not be checked", retry_after=1.0, kind="auth")
    if not check.pass_on:
        return _refusal(401, "", "the session is not logged in")
    lines = tuple(read_response(fetched.headers).lines)
    return Answer(fetched.status, b"Not Authenticated", lines, fetched.body, kind="auth")


def _bad(reason: str) -> Refusal:
    return _refusal(401, "invalid_token", reason)


def _refusal(status: int, error: str, detail: str, extra: str = "") -> Refusal:
    """With the challenge of RFC 6750 §3; no error code for who sent no credentials at all."""
    said = f' error="{error}", error_description="{detail}"{extra}' if error else ""
    challenge = f'WWW-Authenticate: Bearer realm="gateway"{"," if said else ""}{said}\r\n'
    return Refusal(status, detail, (challenge.encode("ascii"),), kind="auth")
