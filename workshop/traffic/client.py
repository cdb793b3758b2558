"""A light HTTP/1.1 client: asyncio transports, httptools, a pool of idle connections, nothing else.

It exists because the driver shares two cores with everything it measures; a general client would spend more
time than the shop. One request at a time on a connection; a connection with anything unread is closed and
never reused.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import httptools

BrokenKind = Literal["refused", "reset", "timeout", "protocol"]
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response; header names are lower case."""

    status: int
    headers: Sequence[Header]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first header `name` (lower case), None when there is none."""
        return next((value for key, value in self.headers if key == name), None)


class BrokenError(Exception):
    """No complete answer came; `kind` says how it broke."""

    def __init__(self, kind: BrokenKind, message: str) -> None:
        self.kind: BrokenKind = kind
        super().__init__(message)


class _StaleError(Exception):
    """A kept connection had been closed by the other side before it answered anything."""


class Client:
    """Connections to one server. `timeout` in seconds is for a whole exchange. Close it when done."""

    def __init__(self, host: str, port: int, *, timeout: float = 10.0) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout
        self._idle: deque[_Connection] = deque()

    async def send(self, request: bytes, *, head: bool = False, repeatable: bool = False) -> Answer:
        """Send the bytes of one request and read its answer.

        `head` is for HEAD (the answer has no body). `repeatable` allows to send it again on a new connection
        when a kept one turns out to be closed, as browsers do for safe requests. Raises BrokenError.
        """
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    connection, kept = await self._connection()
                    try:
                        answer = await connection.exchange(request, head=head)
                    except _StaleError:
                        if kept and repeatable:
                            continue
                        raise BrokenError("reset", "the connection was closed before the answer") from None
                    except BaseException:
                        connection.close()
                        raise
                    if connection.reusable:
                        self._idle.append(connection)
                    else:
                        connection.close()
                    return answer
        except TimeoutError:
            raise BrokenError("timeout", f"no complete answer within {self._timeout:g} s") from None

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> tuple["_Connection", bool]:
        while self._idle:
            connection = self._idle.pop()  # the newest: least likely to have been closed meanwhile
            if connection.reusable:
                return connection, True
            connection.close()
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        except ConnectionRefusedError as error:
            raise BrokenError("refused", f"{self._host}:{self._port} refuses connections") from error
        except OSError as error:
            raise BrokenError("reset", f"no connection to {self._host}:{self._port}: {error}") from error
        return connection, False


class _Connection(asyncio.Protocol):
    """One connection; also the callbacks of its httptools parser."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._head = False
        self._status = 0
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._started = False
        self._keep = False
        self._closed = False

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._keep and not self._closed and self._waiter is None

    async def exchange(self, request: bytes, *, head: bool) -> Answer:
        """Send and receive. Raises _StaleError before the first byte of an answer, BrokenError after it."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = asyncio.get_running_loop().create_future()
        self._head = head
        self._headers, self._body = [], []
        self._started = self._keep = False
        if self._closed:
            raise _StaleError
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close it; whoever waits gets a reset."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser; bytes nobody asked for make the connection unfit for reuse."""
        if self._waiter is None or self._waiter.done():
            self._keep = False
            self.close()
            return
        assert self._parser is not None
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenError("protocol", f"not HTTP: {error}"))

    def eof_received(self) -> bool:
        """An answer without a length ends with the connection."""
        if self._waiter is not None and not self._waiter.done() and self._started and not self._framed():
            self._finish(keep=False)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Wake whoever waits."""
        self._closed = True
        if not self._started:
            self._fail(_StaleError())
        else:
            self._fail(BrokenError("reset", f"the connection was closed within the answer ({error})"))

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The status is known; an answer to HEAD is complete."""
        assert self._parser is not None
        self._status = self._parser.get_status_code()
        if self._head and self._status >= 200:
            # the parser would wait for the body that Content-Length promises: no more reuse, simply
            self._finish(keep=False)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole; 1xx are only announcements."""
        assert self._parser is not None
        if 100 <= self._status < 200:
            self._headers, self._body = [], []
            return
        self._finish(keep=self._parser.should_keep_alive())

    def _framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _finish(self, *, keep: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._keep = keep
            self._waiter.set_result(Answer(self._status, tuple(self._headers), b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
