"""Two connections joined after a switch of protocols (101): bytes go through as they come, both ways.

    client ─► ClientConnection ─┐  101   ┌─ UpstreamConnection ◄─ backend      two parsers
                                └──►  ◄──┘
    client ─► End ─────────────── Tunnel ────────────────── End ◄─ backend     two buffers

The transports get new protocols, so nothing of this lies on the way of ordinary requests. An end that takes no
more pauses the reading of the other: what is held is at most a write buffer in each direction. An end of one
side's sending is passed on (where both are plain TCP; TLS knows no half) and the other direction goes on. Two
silent ends are parted after `tunnel_timeout`; a proxy that ends lets tunnels run for its drain time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

_HIGH = 65_536  # bytes an end may hold unsent before the other is no longer read


class Host(Protocol):
    """The data plane, as far as a tunnel needs it."""

    now: Callable[[], float]

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """Sweep it, count it among what a drain waits for."""

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """It is gone."""


class Tunnel:
    """Joins two transports. `ended` is called once, when both are closed."""

    def __init__(
        self,
        host: Host,
        client: asyncio.Transport,
        backend: asyncio.Transport,
        *,
        idle_seconds: float,
        ended: Callable[[], None],
    ) -> None:
        self._host = host
        self._idle_seconds = idle_seconds
        self._ended = ended
        self._last = host.now()
        self._open = 2
        self.halves = client.can_write_eof() and backend.can_write_eof()
        self._ends = (_End(self, client), _End(self, backend))
        for end, other in (self._ends, self._ends[::-1]):
            end.other = other
        host.tunnel_opened(self)

    def start(self, early: bytes, *, client_ended: bool) -> None:
        """Let bytes flow. `early` is what the client sent before the switch was known; `client_ended`: it will send
        no more."""
        client, backend = self._ends
        for end in self._ends:
            end.transport.set_protocol(end)
        if client.transport.is_closing() or backend.transport.is_closing():
            self.cut()
            return
        if early:
            backend.transport.write(early)
        if client_ended and not client.eof_received():
            client.transport.close()
        for end in self._ends:
            if end.transport.get_write_buffer_size() > _HIGH:
                end.pause_writing()
            elif not end.other.ended:
                end.other.transport.resume_reading()

    def moved(self) -> None:
        """A byte came from either side."""
        self._last = self._host.now()

    def lost(self) -> None:
        """One end is closed."""
        self._open -= 1
        if not self._open:
            self._host.tunnel_closed(self)
            self._ended()

    # What the data plane does with everything that holds a client's connection

    def sweep(self, now: float) -> None:
        """Part the ends when nothing has moved for too long."""
        if now - self._last > self._idle_seconds:
            self.cut()

    def drain(self) -> None:
        """Nothing tells a protocol of others that the proxy ends: it has the drain time, then `cut`."""

    def cut(self) -> None:
        """Close both at once."""
        for end in self._ends:
            end.transport.abort()


class _End(asyncio.Protocol):
    """One side of a tunnel."""

    other: _End

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.ended = False  # it sends no more

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._tunnel.moved()
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Called by the loop. True keeps the connection open for what the other side still sends."""
        self.ended = True
        if not self._tunnel.halves or self.other.ended or self.other.transport.is_closing():
            return False
        self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if exc is None:
            self.other.transport.close()  # after what was written; `sweep` sees to it that this ends
        else:
            self.other.transport.abort()
        self._tunnel.lost()

    def pause_writing(self) -> None:
        """Called by the loop."""
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if not self.other.transport.is_closing() and not self.other.ended:
            self.other.transport.resume_reading()
