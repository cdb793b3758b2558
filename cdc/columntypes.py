"""Source tables as Debezium's decoder and our encoder need them: the relation, what each column is made of below its
domains, and for schemas its default and labels.
"""

from collections.abc import Mapping
from typing import Any

import psycopg

from cdc.changes import TableName
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType
from cdc.encode.debezium_schemas import SchemaColumn
from cdc.tableshape import read_shape

_TYPES = """
WITH RECURSIVE made AS (
    SELECT a.attname, a.attnum, a.atttypid AS type, a.atttypmod AS modifier
    FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT made.attname, made.attnum, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE made.modifier END
    FROM made JOIN pg_type t ON t.oid = made.type AND t.typtype = 'd'
)
SELECT made.attname, t.oid::bigint, made.modifier, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END::bigint
FROM made JOIN pg_type t ON t.oid = made.type AND t.typtype <> 'd'
"""


def read_tables(
    connection: psycopg.Connection[Any], tables: Mapping[TableName, frozenset[str]]
) -> dict[TableName, Table]:
    """Those of `tables` that the database of `connection` has. Of each: the columns that its mapping ignores."""
    found: dict[TableName, Table] = {}
    for name, ignored in tables.items():
        shape = read_shape(connection, name)
        if shape is None:
            continue
        rows = psycopg.Cursor(connection).execute(_TYPES, [name.sql]).fetchall()
        types = {column: ColumnType(oid, modifier, element) for column, oid, modifier, element in rows}
        relation = shape.relation()
        found[name] = Table(relation, tuple(types[column.name] for column in relation.columns), ignored)
    return found


_SCHEMAS = """
SELECT a.attname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), t.typtype = 'd',
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""


def read_schema_columns(
    connection: psycopg.Connection[Any], tables: Mapping[TableName, Table]
) -> dict[TableName, tuple[SchemaColumn, ...]]:
    """What the schemas of `tables` say of their columns. The session has to be of TimeZone=UTC: defaults are text."""
    found: dict[TableName, tuple[SchemaColumn, ...]] = {}
    for name, table in tables.items():
        rows = psycopg.Cursor(connection).execute(_SCHEMAS, [name.sql]).fetchall()
        said = {column: rest for column, *rest in rows}
        columns = []
        for column, type_ in zip(table.relation.columns, table.types, strict=True):
            not_null, default, domain, labels = said[column.name]
            columns.append(SchemaColumn(column.name, type_, not_null, default, tuple(labels), domain))
        found[name] = tuple(columns)
    return found
