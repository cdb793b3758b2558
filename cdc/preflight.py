"""Ask both databases, before anything moves, whether a mapping will work there. Changes nothing.

`check` gathers facts and lets `doctor.mapped` judge them; expressions are judged by PostgreSQL itself (`probe`),
and real rows of the source are sent through mapping and inverse and must come back as they were.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from cdc.changes import quote
from cdc.doctor.mapped import (
    EXPRESSION_REFUSED,
    NOT_INVERTIBLE,
    judge_large_values,
    judge_source,
    judge_target,
    judge_triggers,
)
from cdc.findings import Finding, Place, Severity, Side
from cdc.mapping import Mapping, TableMapping
from cdc.probe import probe
from cdc.sessions import connect
from cdc.sinks.session import may_be_replica
from cdc.tableshape import FIRST_USER_TYPE, TableShape, read_shape

_SAMPLE = 1_000  # rows a table


def check(mapping: Mapping, source_dsn: str, target_dsn: str) -> list[Finding]:
    """Everything that would go wrong with the mapping, and everything that could not be checked; empty when
    all is well. What else could be in the way, `doctor.examine` finds.

    Raises nothing for a database that cannot be reached: that is a finding of severity UNKNOWN.
    """
    with ExitStack() as stack:
        connections: dict[Side, psycopg.Connection[Any]] = {}
        findings: list[Finding] = []
        for side, dsn in ((Side.SOURCE, source_dsn), (Side.TARGET, target_dsn)):
            try:
                connections[side] = stack.enter_context(connect(dsn, name="strangler_cdc preflight"))
            except psycopg.OperationalError as error:
                reason = str(error).strip().splitlines()[-1]
                message = f"the {side} database cannot be reached, nothing was checked there: {reason}"
                remedy = "start it, or correct its address and password"
                findings.append(Finding(Severity.UNKNOWN, (), message, remedy, place=Place(side)))
        findings += check_mapping(mapping, connections.get(Side.SOURCE), connections.get(Side.TARGET))
        return findings


def check_mapping(
    mapping: Mapping,
    source: psycopg.Connection[Any] | None,
    target: psycopg.Connection[Any] | None,
) -> Iterator[Finding]:
    """As `check`, over open sessions; None for a database out of reach, of which nothing is said then."""
    replica = target is not None and may_be_replica(target)
    for table in mapping.tables:
        yield from _check_table(table, source, target, replica=replica)


def _check_table(
    table: TableMapping,
    source: psycopg.Connection[Any] | None,
    target: psycopg.Connection[Any] | None,
    *,
    replica: bool,
) -> Iterator[Finding]:
    source_shape = read_shape(source, table.source) if source is not None else None
    target_shape = read_shape(target, table.target) if target is not None else None
    if source is not None:
        yield from judge_source(table, source_shape)
    if target is not None:
        yield from judge_target(table, target_shape, source_shape)
    if target_shape is not None:
        yield from judge_triggers(table, target_shape, replica=replica)
    if source is None or target is None or source_shape is None or target_shape is None:
        return
    refused = False
    for finding in _check_expressions(table, source_shape, target, target_shape):
        refused = refused or finding.severity == Severity.ERROR
        yield finding
    if not refused:
        yield from _check_round_trip(table, source, source_shape, target_shape)


def _check_expressions(
    table: TableMapping, source: TableShape, target: psycopg.Connection[Any], shape: TableShape
) -> Iterator[Finding]:
    types = {column.name: column.type for column in shape.columns if not column.generated}
    try:
        found = probe(target, table, source.relation(), types)
    except psycopg.errors.InsufficientPrivilege as error:
        yield EXPRESSION_REFUSED.unknown(
            f"the expressions could not be tried in the target: {error.diag.message_primary}",
            place=Place.of(Side.TARGET, table.target),
            path=(*table.path, "columns"),
            remedy="prepare grants TEMPORARY to the stream's role; check again then",
        )
        return
    for refused in found.refused:
        remedy = "correct the expression"
        if "immutable" in refused.reason:
            remedy = (
                "the same row must always give the same value: avoid what depends on time, time zone or "
                "settings "
                "(write (x AT TIME ZONE 'UTC')::date for x::date)"
            )
        yield EXPRESSION_REFUSED.found(
            f"{refused.column.sql}: {refused.reason}",
            place=Place.of(Side.TARGET, table.target, refused.column.name),
            path=refused.column.path,
            remedy=remedy,
        )
    yield from judge_large_values(table, source, found.reads)


def _check_round_trip(
    table: TableMapping, source: psycopg.Connection[Any], source_shape: TableShape, target_shape: TableShape
) -> Iterator[Finding]:
    """inverse(expression(row)) = row, on real rows."""
    unknown = [each.name for each in target_shape.columns if each.type_oid >= FIRST_USER_TYPE]
    mapped: list[str] = []
    for column in table.columns:
        shape = target_shape.column(column.name)
        cast = f"::{shape.type}" if shape is not None and column.name not in unknown else ""
        mapped.append(f"({column.sql}){cast} AS {quote(column.name)}")
    restored = [part for part in table.restored if source_shape.column(part.name) is not None]
    if not restored:
        return
    row = quote(table.source.name)
    key = ", ".join(f"both_ways.{quote(part.source)}::text" for part in table.key)
    types = {column.name: column.type for column in source_shape.columns}
    backs = ", ".join(f"(({part.sql})::{types[part.name]})::text" for part in restored)
    befores = ", ".join(f"before.{quote(part.name)}::text" for part in restored)
    query = (
        f"SELECT ARRAY[{key}], __before, __after FROM ("
        f"SELECT before.*, ARRAY[{befores}] AS __before, ("
        f"SELECT ARRAY[{backs}] FROM (SELECT {', '.join(mapped)} FROM (SELECT before.*) AS {row}) AS "
        f"{quote(table.target.name)}) AS __after "
        f"FROM (SELECT * FROM {table.source.sql} LIMIT {_SAMPLE}) AS before) AS both_ways "
        f"WHERE __before IS DISTINCT FROM __after LIMIT 1"
    )
    path = (*table.path, "columns")
    place = Place.of(Side.SOURCE, table.source)
    try:
        found = source.execute(query.encode()).fetchone()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled) as error:
        yield NOT_INVERTIBLE.unknown(
            f"rows of {table.source} could not be sent through the mapping and back: "
            f"{error.diag.message_primary}",
            place=place,
            path=path,
            remedy="prepare grants SELECT to the stream's role; check again then",
        )
        return
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        yield NOT_INVERTIBLE.found(
            f"a row of {table.source} cannot go through the mapping and back: "
            f"{error.diag.message_primary or error}",
            place=place,
            path=path,
        )
        return
    if found is None:
        return
    key_values, before, after = found
    named = ", ".join(f"{part.source}={value}" for part, value in zip(table.key, key_values, strict=True))
    for part, was, became in zip(restored, before, after, strict=True):
        if was != became:
            yield NOT_INVERTIBLE.found(
                f"{table.source} row {named}: {part.name} is {was!r}, the inverse {part.sql} gives back "
                f"{became!r}",
                place=Place.of(Side.SOURCE, table.source, part.name),
                path=part.path,
                remedy="correct the expression or its inverse, so that the source can be restored",
            )
