"""Whether a source can feed a stream at all, looked at whenever a session begins.

A publication can be changed, a mapping can grow. `cdc.doctor` looks at far more, before a stream exists.
"""

from typing import Any

import psycopg

from cdc.changes import TableName, quote
from cdc.mapping import Mapping
from cdc.prepare import publication_gaps
from cdc.seams import BEGIN_ANEW, StreamError


def check_source(source: psycopg.Connection[Any], mapping: Mapping, *, publication: str) -> None:
    """Refuse a source whose log or `publication` would leave changes out. Raises StreamError."""
    row = source.execute(
        "SELECT current_setting('wal_level'), EXISTS (SELECT FROM pg_publication WHERE pubname = %s)",
        [publication],
    ).fetchone()
    assert row is not None
    if row[0] != "logical":
        raise StreamError(
            f"the source runs with wal_level={row[0]}; set wal_level=logical in its configuration and "
            "restart it"
        )
    if not row[1]:
        listed = ", ".join(table.sql for table in mapping.sources())
        raise StreamError(
            f"publication {publication} does not exist on the source; prepare the stream, or run CREATE PUBLICATION "
            f"{quote(publication)} FOR TABLE {listed} as the owner of the tables. If they were written to since it "
            f"was dropped, the log of that time cannot be read: {BEGIN_ANEW}"
        )
    missing = source.execute(
        "SELECT wanted FROM unnest(%s::text[]) wanted WHERE wanted NOT IN"
        " (SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s)",
        [[f"{table.schema}.{table.name}" for table in mapping.sources()], publication],
    ).fetchall()
    if missing:
        raise StreamError(
            f"publication {publication} does not carry {', '.join(name for (name,) in missing)}: "
            "their changes "
            f"would be missed; prepare the stream again"
        )
    if left_out := publication_gaps(source, publication):
        raise StreamError(
            f"publication {publication} leaves out {left_out}: such changes would be missed; "
            "prepare the stream again"
        )


def check_copied(copied: frozenset[TableName] | None, mapping: Mapping) -> None:
    """Refuse a mapping with a table that the snapshot did not copy; None when that is not known. Raises StreamError."""
    missing = [] if copied is None else [table for table in mapping.sources() if table not in copied]
    if missing:
        raise StreamError(
            f"{', '.join(map(str, missing))} was not mapped when the snapshot was taken: rows that were there "
            f"before are not in the target; remove it from the mapping, or {BEGIN_ANEW}"
        )
