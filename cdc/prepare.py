"""Make what a stream needs on both sides, and take it away again. Every step is safe to repeat.

On the source, as the owner of the tables: the publication and SELECT for the stream's role. On the target,
as the owner of the tables: the schema `strangler_cdc` and the right to write the mapped tables. The slot is
not made here: it belongs to the snapshot.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from typing import Any

import psycopg
from psycopg import sql

from cdc import schema
from cdc.changes import Identity, TableName
from cdc.mapping import Mapping
from cdc.sessions import connect
from cdc.sources.slot import drop_slot
from cdc.tableshape import TableShape, read_shape

_CARRIES_ALL = "insert, update, delete, truncate"


class PrepareError(Exception):
    """One side is not fit for the stream; nothing was changed on that side."""


def prepare(
    mapping: Mapping, *, source_owner_dsn: str, target_owner_dsn: str, cdc_role: str, publication: str
) -> None:
    """Create publication, grants and the schema `strangler_cdc`, or bring them up to date.

    Raises PrepareError, psycopg.Error (LockNotAvailable when a table stays locked for five seconds).
    """
    with connect(source_owner_dsn, name="strangler_cdc prepare", lock_timeout="5s") as source:
        _prepare_source(source, mapping, cdc_role, publication)
    with connect(target_owner_dsn, name="strangler_cdc prepare", lock_timeout="5s") as target:
        _prepare_target(target, mapping, cdc_role)


def teardown(
    mapping: Mapping,
    *,
    slot: str,
    publication: str,
    source_dsn: str,
    source_owner_dsn: str,
    target_owner_dsn: str,
    empty_target: bool = False,
) -> None:
    """Drop slot and publication, forget the stream's position and status; `empty_target` also deletes the
    rows of the mapped target tables. The schema goes when no other stream uses it.

    Raises psycopg.errors.ObjectInUse while the stream still runs.
    """
    with connect(source_dsn, name="strangler_cdc teardown") as source:
        drop_slot(source, slot)
    with connect(source_owner_dsn, name="strangler_cdc teardown", lock_timeout="5s") as source:
        source.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
    with (
        connect(target_owner_dsn, name="strangler_cdc teardown", lock_timeout="5s") as target,
        target.transaction(),
    ):
        if empty_target:
            for table in reversed(mapping.tables):
                target.execute(f"DELETE FROM {table.target.sql}".encode())
        if schema.exists(target):
            _forget(target, slot)


def _forget(target: psycopg.Connection[Any], slot: str) -> None:
    absent = schema.missing(target)
    for table in schema.TABLES:
        if table in absent:
            continue
        target.execute(
            sql.SQL("DELETE FROM strangler_cdc.{} WHERE stream = %s OR starts_with(stream, %s)").format(
                sql.Identifier(table)
            ),
            [slot, f"{slot}/"],  # its partitions
        )
    row = target.execute(
        "SELECT NOT EXISTS (SELECT FROM strangler_cdc.position)"
        " AND pg_has_role(current_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'strangler_cdc'"
    ).fetchone()
    if row and row[0]:
        target.execute("DROP SCHEMA strangler_cdc CASCADE")


def _prepare_source(
    source: psycopg.Connection[Any], mapping: Mapping, cdc_role: str, publication: str
) -> None:
    for table in mapping.tables:
        shape = read_shape(source, table.source)
        if shape is None:
            raise PrepareError(f"the source has no table {table.source}; correct the mapping")
        _check_identity(shape, tuple(part.source for part in table.key))
    names = [table.source for table in mapping.tables]
    tables = sql.SQL(", ").join(_identifier(name) for name in names)
    role = sql.Identifier(cdc_role)
    name = sql.Identifier(publication)
    with source.transaction():
        found = source.execute(
            "SELECT puballtables FROM pg_publication WHERE pubname = %s", [publication]
        ).fetchone()
        if found is None:
            source.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, tables))
        elif found[0]:
            raise PrepareError(
                f"publication {publication} is FOR ALL TABLES and not ours; choose another name"
            )
        else:
            gaps = publication_gaps(source, publication)
            if gaps or _published(source, publication) != set(names):
                source.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables))
            if gaps:
                source.execute(
                    sql.SQL("ALTER PUBLICATION {} SET (publish = {})").format(name, sql.Literal(_CARRIES_ALL))
                )
        for namespace in sorted({each.schema for each in names}):
            source.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(namespace), role))
        source.execute(sql.SQL("GRANT SELECT ON TABLE {} TO {}").format(tables, role))


def publication_gaps(source: psycopg.Connection[Any], publication: str) -> str:
    """What `publication` does not carry of its tables: operations, rows or columns; empty when nothing."""
    row = source.execute(
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, ARRAY("
        "  SELECT r.prrelid::regclass::text FROM pg_publication_rel r WHERE r.prpubid = p.oid"
        # row filters and column lists exist since PostgreSQL 15
        "  AND (to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL))"
        " FROM pg_publication p WHERE pubname = %s",
        [publication],
    ).fetchone()
    if row is None:
        return ""
    *carried, filtered = row
    gaps = [each for each, there in zip(_CARRIES_ALL.split(", "), carried, strict=True) if not there]
    return ", ".join(gaps + [f"rows or columns of {table}" for table in filtered])


def _published(source: psycopg.Connection[Any], publication: str) -> set[TableName]:
    rows = source.execute(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [publication]
    ).fetchall()
    return {TableName(namespace, name) for namespace, name in rows}


def _check_identity(shape: TableShape, key: tuple[str, ...]) -> None:
    # Publishing a table that has no identity makes the owner's own UPDATE and DELETE fail.
    if shape.identity == Identity.NOTHING or not shape.identity_columns:
        raise PrepareError(
            f"source table {shape.table} has no replica identity: publishing it would make its updates and "
            "deletes fail; "
            f"give it a primary key, or run ALTER TABLE {shape.table.sql} REPLICA IDENTITY FULL"
        )
    missing = [name for name in key if name not in shape.identity_columns]
    if missing:
        raise PrepareError(
            f"the mapping identifies rows of {shape.table} by {', '.join(key)}, but the log names rows by "
            f"{', '.join(shape.identity_columns)}; use these as the key"
        )


def _prepare_target(target: psycopg.Connection[Any], mapping: Mapping, cdc_role: str) -> None:
    for table in mapping.tables:
        if read_shape(target, table.target) is None:
            raise PrepareError(
                f"the target has no table {table.target}; run the service's migrations, or correct the "
                "mapping"
            )
    role = sql.Identifier(cdc_role)
    names = [table.target for table in mapping.tables]
    with target.transaction():
        row = target.execute(
            "SELECT to_regnamespace('strangler_cdc') IS NULL OR has_schema_privilege('strangler_cdc', "
            "'CREATE'),"
            " has_database_privilege(%s, current_database(), 'TEMPORARY')",
            [cdc_role],
        ).fetchone()
        assert row is not None
        ours, may_stage = row
        if ours:  # else the stream's role owns the schema and makes its tables itself
            schema.create(target, grant_to=cdc_role)
        if not may_stage:
            _grant_temporary(target, role)
        for namespace in sorted({each.schema for each in names}):
            target.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(namespace), role))
        target.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {} TO {}").format(
                sql.SQL(", ").join(_identifier(name) for name in names), role
            )
        )


def _grant_temporary(target: psycopg.Connection[Any], role: sql.Identifier) -> None:
    database = target.info.dbname
    try:
        with target.transaction():
            target.execute(
                sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(database), role)
            )
    except psycopg.errors.InsufficientPrivilege as error:
        raise PrepareError(
            f"the stream's role may not create temporary tables in database {database}; as the database's "
            "owner run "
            f"GRANT TEMPORARY ON DATABASE {database} TO it"
        ) from error


def _identifier(name: TableName) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)
