"""Keeps everybody on a side that knows what they wrote: gathers the facts for `freshness.py`.

    unsafe request answered ─► answered: marks for all that names the client, before the answer goes out
    safe request decided    ─► kept_fresh: the decision, or the owner's when the other side is behind
    an answer passes        ─► answered: how far its backend has come, and who the client is from now on
    every tick              ─► poll: GET /position of the backends that somebody waits for

What a write concerns: the side that answered it, whatever the path, for a page may change what any other shows.
A group's reads are kept by what the client wrote on the group's owner. Its other side cannot have changed
the rows of the group: each has one writer.

Marks are kept under each name of a client (`session_keys.py`) in the table all workers share, and signed in
the cookie `strangler_wrote`, which outlives the proxy and is understood by every proxy with the same secret.
Nothing here fails a request: what is not known sends it to the owner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

from strangler_proxy.decide import SAFE_METHODS, Decision, kept_with
from strangler_proxy.freshness import NOTHING, Mark, may_answer, parse_lsn
from strangler_proxy.headers import Origin, ResponseHead
from strangler_proxy.identity import WROTE_COOKIE, cookie_value, signed_cookie
from strangler_proxy.positions import Positions
from strangler_proxy.request import Request
from strangler_proxy.session_keys import Naming
from strangler_proxy.table import Group
from strangler_proxy.write_table import WriteTable
from strangler_proxy.wrote_cookie import Clocks, read_marks, write_marks

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane


class Guard:
    """The guard of one worker. One without routes that ask for it is not made."""

    def __init__(self, plane: DataPlane, table: WriteTable) -> None:
        self._plane = plane
        self._table = table
        self.positions = Positions(plane)
        self.use()

    def use(self) -> None:
        """Go by the plane's routes from now on; what is remembered stays."""
        routes = self._plane.routes
        self._naming = Naming.of(routes.groups.values())
        guarded = [group.guarding for group in routes.groups.values() if group.guarding is not None]
        self._remember = max((guarding.remember for guarding in guarded), default=0.0)
        checks = [group.auth.token for group in routes.groups.values() if group.auth is not None]
        self._tokens = tuple(dict.fromkeys(check for check in checks if check is not None))

    # Writes

    def answered(
        self,
        request: Request,
        origin: Origin,
        *,
        side: str,
        head: ResponseHead,
        issued: bytes,
        asked_at: float,
    ) -> bytes:
        """`side`, asked at `asked_at`, answers with `head`, which has not gone out yet. Gives the header line
        that remembers an unsafe request; `issued` is the anonymous id that goes out with the answer."""
        if head.applied:
            self.positions.heard(side, head.applied, asked_at=asked_at)
        safe = request.method in SAFE_METHODS
        given = self._naming.given(head, issued=issued)
        if safe and not given:
            return b""
        names, carried = self._names(request, origin), self._from_cookie(request)
        if not safe:
            self._note(side, names, self._written(head))
            for backend in self._plane.routes.backends.values():
                if backend.position is not None:
                    self.positions.want(backend.name)
        # with the table's marks: parallel answers may reach the client in another order
        marks = {name: self._mark(name, names, carried) for name in self._plane.routes.backends}
        marks = {name: mark for name, mark in marks.items() if mark != NOTHING}
        for name, mark in marks.items():
            self._note(name, given, mark)  # whom a log-in made of the client has written the same
        if safe:
            return b""
        signed = self._plane.signer.sign(WROTE_COOKIE, write_marks(marks, self._clocks()))
        cookie = signed_cookie(WROTE_COOKIE, signed, int(self._remember), secure=origin.secure)
        private = b'Cache-Control: private="Set-Cookie"\r\n' if head.shared_cacheable else b""
        return b"Set-Cookie: %b\r\n%b" % (cookie, private)

    def lost(self, request: Request, origin: Origin, *, side: str) -> None:
        """A request was sent to `side` and its answer never came: it may have been done."""
        if request.method not in SAFE_METHODS:
            self._note(side, self._names(request, origin), Mark(unplaced_at=self._plane.now()))

    def _written(self, head: ResponseHead) -> Mark:
        position, now = parse_lsn(head.position), self._plane.now()
        return Mark(position, placed_at=now) if position else Mark(unplaced_at=now)

    def _note(self, side: str, names: Iterable[bytes], mark: Mark) -> None:
        for name in names:
            self._table.write(_key(side, name), mark)

    # Reads

    def kept_fresh(self, decision: Decision, group: Group, request: Request, origin: Origin) -> Decision:
        """The decision for a safe request: unchanged when the side that is not the owner knows what this client
        wrote on the owner's; else the owner's, whichever side the bucket named (`decide.kept_with`)."""
        guarding, routes = group.guarding, self._plane.routes
        if guarding is None:
            return decision
        owner, other = group.owner, group.backend if group.owner == routes.default else routes.default
        tells = routes.backends[other].position is not None
        applied, now = self.positions.known(other) if tells else None, self._plane.now()

        def knows(mark: Mark) -> bool:
            return may_answer(mark, applied, tells=tells, guarding=guarding, now=now)

        carried = self._from_cookie(request).get(owner, NOTHING).merged(Mark(unplaced_at=self._table.born))
        if knows(carried) and (
            knows(self._table.latest()) or knows(self._mark(owner, self._names(request, origin), {}))
        ):
            return decision
        if tells:
            self.positions.want(other)
        return kept_with(owner, group=group, default=routes.default)

    def wrote_lately(self, request: Request, origin: Origin) -> bool:
        """Did the client write, on any side, within the life of its cookie? An answer from memory may be older."""
        since = self._plane.now() - self._remember
        if self._table.latest().last <= since:
            return False
        names = self._names(request, origin)
        return any(self._mark(side, names, {}).last > since for side in self._plane.routes.backends)

    def _mark(self, side: str, names: Iterable[bytes], carried: dict[str, Mark]) -> Mark:
        mark = carried.get(side, NOTHING)
        for name in names:
            mark = mark.merged(self._table.read(_key(side, name)))
        return mark

    def _from_cookie(self, request: Request) -> dict[str, Mark]:
        cookie = cookie_value(request.head.cookies, WROTE_COOKIE)
        value = self._plane.signer.verify(WROTE_COOKIE, cookie) if cookie else b""
        return read_marks(value, self._clocks()) if value else {}

    def _names(self, request: Request, origin: Origin) -> list[bytes]:
        subject = b""
        verifier = self._plane.gateway.tokens
        if verifier is not None:
            for check in self._tokens:
                subject = subject or verifier.subject(request.headers, check, time.time())
        return self._naming.keys(
            headers=request.headers,
            cookies=request.head.cookies,
            address=origin.address,
            subject=subject,
            signer=self._plane.signer,
        )

    def _clocks(self) -> Clocks:
        return Clocks(self._plane.now(), time.time())

    # Positions

    def poll(self, now: float) -> None:
        """Ask for the positions that somebody waits for. Call it every tick."""
        self.positions.poll(now)

    def close(self) -> None:
        """Leave nothing under way."""
        self.positions.close()
        self._table.close()


def _key(side: str, name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8, key=side.encode(), person=b"wrote").digest(), "big")
