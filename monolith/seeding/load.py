"""Writes rows with COPY, with their ids, and sets the sequences behind them."""

from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from django.db import connection, models
from psycopg import sql
from psycopg.types.json import Jsonb


def table_of(model: type[models.Model]) -> str:
    """Name of the model's table."""
    return model._meta.db_table  # noqa: SLF001  (Django's documented door to a model)


def copy(model: type[models.Model], row_type: type, rows: Iterable[Any], **constants: Any) -> int:
    """COPY `rows` into the model's table; the number of rows written.

    Columns are the fields of the dataclass `row_type` that the table has, then `constants`, the same in every
    row.
    """
    known = {field.column for field in model._meta.concrete_fields}  # noqa: SLF001  (Django's documented door to a model)
    own = [field.name for field in fields(row_type) if field.name in known]
    values = attrgetter(*own)
    table = sql.Identifier(table_of(model))
    names = sql.SQL(", ").join(map(sql.Identifier, [*own, *constants]))
    fixed = tuple(constants.values())
    count = 0
    with connection.cursor() as cursor:
        # the driver's own cursor: Django's wrapper has no COPY
        with cursor.cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)) as out:
            for row in rows:
                out.write_row(
                    [Jsonb(value) if isinstance(value, dict) else value for value in values(row)] + [*fixed]
                )
                count += 1
        cursor.execute(
            sql.SQL(
                "SELECT setval(pg_get_serial_sequence(%s, 'id'), coalesce(max(id), 1), max(id) IS NOT NULL)"
                " FROM {}"
            ).format(table),
            [table_of(model)],
        )
    return count


def truncate(tables: Iterable[type[models.Model]]) -> None:
    """Empty the tables and all that refer to them; their sequences start anew."""
    names = sql.SQL(", ").join(sql.Identifier(table_of(model)) for model in tables)
    with connection.cursor() as cursor:
        # foreign keys that wait for their check until the commit would forbid it
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        cursor.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(names))


def analyze() -> None:
    """Let the planner know the new tables; without it the first queries would be planned for empty ones."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
