"""Write a step of few rows: each travels as the parameters of a prepared statement."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from typing import Any

import psycopg

from cdc import statements
from cdc.changes import UNCHANGED, Key, Relation, Row, TableName, Value
from cdc.coalesce import Step
from cdc.sinks.plans import Plan, RowMissingError, by_missing


def write_inline(
    connection: psycopg.Connection[Any],
    step: Step,
    plans: MappingOf[Relation, Plan],
    *,
    order: Callable[[TableName], int],
) -> None:
    """Do what `step` says. `order`: place of a table, parents before children. Raises psycopg.Error, RowMissingError,
    MissingValueError.
    """
    # delete upward, write downward
    works = sorted(step, key=lambda work: order(work.relation.table))
    for work in reversed(works):
        plan = plans[work.relation]
        if work.wipe:
            connection.execute(statements.wipe(plan.table).encode())
        if work.gone:
            _each(connection, statements.delete(plan.table, plan.inline, plan.types), work.gone)
    for work in works:
        plan = plans[work.relation]
        fresh = [plan.pick(row) for row in work.fresh]
        for (missing, moves), rows in by_missing(plan, work).items():
            if missing or moves:
                _patch(connection, plan, rows, missing=missing, moves=moves)
            else:
                fresh += [plan.pick(row) for _, row in rows]
        if fresh:
            _each(connection, statements.upsert(plan.table, plan.inline), fresh)


def _each(connection: psycopg.Connection[Any], statement: str, rows: Sequence[Sequence[Value]]) -> None:
    for row in rows:
        connection.execute(statement.encode(), row)


def _patch(
    connection: psycopg.Connection[Any],
    plan: Plan,
    rows: list[tuple[Key, Row]],
    *,
    missing: frozenset[str],
    moves: bool,
) -> None:
    statement = statements.patch(
        plan.table, plan.inline, plan.types, plan.reads, missing=missing, moves=moves
    )
    if statement is None:
        return
    changed = 0
    for key, row in rows:
        values = [None if value is UNCHANGED else value for value in plan.pick(row)]
        found = connection.execute(f"{statement} RETURNING 1".encode(), [*key, *values])
        changed += len(found.fetchall())
    if changed != len(rows):
        raise RowMissingError(len(rows) - changed)
