"""A client for checks and measurements: blocking, raw, sharing no code with what it measures."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from socket import create_connection, socket

from benchmarks.proxy.processes import BenchmarkError


@dataclass(slots=True)
class Connection:
    """A client's connection: blocking, sends raw requests, reads answers that have a Content-Length."""

    end: socket
    _rest: bytearray = field(default_factory=bytearray)

    def send(self, request: bytes) -> None:
        """Send as it is."""
        self.end.sendall(request)

    def answer(self) -> bytes:
        """The body of the next answer. Raises BenchmarkError unless it is a 200 with a length."""
        length = self._head()
        return self._chunked() if length is None else self._take(length)

    def count_answer(self) -> int:
        """Like `answer`, but the body is only counted, so that it may be larger than memory."""
        length = self._head()
        if length is None:
            return len(self._chunked())
        left = length - len(self._rest)
        self._rest.clear()
        buffer = bytearray(1 << 18)
        while left > 0 and (count := self.end.recv_into(buffer, min(left, len(buffer)))):
            left -= count
        return length - left

    def _head(self) -> int | None:
        """The length of the body that follows, None when it is chunked."""
        while (at := self._rest.find(b"\r\n\r\n")) < 0:
            self._more()
        head, self._rest = bytes(self._rest[:at]), self._rest[at + 4 :]
        start, *lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b":", 1) for line in lines)
        if start.split(b" ")[1] != b"200":
            raise BenchmarkError(f"the answer was {start.decode()}")
        if b"transfer-encoding" in fields:
            return None
        if b"content-length" not in fields:
            raise BenchmarkError(f"the answer has no length: {head.decode()}")
        return int(fields[b"content-length"])

    def _chunked(self) -> bytes:
        body = b""
        while True:
            while (at := self._rest.find(b"\r\n")) < 0:
                self._more()
            size = int(self._take(at + 2), 16)
            body += self._take(size + 2)[:-2]
            if not size:
                return body

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return taken

    def _more(self) -> None:
        data = self.end.recv(262_144)
        if not data:
            raise BenchmarkError("the connection ended within an answer")
        self._rest += data


@contextmanager
def connections(port: int, count: int) -> Iterator[list[Connection]]:
    """Open connections, closed afterwards."""
    with ExitStack() as stack:
        yield [
            Connection(stack.enter_context(create_connection(("127.0.0.1", port), timeout=60)))
            for _ in range(count)
        ]
