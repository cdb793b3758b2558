"""The schema `strangler_cdc` in the target database: what the stream remembers and how others talk to it.

* `position`: how far a stream has been applied. Written in the transaction that writes the rows, so that it
  is never ahead of them nor behind. `tables` are the source tables that the snapshot copied.
* `origin`: which cluster, timeline and database that position is of, and which topic of Kafka's it came through
  (`cdc.lineage`).
* `status`: how the running process does; a heartbeat. Advice to readers, nothing is decided by it.
* `control`: the verifier's request to hold the stream for a moment, with a lease.
* `parked`: changes that the target refused, and those that wait behind them, in order (`cdc.parked`). Written
  in the transaction that stores the position past them.
* `verification`: how far a comparison of both sides has come, so that a killed one goes on (`cdc.verify_memory`).

A stream is named by its replication slot.
"""

from typing import Any

import psycopg
from psycopg import sql

TABLES = ("position", "status", "control", "origin", "parked", "verification")
_NEEDED = TABLES[:4]  # the others are made when they are asked for

_DDL = """
CREATE TABLE IF NOT EXISTS strangler_cdc.position (
    stream text PRIMARY KEY,
    lsn pg_lsn NOT NULL,
    snapshot_lsn pg_lsn NOT NULL,
    snapshot_rows bigint NOT NULL DEFAULT 0,
    commit_time timestamptz,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    transactions bigint NOT NULL DEFAULT 0,
    changes bigint NOT NULL DEFAULT 0,
    tables text[]
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS strangler_cdc.status (
    stream text PRIMARY KEY,
    heartbeat timestamptz NOT NULL DEFAULT clock_timestamp(),
    state jsonb NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS strangler_cdc.control (
    stream text PRIMARY KEY,
    request uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    held_at pg_lsn,
    upto pg_lsn,
    reached boolean NOT NULL DEFAULT false
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS strangler_cdc.origin (
    stream text PRIMARY KEY,
    system text NOT NULL,
    timeline bigint NOT NULL,
    database oid NOT NULL,
    topic text,
    topic_id uuid,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS strangler_cdc.parked (
    stream text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    keys text[] NOT NULL,
    source_table text NOT NULL,
    position pg_lsn NOT NULL,
    xid bigint NOT NULL,
    commit_time timestamptz NOT NULL,
    operation text NOT NULL,
    relation json NOT NULL,
    before json,
    after json,
    sqlstate text,
    error text,
    error_column text,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, id)
);
CREATE TABLE IF NOT EXISTS strangler_cdc.verification (
    stream text NOT NULL,
    fingerprint text NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state jsonb NOT NULL,
    PRIMARY KEY (stream, fingerprint)
) WITH (fillfactor = 10);
"""


def exists(connection: psycopg.Connection[Any]) -> bool:
    """Whether the tables that every stream needs are there, perhaps made by an earlier version."""
    return _there(connection).issuperset(_NEEDED)


def complete(connection: psycopg.Connection[Any]) -> bool:
    """Whether all tables are there."""
    return _there(connection).issuperset(TABLES)


def missing(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """The tables that are not there."""
    return frozenset(TABLES) - _there(connection)


def _there(connection: psycopg.Connection[Any]) -> frozenset[str]:
    rows = psycopg.Cursor(connection).execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'strangler_cdc' AND c.relname = ANY(%s)",
        [list(TABLES)],
    )
    return frozenset(name for (name,) in rows)


def create(connection: psycopg.Connection[Any], *, grant_to: str | None = None) -> None:
    """Create what is missing; let the role `grant_to` read and write it.

    Raises psycopg.errors.InsufficientPrivilege when the role of `connection` may not create a schema here.
    """
    with connection.transaction():
        # two processes may start at once; IF NOT EXISTS alone does not make that safe
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('strangler_cdc', 0))")
        row = connection.execute("SELECT to_regnamespace('strangler_cdc') IS NULL").fetchone()
        if row and row[0]:
            connection.execute("CREATE SCHEMA strangler_cdc")
        if not complete(connection):
            connection.execute(_DDL)
        # How far a stream has come is what a service tells with its answers (chassis.applied). Whoever may
        # connect to this database may read that, and how the stream does; the rest is the stream's own.
        connection.execute("GRANT USAGE ON SCHEMA strangler_cdc TO PUBLIC")
        connection.execute("GRANT SELECT ON strangler_cdc.position, strangler_cdc.status TO PUBLIC")
        if grant_to is not None:
            role = sql.Identifier(grant_to)
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA strangler_cdc TO {}").format(role))
            for table in TABLES:
                connection.execute(
                    sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON strangler_cdc.{} TO {}").format(
                        sql.Identifier(table), role
                    )
                )
