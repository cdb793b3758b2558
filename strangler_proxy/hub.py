"""Where the workers' outcomes meet: sums for `/admin/outcomes`, lines for `/admin/outcomes/stream`.

Lines are numbered by `seq`; a subscriber that reads too slowly is cut off (it connects again, gets `hello`,
and sees by the gap in `seq` that it missed something) rather than fed from an ever growing buffer.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from strangler_proxy.comparisons import Comparisons
from strangler_proxy.totals import Totals, evidence

HEARTBEAT_SECONDS = 0.25
_MOST_WAITING = 10_000


def line_of(event: dict[str, Any]) -> bytes:
    """An event as a line of NDJSON."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


class Hub:
    """Adds up and passes on. `hello` gives the fields of a stream's first line."""

    def __init__(self, *, hello: Callable[[], dict[str, Any]]) -> None:
        self.totals = Totals()
        self.comparisons = Comparisons()
        self._hello = hello
        self._seq = 0
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def outcomes(self, worker: int, wire: dict[str, Any]) -> None:
        """What a worker drained."""
        self.totals.add(wire)
        if not wire["items"]:
            return
        if not self._queues:
            self._seq += 1  # so that who comes back sees that something was missed
            return
        for group, items in evidence(wire).items():
            self._seq += 1
            self._publish(
                {"type": "batch", "seq": self._seq, "worker": worker, "group": group, "items": items}
            )

    def switched(self, worker: int, version: str, at_ns: int) -> None:
        """A worker uses a version of the routes."""
        self._publish({"type": "version", "version": version, "worker": worker, "at_ns": at_ns})

    async def stream(self) -> AsyncIterator[bytes]:
        """The lines of one subscriber, from now on; ends when it reads too slowly or the hub closes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._queues.add(queue)
        try:
            yield line_of({"type": "hello", "at_ns": time.time_ns(), **self._hello()})
            while True:
                try:
                    line = await asyncio.wait_for(queue.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    line = line_of({"type": "heartbeat", "at_ns": time.time_ns()})
                if line is None:
                    return
                yield line
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End every stream."""
        for queue in list(self._queues):
            self._end(queue)

    def _publish(self, event: dict[str, Any]) -> None:
        if not self._queues:
            return
        line = line_of(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(line)
            except asyncio.QueueFull:
                self._end(queue)

    def _end(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._queues.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)
