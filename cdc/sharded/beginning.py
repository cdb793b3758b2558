"""The position of each partition, made once, between the snapshot and the first change.

The snapshot made the slot and found no topic (an earlier one is removed with what else an earlier stream left), so the
topic's first record is the first change after the snapshot, and each partition begins at offset 0.
"""

from typing import Any

import psycopg

from cdc.seams import BEGIN_ANEW, StreamError
from cdc.sharded.claim import partition_stream
from cdc.sharded.fence import partitions

_ROW = "SELECT lsn = snapshot_lsn FROM strangler_cdc.position WHERE stream = %s"


def begun(connection: psycopg.Connection[Any], stream: str, count: int) -> bool:
    """Whether the stream's positions are there. Raises StreamError when they are of another number of partitions."""
    there = partitions(connection, stream)
    if there and set(there) != set(range(count)):
        raise StreamError(
            f"stream {stream} was begun with {len(there)} partitions, the plan says {count}: a key's changes would not "
            f"stay in one; correct `stream.kafka.partitions`, or {BEGIN_ANEW}"
        )
    return bool(there)


def divide(connection: psycopg.Connection[Any], stream: str, count: int) -> None:
    """Make the positions, unless they are there. Raises StreamError when the stream has gone on without them."""
    if begun(connection, stream, count):
        return
    cursor = psycopg.Cursor(connection)
    row = cursor.execute(_ROW, [stream]).fetchone()
    if row is None or not row[0]:
        raise StreamError(
            f"stream {stream} has been applied as one partition, so it is not known where {count} go on; say "
            f"`partitions: 1`, or {BEGIN_ANEW}"
        )
    with connection.transaction():
        for number in range(count):
            cursor.execute(
                "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn)"
                " SELECT %s, '0/0', snapshot_lsn FROM strangler_cdc.position WHERE stream = %s",
                [partition_stream(stream, number), stream],
            )
