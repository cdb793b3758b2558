"""Database sessions with the settings on which equal text depends.

The text of a date, an interval or a float depends on session settings. Every session of the change stream,
on both sides and in the log reader, uses the same ones, so that a value has one text.
"""

from typing import Any

import psycopg

SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "search_path": "public",
    "client_encoding": "UTF8",
}

# A peer that vanished without a word is noticed within half a minute.
_KEEPALIVES: dict[str, Any] = {
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
        **_KEEPALIVES,
    )
