"""What the parent and its workers say to each other: JSON messages on a Unix socket pair.

A frame is four bytes of length (big endian) and that many bytes of JSON. Each message has `t`, its type:

| from | `t` | fields |
|---|---|---|
| parent | `start` | `routes` (`Routes.as_wire`), `secret` (hex), `drain_seconds`, `keys` by issuer, `members`: once |
| parent | `routes` | `routes`: use these from now on |
| parent | `keys` | `issuer`, `keys` (JSON Web Keys, or null): newer ones, or the answer that there are none |
| parent | `invalidate` | `groups`, `serial`: empty these groups' caches; answered by `invalidated` |
| worker | `invalidated` | `serial` |
| worker | `emptied` | `group`: its cache was emptied here, the other workers are to do the same |
| worker | `keys_wanted` | `issuer`: a token names a key that is not known; answered by `keys` |
| parent | `members` | `of`: by backend with several instances, `at` which addresses they are and which are `down` |
| worker | `members` | `of`: by such a backend, what each instance has and had of this worker; every half second |
| worker | `applied` | `version`, `at_ns`: these routes are in use; `compiled`: is the data path |
| worker | `outcomes` | what `outcomes.Recorder.drain` gave |
| worker | `comparisons` | what `comparisons.Recorder.drain` gave |
| worker | `breaker` | `backend`, `state` |

The end of the stream is a message too: a worker that sees it has lost its parent and ends.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

Message = dict[str, Any]

_LENGTH = struct.Struct(">I")
_LARGEST = 64 * 1024 * 1024


def encode(message: Message) -> bytes:
    """The frame of `message`."""
    content = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(content)) + content


class FrameError(Exception):
    """The other side sent what is no frame."""


class Decoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises FrameError when the stream is not ours."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > _LARGEST:
                raise FrameError(f"a frame of {length} bytes")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            yield json.loads(self._buffer[start + _LENGTH.size : end])
            start = end
        del self._buffer[:start]


class Link(asyncio.Protocol):
    """One end of the socket pair. `lost` is set when the other end is gone."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.blocked = False

    def send(self, message: Message) -> None:
        """Send; nothing happens when the other end is gone, `lost` says so."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        """Close after everything written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        for message in self._decoder.feed(data):
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.lost.set()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.blocked = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.blocked = False
