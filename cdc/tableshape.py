"""What a table looks like in a real database: columns, types, keys. Reads PostgreSQL's catalogue, writes
nothing.

Used on both sides: by `preflight` to find faults before they happen, by the sink and `verify` to know types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.changes import Identity, Relation, RelationColumn, TableName
from cdc.decode.pgoutput import IDENTITIES

FIRST_USER_TYPE = 16384
"""Type OIDs below this are built in and the same in every server."""


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column. `type` is written as SQL, `generated` and `has_default` as the table declares them.

    `type_name` is (schema, name) of a type that is not built in. `hashable`: `hash_record_extended` takes it.
    """

    name: str
    type: str
    type_oid: int
    type_modifier: int
    type_name: tuple[str, str] | None
    not_null: bool
    has_default: bool
    generated: bool
    identity: str
    hashable: bool
    large: bool


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that somebody made. `enabled` is pg_trigger.tgenabled: O, A (always), R (replica), D."""

    name: str
    enabled: str


@dataclass(frozen=True, slots=True)
class TableShape:
    """One table. `kind` is pg_class.relkind, or `inherited` when other tables inherit from it;
    `identity_columns` are those the log names a row by.
    """

    table: TableName
    kind: str
    columns: tuple[ColumnShape, ...]
    unique_keys: tuple[tuple[str, ...], ...]
    identity: Identity
    identity_columns: tuple[str, ...]
    owner: str
    triggers: tuple[Trigger, ...] = ()

    def column(self, name: str) -> ColumnShape | None:
        """The column called `name`, None when there is none."""
        return next((column for column in self.columns if column.name == name), None)

    def relation(self) -> Relation:
        """The table as the log will describe it (generated columns are not in the log)."""
        return Relation(
            self.table,
            tuple(
                RelationColumn(
                    column.name,
                    column.type_oid,
                    column.type_modifier,
                    column.type_name,
                    key=column.name in self.identity_columns,
                )
                for column in self.columns
                if not column.generated
            ),
            self.identity,
        )


_TABLE = """
SELECT c.oid,
       CASE WHEN c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
            THEN 'inherited' ELSE c.relkind::text END, c.relreplident::text,
       pg_get_userbyid(c.relowner)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint, a.atttypmod,
       tn.nspname, t.typname, a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
       a.attidentity::text,
       EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'hash'
               WHERE o.opcdefault AND o.opcintype IN (
                   CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END,
                   CASE WHEN t.typname = 'varchar' THEN 'text'::regtype
                        WHEN t.typtype = 'e' THEN 'anyenum'::regtype END)),
       a.attstorage <> 'p'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_KEYS = """
SELECT i.indisprimary, i.indisreplident,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place)
FROM pg_index i
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND i.indimmediate
"""


_TRIGGERS = """
SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal ORDER BY tgname
"""


def read_shape(connection: psycopg.Connection[Any], table: TableName) -> TableShape | None:
    """The shape of `table`, None when there is no such table (or the role may not know of its schema)."""
    # not connection.execute: the applier's session speaks $1, not %s
    cursor = psycopg.Cursor(connection)
    found = cursor.execute(_TABLE, [table.schema, table.name]).fetchone()
    if found is None:
        return None
    oid, kind, identity_code, owner = found
    columns = tuple(
        ColumnShape(
            name=name,
            type=type_sql,
            type_oid=type_oid,
            type_modifier=modifier,
            type_name=None if type_oid < FIRST_USER_TYPE else (type_schema, type_name),
            not_null=not_null,
            has_default=has_default,
            generated=generated,
            identity=identity,
            hashable=hashable,
            large=large,
        )
        for (
            name, type_sql, type_oid, modifier, type_schema, type_name, not_null, has_default, generated,
            identity, hashable, large,
        ) in cursor.execute(_COLUMNS, [oid]).fetchall()
    )  # fmt: skip
    keys = cursor.execute(_KEYS, [oid]).fetchall()
    primary = next((tuple(names) for is_primary, _, names in keys if is_primary), ())
    identity = IDENTITIES[ord(identity_code)]
    match identity:
        case Identity.DEFAULT:
            identity_columns = primary
        case Identity.INDEX:
            identity_columns = next((tuple(names) for _, chosen, names in keys if chosen), ())
        case Identity.FULL:
            identity_columns = tuple(column.name for column in columns)
        case Identity.NOTHING:
            identity_columns = ()
    return TableShape(
        table=table,
        kind=kind,
        columns=columns,
        unique_keys=tuple(tuple(names) for _, _, names in keys),
        identity=identity,
        identity_columns=identity_columns,
        owner=owner,
        triggers=tuple(
            Trigger(name, enabled) for name, enabled in cursor.execute(_TRIGGERS, [oid]).fetchall()
        ),
    )


def staged_types(connection: psycopg.Connection[Any], columns: Sequence[RelationColumn]) -> dict[str, str]:
    """The type, as SQL for the database of `connection`, in which the text of each source column is held.

    A type that exists only in the source is held as text.
    """
    rows = psycopg.Cursor(connection).execute(
        "SELECT format_type(oid::oid, modifier) FROM unnest(%s::bigint[], %s::int[]) WITH ORDINALITY"
        " AS asked (oid, modifier, place) ORDER BY place",
        [[column.type_oid for column in columns], [column.type_modifier for column in columns]],
    )
    built_in = {column.name: str(name) for column, (name,) in zip(columns, rows, strict=True)}
    return {
        column.name: built_in[column.name]
        if column.type_name is None and column.type_oid < FIRST_USER_TYPE
        else _own_type(connection, column)
        for column in columns
    }


def _own_type(connection: psycopg.Connection[Any], column: RelationColumn) -> str:
    if column.type_name is None:
        return "text"
    row = (
        psycopg.Cursor(connection)
        .execute("SELECT to_regtype(quote_ident(%s) || '.' || quote_ident(%s))::text", column.type_name)
        .fetchone()
    )
    return str(row[0]) if row and row[0] else "text"
