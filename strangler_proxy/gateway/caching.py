"""The duty that answers safe anonymous reads from memory. The rules are in `rfc9111.py`, the memory in
`cache_store.py`.

    in memory and fresh ─► answer                      (counted as `cached`, no evidence)
    stale, with a validator ─► ask the same arm whether it still holds ─► 304 or a new answer ─► answer
    somebody is fetching just this ─► wait for it, at most a second
    else ─► the request goes on; its answer is kept on the way

Whatever fails while asking again sends the request on its ordinary way, where a failing service counts against
itself and the default backend answers in its place: the cache hides no failure.

A successful unsafe request empties its group's cache in every worker (RFC 9111 §4.4 asks for its target only), as
does a change in one of the group's `tables`, told through the admin port.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from strangler_proxy.decide import SAFE_METHODS
from strangler_proxy.duties import CACHED, WAIT, Admission, Answer, Call, Duty, Outgoing, Refusal
from strangler_proxy.fetch import Fetch, Fetched
from strangler_proxy.gateway import rfc9111
from strangler_proxy.gateway.cache_store import CacheStore, Key
from strangler_proxy.gateway.rfc9111 import CachePolicy, Stored, Wish
from strangler_proxy.headers import ResponseHead, read_response
from strangler_proxy.identity import ANONYMOUS_COOKIE

_COLLAPSE_SECONDS = 1.0  # how long a request waits for another one's answer
_REVALIDATE_SECONDS = 5.0
_HOST = re.compile(rb"^X-Forwarded-Host: ([^\r]*)", re.MULTILINE)
_CONNECTION = frozenset({b"", b"close", b"keep-alive"})


@dataclass(slots=True)
class _Filling:
    """A request whose answer may be kept."""

    key: Key
    epoch: int
    began: float
    cookies: bytes
    stored: Stored | None = None
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Caching(Duty):
    """Applies `policy`. `before` are the group's other duties: a request of our own passes through them too.
    `emptied` is called when an unsafe request succeeded: every worker's store must go. `clock` tells seconds
    since 1970."""

    taps = True

    def __init__(
        self,
        policy: CachePolicy,
        *,
        store: CacheStore,
        before: Sequence[Duty],
        emptied: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._store = store
        self._before = tuple(before)
        self._emptied = emptied
        self._clock = clock
        self._ignored = policy.cookies | {ANONYMOUS_COOKIE}
        self._waiting: dict[Key, list[Call]] = {}

    def admit(self, call: Call) -> Admission:
        """Answer from memory, or let the request go on."""
        request = call.request
        cookies = rfc9111.meaningful_cookies(request.head.cookies, self._ignored)
        wish = rfc9111.wish_of(request.method, request.headers, cookies)
        has_body = bool(request.head.length) or request.head.chunked
        # Headers that Connection names are taken off, and variants could no longer be told apart by them
        strips = not _CONNECTION.issuperset(map(bytes.strip, request.head.connection.split(b",")))
        if wish is None or has_body or strips or not call.decision.evidence or _wrote_lately(call):
            return None
        key = self._key(call)
        stored = self._find(call, key, cookies)
        if stored is not None:
            now = call.plane.now()
            if stored.fresh_for(wish, now):
                return _answer(call, stored, wish)
            if stored.stale_for(wish, now, stale=self._policy.stale):
                self._refresh(call, key, stored, cookies)
                return _answer(call, stored, wish)
        if wish.only_if_cached:
            return Refusal(504, "there is no such answer in memory, and only-if-cached was asked for")
        if not wish.no_store and request.method == b"GET":
            return self._miss(call, key, stored, wish, cookies)
        return None

    def _miss(self, call: Call, key: Key, stored: Stored | None, wish: Wish, cookies: bytes) -> Admission:
        """Wait for who fetches just this, ask whether a stale answer still holds, or be the one who fetches."""
        if key in self._waiting:
            if wish.no_cache:
                return None
        elif stored is not None and rfc9111.conditions(stored):
            self._refresh(call, key, stored, cookies)
        else:
            if not (wish.tags or wish.since):  # a 304 for this client is nobody else's answer
                self._waiting[key] = []
                call.notes[self] = _Filling(key, self._store.epoch, call.plane.now(), cookies)
            return None
        self._wait(call, key)
        return WAIT

    def response(self, call: Call, status: int, head: ResponseHead) -> None:
        """Begin to keep the answer, if it may be kept."""
        if call.request.method not in SAFE_METHODS:
            if 200 <= status < 400:
                self._emptied(call.group.name)
            return
        if call.group.expose:
            head.lines.append(b"X-Cache: miss\r\n")
        filling = call.notes.get(self)
        if not isinstance(filling, _Filling):
            return
        if call.answered_by == call.decision.backend and not head.user:
            filling.stored = self._stored(call, filling, status, head)
        if filling.stored is None:
            self._release(filling.key)

    def body(self, call: Call, data: bytes) -> None:
        """Keep a piece of it."""
        filling = call.notes.get(self)
        if not isinstance(filling, _Filling) or filling.stored is None:
            return
        filling.size += len(data)
        if filling.size > self._policy.largest:
            filling.stored = None
            filling.pieces.clear()
            self._release(filling.key)
        else:
            filling.pieces.append(data)

    def end(self, call: Call, *, complete: bool) -> None:
        """The answer is whole, or there will be none: who waits for it waits no longer."""
        filling = call.notes.get(self)
        if not isinstance(filling, _Filling):
            return
        if complete and filling.stored is not None:
            whole = replace(filling.stored, body=b"".join(filling.pieces))
            self._store.put(filling.key, whole, epoch=filling.epoch)
        self._release(filling.key)

    def _key(self, call: Call) -> Key:
        told = _HOST.search(call.origin.lines)
        host = call.request.head.host + b" " + (told[1] if told is not None else b"")  # backends ask either
        scheme = b"https" if call.origin.secure else b"http"
        return call.decision.backend.encode(), scheme, host.lower(), call.request.target

    def _find(self, call: Call, key: Key, cookies: bytes) -> Stored | None:
        headers = call.request.headers

        def fits(stored: Stored) -> bool:
            names = [name for name, _ in stored.vary]
            return rfc9111.selecting(headers, names, cookies) == stored.vary

        return self._store.find(key, fits)

    def _stored(self, call: Call, filling: _Filling, status: int, head: ResponseHead) -> Stored | None:
        now = call.plane.now()
        lines = [line for line in head.lines if not line.startswith(b"X-Cache:")]
        return rfc9111.stored_of(
            status=status,
            reason=_phrase(status),
            headers=rfc9111.headers_of(lines),
            request=call.request.headers,
            cookies=filling.cookies,
            policy=self._policy,
            now=now,
            wall=self._clock(),
            waited=now - filling.began,
        )

    # Waiting for one another

    def _wait(self, call: Call, key: Key) -> None:
        self._waiting.setdefault(key, []).append(call)
        call.plane.loop.call_later(_COLLAPSE_SECONDS, self._waited_enough, call, key)

    def _waited_enough(self, call: Call, key: Key) -> None:
        waiting = self._waiting.get(key, [])
        still = [other for other in waiting if other is not call]
        if len(still) < len(waiting):
            self._waiting[key] = still
            call.proceed()

    def _release(self, key: Key) -> None:
        for call in self._waiting.pop(key, ()):
            cookies = rfc9111.meaningful_cookies(call.request.head.cookies, self._ignored)
            wish = rfc9111.wish_of(call.request.method, call.request.headers, cookies)
            stored = self._find(call, key, cookies)
            if stored is not None and wish is not None and stored.fresh_for(wish, call.plane.now()):
                call.refuse(_answer(call, stored, wish))
            else:
                call.proceed()

    # Asking again

    def _refresh(self, call: Call, key: Key, stored: Stored, cookies: bytes) -> None:
        """Ask the arm that gave `stored` whether it still holds, unless somebody does already."""
        if key in self._waiting:
            return
        self._waiting[key] = []
        plane = call.plane
        filling = _Filling(key, self._store.epoch, plane.now(), cookies)
        backend = call.routes.backends[call.decision.backend]
        outgoing = Outgoing(backend.name, call.request.target, call.request.lines())
        for duty in self._before:
            duty.request(call, outgoing)
        asked = [b"%b: %b\r\n" % pair for pair in rfc9111.conditions(stored).items()]
        lines = [line for line in outgoing.lines if line[:14].lower() != b"if-none-match:"]
        lines = [line for line in lines if line[:18].lower() != b"if-modified-since:"]
        Fetch(
            plane,
            backend=backend,
            method=b"GET",
            target=outgoing.target,
            lines=[
                b"Host: %b\r\n" % call.request.head.host,
                *lines,
                *asked,
                call.origin.lines,
                b"X-Request-ID: %b\r\n" % call.request_id,
            ],
            seconds=_REVALIDATE_SECONDS,
            max_body=self._policy.largest,
            done=lambda fetched: self._refreshed(call, filling, stored, fetched),
        ).start()

    def _refreshed(self, call: Call, filling: _Filling, stored: Stored, fetched: Fetched) -> None:
        if fetched.failure is None and not fetched.cut:
            head = read_response(fetched.headers)
            call.answered_by = call.decision.backend
            status = stored.status if fetched.status == 304 else fetched.status
            for duty in self._before:
                duty.response(call, status, head)
            again = self._stored(call, filling, status, head) if not head.user else None
            if again is not None:
                whole = (
                    rfc9111.freshened(stored, again)
                    if fetched.status == 304
                    else replace(again, body=fetched.body)
                )
                self._store.put(filling.key, whole, epoch=filling.epoch)
        self._release(filling.key)


def _wrote_lately(call: Call) -> bool:
    """What is in memory may be older than what the client itself wrote."""
    guard = call.plane.guard
    return guard is not None and guard.wrote_lately(call.request, call.origin)


def _answer(call: Call, stored: Stored, wish: Wish) -> Answer:
    lines = [*stored.lines, b"Age: %d\r\n" % stored.age_at(call.plane.now())]
    if call.group.expose:
        lines.append(b"X-Cache: hit\r\n")
    if rfc9111.not_modified(stored, wish):
        kept = tuple(line for line in lines if not line.lower().startswith(b"content-"))
        return Answer(304, b"Not Modified", kept, b"", kind=CACHED)
    return Answer(stored.status, stored.reason, tuple(lines), stored.body, kind=CACHED)


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status in rfc9111.STORED_STATUSES else b""
