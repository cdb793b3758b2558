"""The duty that answers one request from several backends. The rules of the whole are in `aggregate.py`.

Each part is an ordinary exchange of the data path, with the client's cookies, address and request id, whose client is
a `PartClient` in memory: so a part is routed, held to its group's limits and duties, balanced, given to the fallback
and counted exactly as if the client had asked for it by itself. What a part may take is a deadline for each attempt,
so that a slow service is a time-out of that service, with the default backend in its place where its group says so.

Not passed on to parts: a body, conditions and ranges (they speak of the whole), and codings (the JSON is read here).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from strangler_proxy.duties import WAIT, Admission, Answer, Call, Duty, Refusal
from strangler_proxy.gateway.aggregate import Aggregate, Part, PartAnswer, merge, target_of
from strangler_proxy.headers import Origin, RawHeaders, RequestHead, read_request
from strangler_proxy.identity import ANONYMOUS_COOKIE
from strangler_proxy.request import Request
from strangler_proxy.table import Routes

_ALLOW = b"Allow: GET, HEAD, OPTIONS\r\n"
_OF_THE_WHOLE = frozenset({
    b"accept", b"accept-encoding", b"content-encoding", b"content-language", b"content-length", b"content-type",
    b"expect", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
_LONGEST_HEAD = 65_536


class Aggregating(Duty):
    """Answers with the whole of `aggregate`."""

    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate

    def admit(self, call: Call) -> Admission:
        """Begin with the parts."""
        match call.request.method:
            case b"GET" | b"HEAD":
                call.notes[self] = _Gathering(call, self._aggregate)
                return WAIT
            case b"OPTIONS":
                return Answer(204, b"No Content", (_ALLOW,), b"")
            case _:
                return Refusal(405, "an answer made of several can only be read", (_ALLOW,))

    def end(self, call: Call, *, complete: bool) -> None:
        """The client has its answer, or has left: parts still under way are of no interest."""
        gathering: _Gathering | None = call.notes.get(self)
        if gathering is not None:
            gathering.cancel()


class _Gathering:
    """The parts of one request. Invariant: `call` is told once, unless `cancel` came first."""

    def __init__(self, call: Call, aggregate: Aggregate) -> None:
        self._call = call
        self._aggregate = aggregate
        self._over = False
        loop = call.plane.loop
        self._clients = [PartClient(call, part, self._came) for part in aggregate.parts]
        self._timer = loop.call_later(aggregate.seconds, self._finish)
        for client in self._clients:
            loop.call_soon(client.begin)

    def _came(self) -> None:
        if all(client.answer is not None for client in self._clients):
            self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        late = PartAnswer(504, reason=f"no answer within {self._aggregate.seconds * 1000:g} ms")
        answers = [client.answer or late for client in self._clients]
        self.cancel()
        whole = merge(self._aggregate.parts, answers)
        phrase = b"OK" if whole.status == 200 else b"Bad Gateway"
        self._call.refuse(Answer(whole.status, phrase, whole.lines, whole.body))

    def cancel(self) -> None:
        """Let go of what is under way."""
        self._over = True
        self._timer.cancel()
        for client in self._clients:
            client.cancel()


class PartClient:
    """In the place of a client's connection (`request.Client`): asks for `part` and keeps the answer in memory.

    It speaks HTTP/1.0, so that the end of an answer is the end of the exchange. `done` is called once `answer` is
    there.
    """

    def __init__(self, call: Call, part: Part, done: Callable[[], None]) -> None:
        self.write_blocked = False
        self.answer: PartAnswer | None = None
        self._call = call
        self._part = part
        self._done = done
        self._pieces: list[bytes] = []
        self._size = 0
        self._cancelled = False
        self._gone: Callable[[], None] | None = None
        self._full: asyncio.Handle | None = None

    def begin(self) -> None:
        """Ask."""
        if self._cancelled:
            return
        exchange = self._call.plane.exchange(self, self._request(), limit=self._part.seconds)
        self._gone = exchange.client_gone
        exchange.start()

    def cancel(self) -> None:
        """The answer is of no interest any more."""
        self._cancelled = True
        if self._full is not None:
            self._full.cancel()
        if self._gone is not None and self.answer is None:
            self._gone()

    def _request(self) -> Request:
        call = self._call
        listed = [(name, value) for name, value in call.request.headers if name.lower() not in _OF_THE_WHOLE]
        listed += [(b"Accept", b"application/json"), (b"Accept-Encoding", b"identity")]
        if call.issue:  # whoever has no identity yet has the same new one in every part
            issued = b"%b=%b" % (ANONYMOUS_COOKIE, call.plane.signer.sign(ANONYMOUS_COOKIE, call.issue))
            listed = _with_cookie(listed, issued)
        head = replace(read_request(listed, http11=False), request_id=call.request_id)
        target = target_of(self._part, call.request.target.partition(b"?")[2])
        path = target.partition(b"?")[0]
        return Request(b"GET", target, path, listed, head, http11=False, keep_alive=False)

    # request.Client

    def origin(self, routes: Routes, head: RequestHead) -> Origin:
        """Who asks is the client."""
        return self._call.client.origin(routes, head)

    def send(self, data: bytes) -> None:
        """A piece of the answer."""
        self._size += len(data)
        if self._size <= self._part.most + _LONGEST_HEAD:
            self._pieces.append(data)
        elif self._full is None and self._gone is not None:
            # not from within: the exchange is just handing over what it received
            self._full = self._call.plane.loop.call_soon(self._gone)

    def exchange_done(self, *, close: bool, abort: bool) -> None:
        """The answer is whole, or never will be."""
        if self._cancelled:
            return
        self.answer = self._too_long() if self._full is not None else self._read(cut=abort)
        self._done()

    def body_blocked(self, *, blocked: bool) -> None:
        """There is no body to hold back."""

    def switch(self, backend: asyncio.Transport, said: bytes, ended: Callable[[], None]) -> None:
        """Not called: a part asks for no other protocol, and an answer that was not asked for is refused."""
        raise AssertionError("a part of an aggregate switched protocols")

    def _read(self, *, cut: bool) -> PartAnswer:
        head, end, body = b"".join(self._pieces).partition(b"\r\n\r\n")
        if cut or not end:
            return PartAnswer(502, reason="the answer broke off")
        if len(body) > self._part.most:
            return self._too_long()
        start, *lines = head.split(b"\r\n")
        headers: RawHeaders = [
            (name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)
        ]
        return PartAnswer(int(start.split(b" ")[1]), headers, body)

    def _too_long(self) -> PartAnswer:
        return PartAnswer(502, reason=f"the answer is longer than {self._part.most} bytes")


def _with_cookie(listed: list[tuple[bytes, bytes]], cookie: bytes) -> list[tuple[bytes, bytes]]:
    cookies = [value for name, value in listed if name.lower() == b"cookie"]
    others = [(name, value) for name, value in listed if name.lower() != b"cookie"]
    return [*others, (b"Cookie", b"; ".join([cookie, *cookies]))]  # of two the first counts
