"""Database sessions with the settings on which equal text and a safe position depend.

The text of a date, an interval or a float depends on session settings. Every session of the change stream,
on both sides and in the log reader, uses the same ones, so that a value has one text. What a role or
database prefers for short requests must not cut a long copy off. Commits are on disk when they return, save the
applier's, which asks for that later (`cdc.sinks.postgres`).
"""

from typing import Any

import psycopg
from psycopg import pq

SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "search_path": "public",
    "client_encoding": "UTF8",
    "lc_monetary": "C",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "synchronous_commit": "on",
    # the server too lets go of a peer that vanished, and with it of locks, snapshots and temporary slots
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

# A peer that vanished without a word is noticed within half a minute.
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def options(**more: str) -> str:
    """The `options` connection parameter that sets them, and `more`."""
    settings = {**SETTINGS, **more}
    return " ".join(f"-c {name}=" + value.replace(" ", "\\ ") for name, value in settings.items())


def connect(dsn: str, *, name: str, autocommit: bool = True, **more: str) -> psycopg.Connection[Any]:
    """A session on `dsn`, called `name` in pg_stat_activity. Raises psycopg.OperationalError."""
    return psycopg.connect(
        dsn,
        autocommit=autocommit,
        application_name=name,
        options=options(**more),
        connect_timeout=10,
        **KEEPALIVES,
    )


def connect_for_replication(dsn: str, *, name: str) -> psycopg.Connection[Any]:
    """A session that also understands the commands of the streaming replication protocol, for the database of `dsn`."""
    return psycopg.connect(
        dsn,
        autocommit=True,
        replication="database",
        application_name=name,
        options=options(),
        connect_timeout=10,
        **KEEPALIVES,
    )


def failure(result: pq.abc.PGresult) -> psycopg.Error:
    """The exception for a result that says an error. One without SQLSTATE is libpq's own: the connection is lost,
    which passes, and psycopg by itself would call a DatabaseError, which does not.
    """
    error = psycopg.errors.error_from_result(result)
    return error if error.sqlstate else psycopg.OperationalError(str(error))
