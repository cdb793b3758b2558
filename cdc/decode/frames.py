"""Take log data out of a connection in COPY BOTH mode. The loop around every message, hence compiled.

A frame is a message of the server: `w` (XLogData: start, end, time, then one pgoutput message) or something else,
which is the reader's to answer. Source: PostgreSQL 16 manual, "Streaming Replication Protocol".
"""

from collections.abc import Callable
from dataclasses import dataclass

from cdc.changes import Event
from cdc.decode.transactions import Assembler

XLOG_HEADER = 25
"""Bytes before the pgoutput message: kind, start, end, server time."""
_XLOG_DATA = ord("w")
_MESSAGES_AT_ONCE = 10_000  # so that a huge transaction does not keep the reader from returning,
_BYTES_AT_ONCE = 8_000_000  # nor large rows fill the memory before they are counted

GetCopyData = Callable[[int], tuple[int, bytes | memoryview]]
"""`psycopg.pq.PGconn.get_copy_data`; without data it gives empty bytes, whatever its annotation says."""


@dataclass(slots=True)
class Drained:
    """Why it ended: `ended`, `empty` (nothing more has arrived), `other` (a frame that is not log data), or else
    enough was taken. `taken` bytes in all.
    """

    taken: int
    ended: bool = False
    empty: bool = False
    other: bytes = b""


def drain(get_copy_data: GetCopyData, assembler: Assembler, events: list[Event]) -> Drained:
    """Append to `events` what the log data that has arrived ends or fills. Does not wait. Raises DecodeError."""
    taken = 0
    for _ in range(_MESSAGES_AT_ONCE):
        size, data = get_copy_data(1)
        if size <= 0:
            return Drained(taken, ended=size < 0, empty=size == 0)
        frame = bytes(data)
        taken += size
        if frame[0] != _XLOG_DATA:
            return Drained(taken, other=frame)
        transaction = assembler.feed_bytes(frame, XLOG_HEADER)
        if transaction is not None:
            events.append(transaction)
        if taken > _BYTES_AT_ONCE:
            break
    return Drained(taken)
