"""Ask both databases, before anything moves, whether a mapping will work there. Changes nothing.

`check` gathers facts and lets `findings` judge them; expressions are judged by PostgreSQL itself (`probe`),
and real rows of the source are sent through mapping and inverse and must come back as they were.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from cdc.changes import quote
from cdc.findings import (
    Finding,
    ServerFacts,
    Severity,
    judge_large_values,
    judge_servers,
    judge_source,
    judge_target,
    judge_triggers,
)
from cdc.mapping import Mapping, TableMapping
from cdc.probe import probe
from cdc.sessions import connect
from cdc.sinks.postgres import may_be_replica
from cdc.tableshape import FIRST_USER_TYPE, TableShape, read_shape

_SAMPLE = 1_000  # rows a table


def check(mapping: Mapping, source_dsn: str, target_dsn: str) -> list[Finding]:
    """Everything that would go wrong, and everything that could not be checked; empty when all is well.

    Raises nothing for a database that cannot be reached: that is a finding of severity UNKNOWN.
    """
    with ExitStack() as stack:
        connections: dict[str, psycopg.Connection[Any]] = {}
        findings: list[Finding] = []
        for side, dsn in (("source", source_dsn), ("target", target_dsn)):
            try:
                connections[side] = stack.enter_context(connect(dsn, name="strangler_cdc preflight"))
            except psycopg.OperationalError as error:
                reason = str(error).strip().splitlines()[-1]
                message = f"the {side} database cannot be reached, nothing was checked there: {reason}"
                findings.append(
                    Finding(Severity.UNKNOWN, (), message, "start it, or correct its address and password")
                )
        source, target = connections.get("source"), connections.get("target")
        if source is not None and target is not None:
            findings += judge_servers(_server(source), _server(target))
        replica = target is not None and may_be_replica(target)
        for table in mapping.tables:
            findings += _check_table(table, source, target, replica=replica)
    return findings


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
        yield Finding(
            Severity.UNKNOWN,
            (*table.path, "columns"),
            f"the expressions could not be tried in the target: {error.diag.message_primary}",
            "prepare grants TEMPORARY to the stream's role; check again then",
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
        yield Finding(Severity.ERROR, refused.column.path, f"{refused.column.sql}: {refused.reason}", remedy)
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
    try:
        found = source.execute(query.encode()).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        yield Finding(
            Severity.UNKNOWN,
            path,
            f"rows of {table.source} could not be sent through the mapping and back: "
            f"{error.diag.message_primary}",
            "prepare grants SELECT to the stream's role; check again then",
        )
        return
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        yield Finding(
            Severity.ERROR,
            path,
            f"a row of {table.source} cannot go through the mapping and back: "
            f"{error.diag.message_primary or error}",
            "correct the expression or its inverse",
        )
        return
    if found is None:
        return
    key_values, before, after = found
    named = ", ".join(f"{part.source}={value}" for part, value in zip(table.key, key_values, strict=True))
    for part, was, became in zip(restored, before, after, strict=True):
        if was != became:
            yield Finding(
                Severity.ERROR,
                part.path,
                f"{table.source} row {named}: {part.name} is {was!r}, the inverse {part.sql} gives back "
                f"{became!r}",
                "correct the expression or its inverse, so that the source can be restored",
            )


def _server(connection: psycopg.Connection[Any]) -> ServerFacts:
    row = connection.execute(
        """
        SELECT current_setting('wal_level'),
               current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
               current_setting('max_wal_senders')::int
                   - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'),
               (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
               current_setting('server_encoding'),
               (SELECT datcollate FROM pg_database WHERE datname = current_database()),
               (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8
                FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid())
        """
    ).fetchone()
    assert row is not None
    return ServerFacts(*row)
