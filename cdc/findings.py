"""What would go wrong with a mapping on two real databases. Pure: shapes and settings in, findings out.

`preflight` gathers the facts. A finding is not the same as a check that could not run: that is
`Severity.UNKNOWN`.
"""

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from enum import StrEnum

from cdc.changes import Identity
from cdc.mapping import TableMapping
from cdc.tableshape import TableShape
from chassis.yamlfile import KeyPath

_KINDS = {
    "p": "a partitioned table; the log names its partitions, map these",
    "v": "a view; only tables are in the log",
    "m": "a materialized view; only tables are in the log",
    "f": "a foreign table; its changes are in another server's log",
    "inherited": "a table, and others inherit from it; the log names each by itself",
}


class Severity(StrEnum):
    """ERROR: the stream would fail or lose something. WARNING: look at it. UNKNOWN: could not be checked."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `path` is the place in the plan (empty: the databases themselves), for its line."""

    severity: Severity
    path: KeyPath
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.path)
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.severity}: {where + ': ' if where else ''}{self.message}{remedy}"


def _error(path: KeyPath, message: str, remedy: str) -> Finding:
    return Finding(Severity.ERROR, path, message, remedy)


def _warning(path: KeyPath, message: str, remedy: str) -> Finding:
    return Finding(Severity.WARNING, path, message, remedy)


def judge_source(table: TableMapping, shape: TableShape | None) -> Iterator[Finding]:
    """Findings about the source table `table.source`, as it is."""
    if shape is None:
        yield _error(
            table.path, f"source table {table.source} does not exist", "correct its name, or the database"
        )
        return
    if shape.kind != "r":
        reason = _KINDS.get(shape.kind, "not an ordinary table")
        yield _error(table.path, f"source table {table.source} is {reason}", "map ordinary tables")
        return
    key = tuple(part.source for part in table.key)
    yield from _source_identity(table, shape, key)
    accounted = table.source_columns_accounted_for()
    names = {column.name for column in shape.columns}
    for column in shape.columns:
        if column.name not in accounted:
            yield _error(
                (*table.path, "columns"),
                f"source column {table.source}.{column.name} is neither carried (so that it can be "
                "restored) nor "
                f"ignored",
                "map it, or add it under ignore with the reason",
            )
        if column.generated and column.name not in dict(table.ignored):
            yield _error(
                (*table.path, "columns"),
                f"source column {table.source}.{column.name} is a generated column: it is not in the log",
                "ignore it and compute it from the columns it is generated from",
            )
    for name, _ in table.ignored:
        if name not in names:
            yield _warning(
                (*table.path, "ignore", name), f"source has no column {name!r}", "remove the entry"
            )
    for part in table.restored:
        if part.name not in names:
            yield _error(
                part.path, f"source table {table.source} has no column {part.name!r}", "correct the name"
            )


def _source_identity(table: TableMapping, shape: TableShape, key: tuple[str, ...]) -> Iterator[Finding]:
    path = (*table.path, "key")
    if shape.identity == Identity.NOTHING or not shape.identity_columns:
        yield _error(
            path,
            f"source table {table.source} has no replica identity: once published, its updates and deletes "
            "fail",
            f"give it a primary key, or run ALTER TABLE {table.source.sql} REPLICA IDENTITY FULL",
        )
        return
    unknown = [name for name in key if shape.column(name) is None]
    if unknown:
        yield _error(path, f"source table {table.source} has no column {unknown[0]!r}", "correct the key")
        return
    unlogged = [name for name in key if name not in shape.identity_columns]
    if unlogged:
        yield _error(
            path,
            f"the log names rows of {table.source} by {', '.join(shape.identity_columns)}, not by "
            f"{unlogged[0]!r}",
            "use these columns as the key",
        )
    for name in key:
        column = shape.column(name)
        if column is not None and not column.not_null:
            yield _error(
                path,
                f"key column {name!r} may be NULL: such a row could not be found again",
                f"run ALTER TABLE {table.source.sql} ALTER {name} SET NOT NULL, or use other columns as the key",
            )
    if not any(set(unique) == set(key) for unique in shape.unique_keys):
        yield _error(
            path,
            f"no unique index on {table.source} ({', '.join(key)}): the key would not name one row",
            "use the columns of a primary key or a unique index",
        )


def judge_target(
    table: TableMapping, shape: TableShape | None, source: TableShape | None
) -> Iterator[Finding]:
    """Findings about the target table `table.target`, as it is. `source` where it is known."""
    if shape is None:
        yield _error(
            (*table.path, "target"),
            f"target table {table.target} does not exist",
            "run the service's migrations, or correct the name",
        )
        return
    key = {part.target for part in table.key}
    if not any(set(unique) == key for unique in shape.unique_keys):
        yield _error(
            (*table.path, "key"),
            f"target table {table.target} has no unique index on ({', '.join(sorted(key))})",
            "create it (not deferrable, not partial), rows are written by it",
        )
    written = {column.name for column in table.columns}
    for column in table.columns:
        held = shape.column(column.name)
        if held is None:
            yield _error(
                column.path,
                f"target table {table.target} has no column {column.name!r}",
                "correct the name, or add the column",
            )
            continue
        if held.generated:
            yield _error(
                column.path,
                f"target column {column.name!r} is generated by the target",
                "move it from columns to generated",
            )
        origin = source.column(column.copied) if source and column.copied else None
        if origin is not None and held.not_null and not origin.not_null:
            yield _warning(
                column.path,
                f"source column {origin.name!r} may be NULL, target column {column.name!r} may not: such a "
                "row would "
                f"stop the stream",
                "allow NULL in the target, or map coalesce(…) with its inverse",
            )
    for name in table.generated:
        held = shape.column(name)
        if held is None or not (held.generated or held.has_default or not held.not_null):
            reason = "does not exist" if held is None else "is NOT NULL and has no default"
            yield _error(
                (*table.path, "generated"), f"target column {name!r} {reason}", "map it, or correct the name"
            )
    for held in shape.columns:
        if held.name in written or held.name in table.generated or held.generated:
            continue
        if held.not_null and not held.has_default:
            yield _error(
                (*table.path, "columns"),
                f"target column {table.target}.{held.name} is NOT NULL, has no default and is not mapped",
                "map it, or give it a default and list it under generated",
            )
        else:
            yield _warning(
                (*table.path, "columns"),
                f"target column {table.target}.{held.name} is not written by the stream",
                "list it under generated when that is meant",
            )


def judge_triggers(table: TableMapping, shape: TableShape, *, replica: bool) -> Iterator[Finding]:
    """Triggers of the target that would fire on what the stream writes. `replica`: the stream's role may
    set session_replication_role, which switches ordinary ones off.
    """
    fired = "AR" if replica else "AO"
    names = ", ".join(trigger.name for trigger in shape.triggers if trigger.enabled in fired)
    if names:
        yield _warning(
            (*table.path, "target"),
            f"the stream's writes to {table.target} fire its trigger(s) {names}",
            "see that they bear it"
            if replica
            else "as a superuser run GRANT SET ON PARAMETER session_replication_role TO the stream's role "
            "(PostgreSQL 15 and later), or see that they bear it",
        )


def judge_large_values(
    table: TableMapping, source: TableShape, reads: MappingOf[str, frozenset[str]]
) -> Iterator[Finding]:
    """Expressions that mix a value the log may leave out with others, where nothing can restore it."""
    if source.identity == Identity.FULL:
        return
    large = {column.name for column in source.columns if column.large}
    restored = {part.name for part in table.restored}
    for column in table.columns:
        read = reads.get(column.name, frozenset())
        for name in sorted((read & large) - restored):
            if len(read) > 1:
                yield _warning(
                    column.path,
                    f"{column.name!r} mixes {name!r} with other columns; when {name!r} is large and an "
                    "update leaves it "
                    f"unchanged, the log does not carry it and the target cannot restore it",
                    f"run ALTER TABLE {table.source.sql} REPLICA IDENTITY FULL, or carry {name!r} into the "
                    "target",
                )


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What matters about the source's server. `oldest_writer`: seconds, None when no write transaction
    runs.
    """

    wal_level: str
    slots_free: int
    senders_free: int
    may_replicate: bool
    encoding: str
    collation: str
    oldest_writer: float | None


def judge_servers(source: ServerFacts, target: ServerFacts) -> Iterator[Finding]:
    """Findings about the servers."""
    if source.wal_level != "logical":
        yield _error(
            (),
            f"the source server runs with wal_level={source.wal_level}",
            "set wal_level = logical in its configuration and restart it",
        )
    if not source.may_replicate:
        yield _error((), "the stream's role may not replicate from the source", "ALTER ROLE … REPLICATION")
    for what, free, setting in (
        ("replication slots", source.slots_free, "max_replication_slots"),
        ("WAL senders", source.senders_free, "max_wal_senders"),
    ):
        if free < 1:
            yield _error((), f"the source has no free {what}", f"raise {setting}, or drop what is not used")
        elif free < 2:
            yield _warning(
                (), f"the source has one free of its {what}; verification needs a second", f"raise {setting}"
            )
    if source.encoding != target.encoding:
        yield _warning(
            (),
            f"the source is encoded in {source.encoding}, the target in {target.encoding}",
            "make sure that every character of the source exists in the target's encoding",
        )
    if source.collation != target.collation:
        yield _warning(
            (),
            f"the source sorts text by {source.collation}, the target by {target.collation}",
            "expect another order of text in lists, or create the target with the same collation",
        )
    if source.oldest_writer is not None and source.oldest_writer > 60:
        yield _warning(
            (),
            f"a write transaction has been open on the source for {source.oldest_writer:.0f} s; the "
            "snapshot waits for "
            f"it",
            "end it before the snapshot",
        )
