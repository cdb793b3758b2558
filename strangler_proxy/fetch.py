"""A request of the proxy's own: health checks, session checks, shadows, parts of an aggregate.

It goes over the ordinary pools and holds the whole answer in memory, so it is bounded: by a deadline for
everything together and by the size of the body. It is no evidence and touches no breaker; who fetches decides
what the result means.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from strangler_proxy.decide import SAFE_METHODS
from strangler_proxy.headers import RawHeaders, ResponseHead, value_of
from strangler_proxy.outcomes import Failure
from strangler_proxy.table import Backend
from strangler_proxy.upstream import Pool, UpstreamConnection


class Connections(Protocol):
    """Where the request's connection comes from: a worker's data plane, or what stands in for it."""

    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]

    def pool(self, backend: Backend, /) -> Pool:
        """The connections to a backend."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of it. `failure` is None when a whole answer came, 5xx too. `headers` are as received, names
    in their own spelling; `cut`: the body was longer than allowed and `body` is its beginning.
    """

    status: int
    headers: RawHeaders
    body: bytes
    failure: Failure | None
    cut: bool
    seconds: float

    def header(self, name: bytes) -> bytes:
        """The value of the first header `name` (lower case), or empty."""
        return value_of(self.headers, name)


class Fetch:
    """One request under way. `done` is called once, never before `start` returns, and not after `cancel`."""

    request_complete = True  # upstream.Exchange: the request is sent at once

    def __init__(
        self,
        plane: Connections,
        *,
        backend: Backend,
        method: bytes,
        target: bytes,
        lines: Sequence[bytes],
        seconds: float,
        max_body: int,
        done: Callable[[Fetched], None],
        body: bytes = b"",
    ) -> None:
        self._plane = plane
        self._backend = backend
        self._head_request = method == b"HEAD"
        framing = b"Content-Length: %d\r\n" % len(body) if body else b""
        self._bytes = b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method, target, b"".join(lines), framing, body)
        self._max_body = max_body
        self._done = done
        self._seconds = seconds
        self._began = 0.0
        self._pool: Pool | None = None
        self._connection: UpstreamConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._status = 0
        self._headers: RawHeaders = ()
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False
        self._repeatable = method in SAFE_METHODS

    def start(self) -> "Fetch":
        """Send it. `lines` must hold Host; framing is added here."""
        loop = self._plane.loop
        self._began = loop.time()
        self._timer = loop.call_later(self._seconds, self._end, Failure.TIMEOUT)
        loop.call_soon(self._acquire)
        return self

    def cancel(self) -> None:
        """Of no interest any more."""
        self._over = True
        self._release()

    def _acquire(self, *, new: bool = False) -> None:
        if self._over:
            return
        self._pool = self._plane.pool(self._backend)
        connection = self._pool.acquire(self, now=self._plane.now(), safe=self._repeatable, new=new)
        if connection is not None:
            self.upstream_ready(connection)

    # upstream.Exchange

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        """A connection is there."""
        self._pool = None
        self._connection = connection
        connection.begin(self, head_request=self._head_request)
        connection.write(self._bytes)

    def upstream_unavailable(self, failure: Failure) -> None:
        """None can be had."""
        self._pool = None
        self._end(failure)

    def interim_response(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """Of no interest."""

    def upstream_switched(self, reason: bytes, head: ResponseHead, rest: bytes) -> None:
        """Cannot be: nothing of our own asks for it."""
        raise AssertionError("a switch of protocols that nobody asked for")

    def response_head(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """The answer begins."""
        self._status = status
        self._headers = head.raw

    def response_body(self, data: bytes) -> None:
        """A piece of it; what exceeds the limit is dropped, and the connection with it."""
        if self._over:
            return
        room = max(0, self._max_body - self._size)
        self._pieces.append(data[:room])
        self._size += len(data)

    def response_flush(self) -> None:
        """Everything that came at once is there."""
        if self._size > self._max_body:
            self._end(None)

    def response_end(self, trailers: RawHeaders = ()) -> None:
        """The answer is whole, and the connection is no longer ours."""
        self._connection = None
        self._end(None)

    def upstream_failed(self, failure: Failure, *, first_byte: bool, reused: bool) -> None:
        """The connection broke. A kept-alive one that broke before any byte was just being closed: once again."""
        self._connection = None
        if failure is Failure.RESET and reused and not first_byte and self._repeatable:
            self._acquire(new=True)
        else:
            self._end(failure)

    def upstream_blocked(self, *, blocked: bool) -> None:
        """The request is short; there is nothing to hold back."""

    # Endings

    def _end(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._release()
        self._done(
            Fetched(
                status=self._status,
                headers=self._headers,
                body=b"".join(self._pieces),
                failure=failure,
                cut=self._size > self._max_body,
                seconds=self._plane.loop.time() - self._began,
            )
        )

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        pool, self._pool = self._pool, None
        if connection is not None:
            connection.abort()
        elif pool is not None:
            pool.cancel(self)


async def fetched(
    plane: Connections,
    *,
    backend: Backend,
    target: bytes,
    lines: Sequence[bytes],
    seconds: float,
    max_body: int,
    method: bytes = b"GET",
    body: bytes = b"",
) -> Fetched:
    """`Fetch` for those who can wait for it."""
    future: asyncio.Future[Fetched] = plane.loop.create_future()
    fetch = Fetch(
        plane,
        backend=backend,
        method=method,
        target=target,
        lines=lines,
        seconds=seconds,
        max_body=max_body,
        done=future.set_result,
        body=body,
    ).start()
    try:
        return await future
    finally:
        if future.cancelled():
            fetch.cancel()
