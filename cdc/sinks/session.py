"""The applier's session on the target: one a stream, with the settings that fast and faithful applying wants."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Buffer, Dumper

from cdc.sessions import connect


class AlreadyRunningError(Exception):
    """Another process applies this stream."""


@dataclass(frozen=True, slots=True)
class Session:
    """`replica_role`: triggers and foreign keys do not run. `asynchronous`: commits do not wait for the disk."""

    connection: psycopg.Connection[Any]
    replica_role: bool
    asynchronous: bool


class _RawText(Dumper):
    """Hands PostgreSQL's own text back to it, untouched and of unknown type."""

    format = pq.Format.TEXT
    oid = 0

    def dump(self, obj: Any) -> Buffer:
        return obj  # type: ignore[no-any-return]  # registered for bytes only


def open_session(dsn: str, *, stream: str, applier: bool) -> Session:
    """Connect; `applier` takes the stream's lock. Raises psycopg.OperationalError, AlreadyRunningError."""
    # The applier looks up keys; a hash or merge join, or a scan, would read the whole target for a few rows. That a
    # scan is cheap may also be what an old plan thinks, from when the target was empty.
    connection = connect(
        dsn,
        name=f"strangler_cdc apply {stream}",
        enable_hashjoin="off",
        enable_mergejoin="off",
        enable_seqscan="off",
        enable_memoize="off",
        jit="off",
    )
    connection.cursor_factory = psycopg.RawCursor
    connection.adapters.register_dumper(bytes, _RawText)
    # psycopg gives up everything that is prepared after each ROLLBACK; `RoundTrips` has its own
    connection.prepare_threshold = None
    try:
        if applier:
            lock_stream(connection, stream)
        replica_role = may_be_replica(connection)
        if replica_role:
            connection.execute("SET session_replication_role = replica")
        asynchronous = applier and not _waits_for_standbys(connection)
        if asynchronous:
            connection.execute("SET synchronous_commit = off")
    except BaseException:
        connection.close()
        raise
    return Session(connection, replica_role, asynchronous)


def lock_stream(connection: psycopg.Connection[Any], stream: str) -> None:
    """Take the lock of the stream's only applier, for the session. Raises AlreadyRunningError."""
    cursor = psycopg.Cursor(connection)
    row = cursor.execute(
        "SELECT pg_try_advisory_lock(hashtextextended('strangler_cdc ' || %s, 0))", [stream]
    ).fetchone()
    if row is None or not row[0]:
        raise AlreadyRunningError(
            f"stream {stream} is already being applied by another process (it holds the advisory lock in "
            "the target); "
            f"stop that one first"
        )


def may_be_replica(connection: psycopg.Connection[Any]) -> bool:
    """Whether the role may switch off triggers and foreign keys for its session, as PostgreSQL's own
    replication does. `connection` stays as it was.
    """
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _waits_for_standbys(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT current_setting('synchronous_standby_names') <> ''").fetchone()
    return row is not None and bool(row[0])
