"""Keeps everybody on a side that knows what they wrote: gathers the facts for `freshness.py`.

    unsafe request answered ─► answered: marks for all that names the client, before the answer goes out
    safe request decided    ─► kept_fresh: the decision, or the owner's when the other side is behind
    an answer passes        ─► answered: how far its backend has come
    every tick              ─► poll: GET /position of the backends that somebody waits for

A client is named by its session cookie, the proxy's two cookies, its Authorization, the headers and cookies
that groups are sticky by, and its address when there is nothing else. Marks are kept under each of these in
the table all workers share, and signed in the cookie `strangler_wrote`, which outlives the proxy and is
understood by every proxy with the same secret. A session that begins with the answer is marked as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from json import JSONDecodeError, loads
from typing import TYPE_CHECKING

from strangler_proxy.decide import SAFE_METHODS, Decision, kept_with
from strangler_proxy.fetch import Fetch, Fetched
from strangler_proxy.freshness import Applied, Mark, cookie_text, is_fresh, parse_lsn, read_cookie
from strangler_proxy.headers import Origin, ResponseHead, value_of
from strangler_proxy.identity import (
    ANONYMOUS_COOKIE,
    SESSION_COOKIE,
    USER_COOKIE,
    WROTE_COOKIE,
    cookie_value,
    signed_cookie,
)
from strangler_proxy.request import Request
from strangler_proxy.table import Backend, Group
from strangler_proxy.write_table import WriteTable

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

_HOUR = 3600
_WAITED_FOR = 1.0  # seconds after somebody was kept back during which positions are asked for
_LAG_REMEMBERED = 60.0  # seconds
_ANSWER_SECONDS = 1.0
_ANSWER_BYTES = 4096
_NEW_SESSION = re.compile(rb"(?im)^set-cookie:[ \t]*%b=([^;\r\n]+)" % re.escape(SESSION_COOKIE))


class Guard:
    """The guard of one worker. One without routes that ask for it is not made."""

    def __init__(self, plane: DataPlane, table: WriteTable) -> None:
        self._plane = plane
        self._table = table
        self._applied: dict[str, Applied] = {}
        self._lag_since: dict[str, float] = {}
        self._waited_for: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._asking: dict[str, Fetch] = {}

    # Writes

    def answered(
        self, request: Request, origin: Origin, *, side: str, head: ResponseHead, issued: bytes
    ) -> bytes:
        """`side` answers with `head`, which has not gone out yet. Gives the header line that remembers an
        unsafe request; `issued` is the anonymous id that goes out with the answer."""
        if head.applied:
            self.applied(side, head.applied)
        if request.method in SAFE_METHODS:
            return b""
        return self._wrote(request, origin, side=side, head=head, issued=issued)

    def lost(self, request: Request, origin: Origin, *, side: str) -> None:
        """A request was sent to `side` and its answer never came: it may have been done."""
        if request.method not in SAFE_METHODS:
            self._wrote(request, origin, side=side, head=None, issued=b"")

    def _wrote(
        self, request: Request, origin: Origin, *, side: str, head: ResponseHead | None, issued: bytes
    ) -> bytes:
        position = parse_lsn(head.position) if head is not None else 0
        mark = Mark(position) if position else Mark(at=time.time())
        told = list(self._names(request, origin))
        if head is not None:
            lines = head.ready or b"".join(head.lines)
            told.extend(b"session " + new[1] for new in _NEW_SESSION.finditer(lines))
        if issued:
            told.append(b"anonymous " + self._plane.signer.sign(ANONYMOUS_COOKIE, issued))
        for name in told:
            self._table.write(_key(side, name), mark)
        marks = self._from_cookie(request)
        name = side.encode()
        marks[name] = marks.pop(name, Mark()).merged(mark)
        value = self._plane.signer.sign(WROTE_COOKIE, cookie_text(marks))
        return b"Set-Cookie: %b\r\n" % signed_cookie(WROTE_COOKIE, value, _HOUR, secure=origin.secure)

    # Reads

    def kept_fresh(self, decision: Decision, group: Group, request: Request, origin: Origin) -> Decision:
        """The decision for a safe request: unchanged when its side knows what this client wrote on the
        owner's; else the owner's."""
        routes = self._plane.routes
        owner, other = group.owner, group.backend if group.owner == routes.default else routes.default
        if other == owner:
            return decision  # the group moves nothing
        if decision.backend != other and not (decision.fallback and routes.default == other):
            return decision
        if self._knows(other, owner, request, origin):
            return decision
        self._waited_for[other] = self._plane.now()
        if decision.backend == other:
            return kept_with(owner, group=group, default=routes.default)
        return replace(decision, fallback=False)  # the owner answers or nobody: the stand-in is behind

    def _knows(self, other: str, owner: str, request: Request, origin: Origin) -> bool:
        applied, now, pin = self._applied.get(other), time.time(), self._plane.routes.pin
        marks = self._from_cookie(request)
        mark = marks.get(owner.encode(), Mark())
        if not is_fresh(self._table.latest(), applied, now=now, pin=pin):
            for name in self._names(request, origin):
                mark = mark.merged(self._table.read(_key(owner, name)))
        return is_fresh(mark, applied, now=now, pin=pin)

    def _from_cookie(self, request: Request) -> dict[bytes, Mark]:
        cookie = cookie_value(request.head.cookies, WROTE_COOKIE)
        return read_cookie(self._plane.signer.verify(WROTE_COOKIE, cookie)) if cookie else {}

    def _names(self, request: Request, origin: Origin) -> Iterator[bytes]:
        cookies = request.head.cookies
        nameless = True
        for kind, cookie in (
            (b"session ", SESSION_COOKIE), (b"user ", USER_COOKIE), (b"anonymous ", ANONYMOUS_COOKIE),
            *((b"cookie ", name) for name in self._plane.routes.sticky_cookies),
        ):  # fmt: skip
            value = cookie_value(cookies, cookie)
            if value:
                nameless = False
                yield kind + value
        for header in (b"authorization", *self._plane.routes.sticky_headers):
            value = value_of(request.headers, header)
            if value:
                nameless = False
                yield header + b" " + value
        if nameless:
            yield b"ip " + origin.address

    # Positions

    def applied(self, side: str, position: bytes) -> None:
        """An answer of `side` said how far it has come."""
        number = parse_lsn(position)
        known = self._applied.get(side)
        if not number:
            self._applied.pop(side, None)
        elif known is None:
            self._applied[side] = Applied(number)
        elif known.position != number:  # also backwards: a side that was set up anew knows less
            self._applied[side] = replace(known, position=number)

    def poll(self, now: float) -> None:
        """Ask for the positions that somebody waits for. Call it every tick."""
        if not self._waited_for:
            return
        for side, since in list(self._waited_for.items()):
            backend = self._plane.routes.backends.get(side)
            if backend is None or backend.position is None or now - since > _WAITED_FOR:
                del self._waited_for[side]
            elif side not in self._asking and now - self._asked_at.get(side, 0.0) >= backend.position.every:
                self._asked_at[side] = now
                instance = (
                    self._plane.instance(backend, safe=True) if backend.several is not None else backend
                )
                if instance is not None:
                    self._asking[side] = self._ask(instance, backend.position.path)

    def close(self) -> None:
        """Leave nothing under way."""
        for fetch in self._asking.values():
            fetch.cancel()
        self._table.close()

    def _ask(self, backend: Backend, path: str) -> Fetch:
        return Fetch(
            self._plane,
            backend=backend,
            method=b"GET",
            target=path.encode("ascii"),
            lines=[b"Host: %b:%d\r\n" % (backend.host.encode("ascii"), backend.port)],
            seconds=_ANSWER_SECONDS,
            max_body=_ANSWER_BYTES,
            done=lambda fetched: self._told(backend.name, fetched),
        ).start()

    def _told(self, side: str, fetched: Fetched) -> None:
        self._asking.pop(side, None)
        told = _read(fetched)
        if told is None:
            return  # what was known stays a lower bound
        known = self._applied.get(side)
        now, wall = self._plane.now(), time.time()
        lag = known.lag if known is not None else 0.0
        if known is not None and told.committed_at > known.committed_at > 0:
            seen = wall - told.committed_at
            if seen >= lag or now - self._lag_since.get(side, 0.0) > _LAG_REMEMBERED:
                lag, self._lag_since[side] = seen, now
        if told.position:
            self._applied[side] = replace(told, lag=lag)
        else:
            self._applied.pop(side, None)


def _read(fetched: Fetched) -> Applied | None:
    """What `GET /position` said; None when it said nothing that can be used."""
    if fetched.failure is not None or fetched.status != 200 or fetched.cut:
        return None
    try:
        body = loads(fetched.body)
        committed = body.get("commit_time")
        at = datetime.fromisoformat(committed).timestamp() if committed else 0.0
        return Applied(parse_lsn(str(body["applied"] or "").encode("ascii")), at)
    except (JSONDecodeError, UnicodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _key(side: str, name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8, key=side.encode(), person=b"wrote").digest(), "big")
