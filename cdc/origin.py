"""Ask a source who it is, over the replication protocol, and remember it in the target.

IDENTIFY_SYSTEM and TIMELINE_HISTORY need no right but REPLICATION. Source: PostgreSQL manual, "Streaming Replication
Protocol". What the answers mean for a stream is decided in `cdc.lineage`.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from cdc.changes import Lsn
from cdc.lineage import Fork, Origin, Seen, Topic, judge, judge_topic, parse_history
from cdc.seams import BEGIN_ANEW, StreamError
from cdc.sessions import connect_for_replication, failure


def identify(connection: psycopg.Connection[Any]) -> Seen:
    """The source that a replication connection leads to. Raises psycopg.Error."""
    row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    system, timeline, end, _ = row
    row = connection.execute(
        "SELECT oid::bigint, pg_is_in_recovery() FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    database, replays = row
    return Seen(Origin(str(system), int(timeline), int(database)), Lsn.parse(end), bool(replays))


def timeline_history(connection: psycopg.Connection[Any], timeline: int) -> tuple[Fork, ...]:
    """The forks that led to `timeline`; none for the first. Raises psycopg.Error, ValueError."""
    if timeline == 1:
        return ()
    # its second column is called bytea or text and bears the file's bytes as they are: not to be decoded
    result = connection.pgconn.exec_(f"TIMELINE_HISTORY {timeline}".encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise failure(result)
    content = result.get_value(0, 1)
    assert content is not None
    return parse_history(content.decode(errors="replace"))


def check_origin(dsn: str, *, stream: str, position: Lsn, stored: Origin | None) -> Origin:
    """What the source at `dsn` is now, which has all that the target holds up to `position` of `stored`.

    Raises StreamError when it has not, AwayError when that is not known yet, psycopg.Error.
    """
    with connect_for_replication(dsn, name=f"strangler_cdc look {stream}") as connection:
        seen = identify(connection)
        history: tuple[Fork, ...] = ()
        # only an ancestor can be found in a history
        if stored is not None and seen.origin.system == stored.system:
            try:
                history = timeline_history(connection, seen.origin.timeline)
            except (psycopg.errors.UndefinedFile, ValueError) as error:
                if seen.origin.timeline != stored.timeline:
                    raise StreamError(
                        f"stream {stream}: the source went from timeline {stored.timeline} to "
                        f"{seen.origin.timeline} and its history cannot be read ({str(error).strip()}), so nobody "
                        f"knows whether it has what the target holds up to {position}; {BEGIN_ANEW}"
                    ) from error
    judge(stored, seen, stream=stream, position=position, history=history)
    return seen.origin


def read_origin(connection: psycopg.Connection[Any], stream: str) -> Origin | None:
    """Where the position of `stream` is from. `connection`: the applier's (psycopg.RawCursor)."""
    row = connection.execute(
        "SELECT system, timeline, database::bigint FROM strangler_cdc.origin WHERE stream = $1", [stream]
    ).fetchone()
    return None if row is None else Origin(*row)


def write_origin(connection: psycopg.Connection[Any], stream: str, origin: Origin) -> None:
    """Note it. To be committed before, or with, the first position that is from there. Through which topic it will
    come is open again.
    """
    connection.execute(
        "INSERT INTO strangler_cdc.origin (stream, system, timeline, database) VALUES ($1, $2, $3, $4::bigint::oid)"
        " ON CONFLICT (stream) DO UPDATE SET system = excluded.system, timeline = excluded.timeline,"
        " database = excluded.database, topic = NULL, topic_id = NULL, noted_at = clock_timestamp()",
        [stream, origin.system, origin.timeline, origin.database],
    )


@dataclass(frozen=True, slots=True)
class TopicMemory:
    """The topic of `stream`, beside the origin of its position. `connection`: the applier's (psycopg.RawCursor)."""

    connection: psycopg.Connection[Any]
    stream: str

    def check(self, found: Topic | None, *, position: Lsn) -> None:
        """Go on with `found`, and note it where it is the first. Raises StreamError when changes were in another."""
        row = self.connection.execute(
            "SELECT topic, topic_id FROM strangler_cdc.origin WHERE stream = $1 AND topic IS NOT NULL",
            [self.stream],
        ).fetchone()
        stored = None if row is None else Topic(*row)
        judge_topic(stored, found, stream=self.stream, position=position)
        if found is not None and stored is None:
            self.connection.execute(
                "UPDATE strangler_cdc.origin SET topic = $2, topic_id = $3 WHERE stream = $1",
                [self.stream, found.name, found.id],
            )
