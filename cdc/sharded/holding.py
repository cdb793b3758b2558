"""A comparison's hold on partitions: each one stops before the first change that the source's snapshot does not show.

The talk is `cdc.hold`'s, with one row for each partition. A partition has come to log position X when the change in
front committed after X, or when nothing up to X can come any more: then Connect says that X is delivered, and the
partition is stored up to the end that it had afterwards (`claim`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from cdc.changes import Lsn
from cdc.hold import Limit
from cdc.sharded.claim import partition_of, partition_stream
from cdc.sharded.lane import Lane

_LOOK_EVERY = 0.02  # seconds
_ASK_EVERY = 0.1  # seconds between two questions to Connect, while somebody waits

_LIMITS = """
SELECT stream, upto::text FROM strangler_cdc.control
WHERE starts_with(stream, %s) AND lease_until > clock_timestamp()
"""
_ARRIVED = """
UPDATE strangler_cdc.control SET held_at = %(at)s::pg_lsn, reached = upto IS NOT NULL AND upto <= %(at)s::pg_lsn
WHERE stream = %(stream)s AND NOT reached AND (held_at IS NULL OR upto <= %(at)s::pg_lsn)
"""

Delivered = Callable[[], tuple[Lsn | None, Mapping[int, int]]]
"""What Connect says is delivered, and the partitions' ends, read after that."""


class Holding:
    """The requests in force for the partitions of `stream`. `connection` is autocommit, to the target."""

    def __init__(self, connection: psycopg.Connection[Any], stream: str, *, delivered: Delivered) -> None:
        self._connection = connection
        self._stream = stream
        self._ask = delivered
        self._limits: dict[int, Limit] = {}
        self._looked = self._asked = 0.0
        self._delivered: tuple[Lsn, Mapping[int, int]] = (Lsn(0), {})

    @property
    def held(self) -> bool:
        """Whether anything is held."""
        return bool(self._limits)

    def look(self) -> None:
        """Read the requests; at most every 20 ms."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        rows = self._connection.execute(_LIMITS, [partition_stream(self._stream, 0)[:-1]]).fetchall()
        self._limits = {
            partition: Limit(None if upto is None else Lsn.parse(upto))
            for name, upto in rows
            if (partition := partition_of(self._stream, name)) is not None
        }

    def step(self, lane: Lane, now: float) -> bool:
        """`lane.step`, as far as it may go; returns whether anything was written."""
        limit = self._limits.get(lane.partition)
        if limit is None:
            return lane.step(now)
        if limit.upto is None:
            self._tell(lane, Lsn(0))
            return False
        if lane.beyond(limit.upto):
            self._tell(lane, limit.upto)
            return False
        wrote = lane.step(now, upto=limit.upto)
        if not wrote and lane.empty and self._drained(lane, limit.upto, now):
            self._tell(lane, limit.upto)
        return wrote

    def _drained(self, lane: Lane, position: Lsn, now: float) -> bool:
        if self._delivered[0] < position and now - self._asked >= _ASK_EVERY:
            self._asked = now
            delivered, ends = self._ask()
            if delivered is not None:
                self._delivered = (delivered, ends)
        return self._delivered[0] >= position and lane.stored >= self._delivered[1][lane.partition]

    def _tell(self, lane: Lane, position: Lsn) -> None:
        self._connection.execute(
            _ARRIVED, {"at": str(position), "stream": partition_stream(self._stream, lane.partition)}
        )
