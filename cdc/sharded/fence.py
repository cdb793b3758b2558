"""Who has a partition, and how it is taken from somebody who does not know that it is not his any more.

Each partition's applier holds an advisory lock in the target. An instance that was stopped (SIGSTOP, a long pause of
its machine) beyond the group's session timeout is out of the group, but its sessions live on and hold the locks. The
partition's new owner waits for a moment and then ends such a session: what it had open is rolled back, and when it
wakes, its next write fails and it joins the group anew. Between the two the stored offset is compared with every write,
so even a session that the server has not ended yet can write nothing that another has.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.sharded.claim import partition_of, partition_stream

_NAME = "strangler_cdc apply "

# one bigint of an advisory lock is shown as two halves
_HOLDERS = """
SELECT wanted.stream, held.pid, session.application_name, coalesce(session.client_addr::text, '')
FROM unnest(%s::text[]) AS wanted (stream)
JOIN pg_locks held ON held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (held.classid::bigint << 32 | held.objid::bigint) = hashtextextended('strangler_cdc ' || wanted.stream, 0)
JOIN pg_stat_activity session USING (pid)
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that holds a stream's lock; `instance` is what it calls itself, `host:pid`."""

    pid: int
    instance: str


def instance_name() -> str:
    """What this process calls itself."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}"


def name_session(connection: psycopg.Connection[Any]) -> None:
    """Let everybody see which instance the session is of."""
    psycopg.Cursor(connection).execute(
        "SELECT set_config('application_name', %s, false)", [_NAME + instance_name()]
    )


def holders(connection: psycopg.Connection[Any], streams: Sequence[str]) -> dict[str, Holder]:
    """Who holds the locks of `streams`."""
    rows = psycopg.Cursor(connection).execute(_HOLDERS, [list(streams)]).fetchall()
    return {stream: Holder(pid, name.removeprefix(_NAME)) for stream, pid, name, _ in rows}


def end_holder(connection: psycopg.Connection[Any], stream: str) -> Holder | None:
    """End the applier's session that holds the lock of `stream`; None when there is none. Raises
    psycopg.errors.InsufficientPrivilege when it is another role's.
    """
    holder = holders(connection, [stream]).get(stream)
    if holder is None:
        return None
    psycopg.Cursor(connection).execute(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
        " WHERE pid = %s AND starts_with(application_name, %s)",
        [holder.pid, _NAME],
    )
    return holder


def partitions(connection: psycopg.Connection[Any], stream: str) -> Mapping[int, int]:
    """The stored offset of each partition of `stream`."""
    rows = psycopg.Cursor(connection).execute(
        "SELECT stream, (lsn - '0/0')::bigint FROM strangler_cdc.position WHERE starts_with(stream, %s)",
        [partition_stream(stream, 0)[:-1]],
    )
    found = {partition_of(stream, name): int(offset) for name, offset in rows}
    return {partition: offset for partition, offset in found.items() if partition is not None}
