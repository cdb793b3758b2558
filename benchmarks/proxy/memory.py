"""Memory of one worker: with many idle connections, and while much more than its memory streams through.

    a server of zeros (threads of this process) ◄── contender ◄── clients (this process)

Resident memory is the kernel's own figure; while bodies stream it is the *peak* (VmHWM, reset before each way),
so that nothing hides between samples. An idle connection is one that has had an answer and stays open, which is
what a browser leaves behind, not one that never spoke. The slow client reads nothing until the server has been
held back, then everything: whatever the proxy would buffer for it shows in the peak.
"""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.proxy.client import Connection, connections
from benchmarks.proxy.corpus import HOST, cookies
from benchmarks.proxy.goals import Memory
from benchmarks.proxy.processes import BenchmarkError, forget_peak, peak_resident, resident

_MB = 1_000_000
_BLOCK = bytes(1 << 18)
_HELD_BACK = 0.5  # seconds in which nothing more is taken
_PATIENCE = 60.0


@dataclass(slots=True)
class Zeros:
    """GET /api/bytes/N answers with N zeros; a POST is read to its end, then answered. `sent` and `taken` count
    bytes of bodies."""

    port: int = 0
    sent: int = 0
    taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, sent: int = 0, taken: int = 0) -> None:
        """Count."""
        with self._lock:
            self.sent += sent
            self.taken += taken


class _Handler(socketserver.BaseRequestHandler):
    """One connection of the proxy."""

    zeros: Zeros

    def handle(self) -> None:
        """Requests until the proxy closes."""
        end: socket.socket = self.request
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # head and small body are two writes
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = end.recv(65_536)
                    if not data:
                        return
                    rest += data
                head, _, rest = rest.partition(b"\r\n\r\n")
                start, *lines = head.split(b"\r\n")
                fields = dict(line.lower().split(b":", 1) for line in lines)
                rest = self._take(end, rest, int(fields.get(b"content-length", 0)))
                asked = start.split(b" ")[1].rpartition(b"/")[2]
                size = int(asked) if asked.isdigit() else 2
                end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                self._give(end, size)
        except ConnectionError:
            return  # the proxy is ended with connections open

    def _take(self, end: socket.socket, rest: bytes, left: int) -> bytes:
        own = min(left, len(rest))
        left, rest = left - own, rest[own:]
        self.zeros.add(taken=own)
        buffer = bytearray(1 << 18)
        while left:
            count = end.recv_into(buffer, min(left, len(buffer)))
            if not count:
                raise ConnectionResetError
            left -= count
            self.zeros.add(taken=count)
        return rest

    def _give(self, end: socket.socket, left: int) -> None:
        while left:
            count = end.send(_BLOCK[: min(left, len(_BLOCK))])
            left -= count
            self.zeros.add(sent=count)


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 4096


@contextmanager
def zeros() -> Iterator[Zeros]:
    """The server, while it is needed."""
    state = Zeros()
    handler = type("Handler", (_Handler,), {"zeros": state})
    with _Threads(("127.0.0.1", 0), handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def measure(contender: str, *, port: int, pid: int, upstream: Zeros, idle: int, stream_mb: int) -> Memory:
    """Memory of process `pid`, which listens on `port` and forwards to `upstream`.

    Raises BenchmarkError when a connection was closed or bytes are missing.
    """
    with connections(port, 1) as clients:
        for _ in range(200):  # what is made once, at the first requests, is not the connections' fault
            _ask(clients[0], 0)
    empty = resident(pid)
    above = []
    for way in (upload, download, slow_download):
        before = resident(pid)
        forget_peak(pid)
        way(port, upstream, stream_mb * _MB)
        above.append(round((peak_resident(pid) - before) / _MB, 1))
    with ExitStack() as stack:
        waiting = stack.enter_context(connections(port, idle))
        for number, client in enumerate(waiting):
            _ask(client, number)
        filled = resident(pid)
        for number, client in enumerate(waiting[:: max(1, idle // 100)]):
            _ask(client, number)  # they live: an answer comes
    return Memory(
        contender=contender,
        connections=idle,
        empty_mb=round(empty / _MB, 1),
        idle_mb=round(filled / _MB, 1),
        streamed_mb=stream_mb,
        upload_above_mb=above[0],
        download_above_mb=above[1],
        slow_download_above_mb=above[2],
    )


def upload(port: int, upstream: Zeros, size: int) -> None:
    """Send `size` bytes through. Raises BenchmarkError when not all of them arrived."""
    taken = upstream.taken
    with connections(port, 1) as (client,):
        head = b"POST /api/upload HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\nContent-Length: %d\r\n\r\n"
        client.send(head % (HOST, cookies(1), size))
        for start in range(0, size, len(_BLOCK)):
            client.send(_BLOCK[: min(size - start, len(_BLOCK))])
        client.answer()
    if upstream.taken - taken != size:
        raise BenchmarkError(f"{upstream.taken - taken:,} of {size:,} uploaded bytes arrived")


def download(port: int, _upstream: Zeros, size: int) -> None:
    """Take `size` bytes through as fast as they come. Raises BenchmarkError when some are missing."""
    with connections(port, 1) as (client,):
        _begin(client, size)
        _receive(client, size)


def slow_download(port: int, upstream: Zeros, size: int) -> None:
    """The same, but read nothing until the upstream is held back, then everything.

    Raises BenchmarkError when bytes are missing or the upstream could send everything beforehand.
    """
    before = upstream.sent
    with connections(port, 1) as (client,):
        _begin(client, size)
        _until_still(lambda: upstream.sent)
        if upstream.sent - before >= size:
            raise BenchmarkError(
                f"{size:,} bytes were taken from the upstream for a client that read nothing"
            )
        _receive(client, size)


def _begin(client: Connection, size: int) -> None:
    client.send(b"GET /api/bytes/%d HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\n\r\n" % (size, HOST, cookies(1)))


def _receive(client: Connection, size: int) -> None:
    got = client.count_answer()
    if got != size:
        raise BenchmarkError(f"{got:,} of {size:,} downloaded bytes arrived")


def _until_still(count: Callable[[], int]) -> None:
    """Wait until `count` has begun and then stays for a while."""
    deadline = time.monotonic() + _PATIENCE
    last, since = count(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if (now := count()) != last:
            last, since = now, time.monotonic()
        elif last and time.monotonic() - since > _HELD_BACK:
            return
    raise BenchmarkError(f"the upstream still sends after {_PATIENCE:g} s to a client that reads nothing")


def _ask(client: Connection, user: int) -> None:
    client.send(b"GET /api/bytes/500 HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\n\r\n" % (HOST, cookies(user)))
    client.answer()
