"""Ask PostgreSQL what a mapping's expressions read, and whether it accepts them.

A temporary table with the source's columns gets one stored generated column for each target column.
PostgreSQL then refuses what is not one row's immutable expression (subqueries, aggregates, `now()`, whole-
row references), refuses what cannot be assigned to the target column's type, and records in pg_depend which
columns each expression reads. No parser of our own, no guess. Nothing stays: the transaction is rolled
back.
"""

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.changes import Relation, quote
from cdc.mapping import Column, TableMapping
from cdc.tableshape import staged_types


@dataclass(frozen=True, slots=True)
class Refused:
    """PostgreSQL refuses the expression of target column `column`."""

    column: Column
    reason: str


@dataclass(frozen=True, slots=True)
class Probed:
    """`types`: source column → the type it is staged with. `reads`: target column → source columns read."""

    types: MappingOf[str, str]
    reads: MappingOf[str, frozenset[str]]
    refused: tuple[Refused, ...]


class _Undo(Exception):  # noqa: N818  (not an error: it ends the probe's transaction)
    pass


def probe(
    connection: psycopg.Connection[Any],
    table: TableMapping,
    relation: Relation,
    target_types: MappingOf[str, str],
) -> Probed:
    """Try every expression of `table` over the columns of `relation`. `target_types`: column → SQL type.

    `connection` is to the target database (autocommit, or inside a transaction) and needs TEMPORARY there.
    """
    types = staged_types(connection, relation.columns)
    reads: dict[str, frozenset[str]] = {}
    refused: list[Refused] = []
    try:
        with connection.transaction():
            definition = ", ".join(f"{quote(name)} {type_}" for name, type_ in types.items())
            _run(connection, f"CREATE TEMP TABLE {quote(table.source.name)} ({definition})")
            wanted = [
                _Wanted(place, column, target_types[column.name])
                for place, column in enumerate(table.columns)
                if column.name in target_types
            ]
            # each statement writes the table anew, so one by one only to learn which is refused
            if _add(connection, table, wanted) is not None:
                for each in wanted:
                    problem = _add(connection, table, [each])
                    if problem is not None:
                        refused.append(Refused(each.column, problem))
            places = {f"__mapped_{place}": column.name for place, column in enumerate(table.columns)}
            for name, read in _dependencies(connection, table).items():
                reads[places[name]] = read
            raise _Undo  # noqa: TRY301  (the only way to roll psycopg's transaction block back)
    except _Undo:
        pass
    return Probed(types, reads, tuple(refused))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Column number `place` of the mapping, which has the SQL type `type` in the target."""

    place: int
    column: Column
    type: str


def _add(connection: psycopg.Connection[Any], table: TableMapping, wanted: Sequence[_Wanted]) -> str | None:
    if not wanted:
        return None
    columns = ", ".join(
        f"ADD COLUMN {quote(f'__mapped_{each.place}')} {each.type} GENERATED ALWAYS AS ({each.column.sql}) STORED"
        for each in wanted
    )
    try:
        with connection.transaction():
            _run(connection, f"ALTER TABLE pg_temp.{quote(table.source.name)} {columns}")
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return (error.diag.message_primary or str(error)).replace("column generation", "mapping")
    return None


def _dependencies(connection: psycopg.Connection[Any], table: TableMapping) -> dict[str, frozenset[str]]:
    rows = (
        psycopg.Cursor(connection)
        .execute(
            """
        SELECT made.attname,
               coalesce(array_agg(used.attname::text) FILTER (WHERE used.attname IS NOT NULL), '{}')
        FROM pg_attribute made
        LEFT JOIN pg_attrdef def ON def.adrelid = made.attrelid AND def.adnum = made.attnum
        LEFT JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = def.oid
             AND d.refclassid = 'pg_class'::regclass
             AND d.refobjid = made.attrelid AND d.refobjsubid <> made.attnum
        LEFT JOIN pg_attribute used ON used.attrelid = d.refobjid AND used.attnum = d.refobjsubid
             AND used.attnum > 0
        WHERE made.attrelid = to_regclass('pg_temp.' || quote_ident(%s))
          AND made.attnum > 0 AND made.attgenerated = 's'
        GROUP BY made.attname
        """,
            [table.source.name],
        )
        .fetchall()
    )
    return {name: frozenset(used) for name, used in rows}


def _run(connection: psycopg.Connection[Any], text: str) -> None:
    connection.execute(text.encode())
