"""How the rows of one version of a source table are written to the target, and what to say when they cannot be.

A plan is made from three things: the mapping, the source table as the log describes it, the target table as it
is. A source table that changes its definition gets another plan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import psycopg

from cdc import statements
from cdc.changes import UNCHANGED, Key, Lsn, Relation, Row, TableName, Transaction
from cdc.coalesce import Step, TableWork
from cdc.mapping import Mapping, TableMapping
from cdc.probe import probe
from cdc.seams import StreamError
from cdc.statements import Carrier, MissingValueError
from cdc.tableshape import read_shape

_REPAIR = "repair the target or the mapping, then start the stream again: it resumes at this transaction"


class ApplyError(StreamError):
    """A change cannot be written. Nothing of its transaction was; the stream can be resumed at `position`."""

    def __init__(
        self,
        reason: str,
        *,
        remedy: str,
        table: TableName | None = None,
        key: str = "",
        column: str = "",
        position: Lsn | None = None,
    ) -> None:
        self.reason = reason
        self.remedy = remedy
        self.table = table
        self.key = key
        self.column = column
        self.position = position
        place = [
            f"table {table}" if table else "",
            f"key {key}" if key else "",
            f"column {column}" if column else "",
        ]
        place.append(f"transaction at {position}" if position is not None else "")
        super().__init__(f"{', '.join(part for part in place if part)}: {reason}; {remedy}")


class RowMissingError(Exception):
    """Rows to be updated in part are not in the target."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} row(s) that an update refers to are missing in the target: somebody deleted them there"
        )


def passes(error: Exception) -> bool:
    """Whether trying again later helps, without anybody's doing: connections, restarts, locks, full discs.

    A row that the target cannot hold (class 54, such as one too large for an index) is none of these, though
    the driver counts it among them.
    """
    return isinstance(error, psycopg.OperationalError) and not (error.sqlstate or "").startswith("54")


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows of one version of a source table are written."""

    table: TableMapping
    relation: Relation
    used: tuple[str, ...]
    pick: Callable[[Row], Row]
    staged: Carrier
    inline: Carrier
    types: dict[str, str]
    reads: dict[str, frozenset[str]]

    def picked(self, rows: list[Row]) -> list[Row]:
        """A new list: of each row the columns in use."""
        pick = self.pick
        return list(rows) if pick is _all_of else [pick(row) for row in rows]

    def missing(self, row: Row) -> frozenset[str]:
        """Source columns in use whose values the log left out."""
        return frozenset(
            name for name, value in zip(self.used, self.pick(row), strict=True) if value is UNCHANGED
        )


def make_plan(
    connection: psycopg.Connection[Any],
    table: TableMapping,
    relation: Relation,
    *,
    position: Lsn,
    number: int,
) -> Plan:
    """The plan for rows of `relation`; creates the staged tables number `number`. Raises ApplyError, placed at
    `position`, when such rows cannot be mapped.
    """
    shape = read_shape(connection, table.target)
    if shape is None:
        raise ApplyError(
            f"the target has no table {table.target}",
            table=table.source,
            position=position,
            remedy="create it, then start the stream again",
        )
    types = {column.name: column.type for column in shape.columns}
    found = probe(connection, table, relation, types)
    for column in table.columns:
        reason = next((refused.reason for refused in found.refused if refused.column == column), "")
        if column.name not in types:
            reason = f"target table {table.target} has no such column"
        if reason:
            raise ApplyError(
                f"{column.sql}: {reason}",
                table=table.source,
                column=column.name,
                position=position,
                remedy="change the mapping or the table, then start the stream again",
            )
    used_names = statements.source_columns_used(found.reads, table)
    names = relation.names()
    used = tuple(name for name in names if name in used_names)
    columns = tuple((name, found.types[name]) for name in used)
    staged = statements.staged_carrier(columns, number)
    with connection.transaction():
        for statement in statements.create_staged(table, staged):
            connection.execute(statement.encode())
    return Plan(
        table=table,
        relation=relation,
        used=used,
        pick=_picker(tuple(names.index(name) for name in used), len(names)),
        staged=staged,
        inline=statements.inline_carrier(table, columns),
        types=types,
        reads=dict(found.reads),
    )


def explain(error: Exception, *, step: Step, plan: Plan, transaction: Transaction) -> ApplyError:
    """The error of a step of one change, as a person can use it."""
    work = step[0]
    named = named_key(step, plan)
    remedy = _REPAIR
    column = ""
    reason = str(error)
    if isinstance(error, psycopg.Error):
        reason = " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        column = error.diag.column_name or ""
    elif isinstance(error, MissingValueError):
        column = error.column
        remedy = (
            f"the log of this change cannot be completed any more: carry {error.source!r} into the target, or "
            f"run ALTER TABLE {plan.table.source.sql} REPLICA IDENTITY FULL on the source; then tear the "
            "stream down and prepare it again"
        )
    return ApplyError(
        reason or str(error),
        table=work.relation.table,
        key=named,
        column=column,
        position=transaction.position,
        remedy=remedy,
    )


def named_key(step: Step, plan: Plan) -> str:
    """The key of a step of one change, for people; "" when it has none (TRUNCATE)."""
    work = step[0]
    if work.gone:
        key = work.gone[0]
    elif work.holes:
        key = work.holes[0][0]
    elif work.fresh:
        names = work.relation.names()
        key = tuple(
            value if isinstance(value := work.fresh[0][names.index(part.source)], bytes) else b""
            for part in plan.table.key
        )
    else:
        key = ()
    return ", ".join(
        f"{part.source}={value.decode(errors='replace')}"
        for part, value in zip(plan.table.key, key, strict=False)
    )


def explain_deferred(error: psycopg.Error, mapping: Mapping, *, position: Lsn, key: str = "") -> ApplyError:
    """The error of a constraint that is checked when the transaction ends; it names the target's table itself."""
    diag = error.diag
    reason = " ".join(part for part in (diag.message_primary, diag.message_detail) if part) or str(error)
    where = (diag.schema_name, diag.table_name)
    table = next(
        (each.source for each in mapping.tables if (each.target.schema, each.target.name) == where), None
    )
    named = f" (deferred constraint {diag.constraint_name} of the target)" if diag.constraint_name else ""
    return ApplyError(reason + named, table=table, key=key, position=position, remedy=_REPAIR)


def _picker(places: tuple[int, ...], width: int) -> Callable[[Row], Row]:
    if places == tuple(range(width)):
        return _all_of
    if len(places) == 1:
        only = places[0]
        return lambda row: (row[only],)
    return itemgetter(*places)


def _all_of(row: Row) -> Row:
    return row


def by_missing(plan: Plan, work: TableWork) -> dict[tuple[frozenset[str], bool], list[tuple[Key, Row]]]:
    """The rows with holes, by the columns that are missing and whether their key changes."""
    groups: dict[tuple[frozenset[str], bool], list[tuple[Key, Row]]] = {}
    for key, row in work.holes:
        groups.setdefault((plan.missing(row), work.moved), []).append((key, row))
    return groups
