"""Does the mapping fit the two tables as they are? Shapes in, findings out.

`preflight` reads the shapes, and tries the expressions themselves.
"""

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf

from cdc.changes import Identity, quote
from cdc.findings import Finding, Place, Rule, Severity, Side
from cdc.mapping import TableMapping
from cdc.tableshape import ColumnShape, TableShape

SOURCE_MISSING = Rule(
    "source-table-missing",
    Severity.ERROR,
    "a mapped source table does not exist",
    "nothing could be copied from it",
    "correct its name in the plan, or the database",
)
_KINDS = {
    "p": Rule(
        "source-partitioned",
        Severity.ERROR,
        "a mapped source table is partitioned",
        "the log names the partitions, not their parent: its changes would be lost without a word",
        "map the partitions, each as a table",
    ),
    "inherited": Rule(
        "source-inherited",
        Severity.ERROR,
        "other tables inherit from a mapped source table",
        "a SELECT shows the rows of the children too, the log names each table by itself",
        "map the children, or run ALTER TABLE … NO INHERIT",
    ),
    "v": Rule(
        "source-view",
        Severity.ERROR,
        "a mapped source table is a view",
        "only tables are in the log",
        "map the tables that the view reads",
    ),
    "m": Rule(
        "source-materialized-view",
        Severity.ERROR,
        "a mapped source table is a materialized view",
        "only tables are in the log",
        "map the tables it is made from, and make it anew in the target",
    ),
    "f": Rule(
        "source-foreign-table",
        Severity.ERROR,
        "a mapped source table is a foreign table",
        "its changes are in another server's log",
        "name the server that has the table as the source",
    ),
}
_NOT_A_TABLE = Rule(
    "source-not-a-table",
    Severity.ERROR,
    "what the mapping calls a source table is something else (a sequence, an index, a type)",
    "only tables are in the log",
    "correct the name",
)
NO_IDENTITY = Rule(
    "source-no-identity",
    Severity.ERROR,
    "a source table has no replica identity (no primary key, or REPLICA IDENTITY NOTHING)",
    "once it is published, the application's own UPDATE and DELETE on it fail",
    "ALTER TABLE … REPLICA IDENTITY FULL, or a primary key",
)
KEY_MISSING = Rule(
    "key-column-missing",
    Severity.ERROR,
    "a key column of the mapping does not exist in the source",
    "rows could not be told apart",
    "correct the key",
)
KEY_NOT_LOGGED = Rule(
    "key-not-identity",
    Severity.ERROR,
    "the mapping's key has a column that is not part of the replica identity",
    "for an update or delete the log names a row by other columns: the target's row would not be found",
    "use the identity's columns as the key, or ALTER TABLE … REPLICA IDENTITY FULL",
)
KEY_NULL = Rule(
    "key-nullable",
    Severity.ERROR,
    "a key column may be NULL in the source",
    "NULL equals nothing: such a row could not be found again",
    "ALTER TABLE … ALTER … SET NOT NULL",
)
KEY_NOT_UNIQUE = Rule(
    "key-not-unique",
    Severity.ERROR,
    "no complete, immediate unique index on the key in the source",
    "two rows of the source would become one in the target",
    "ALTER TABLE … ADD UNIQUE (…)",
)
UNACCOUNTED = Rule(
    "source-column-unaccounted",
    Severity.ERROR,
    "a source column is neither carried nor ignored",
    "the way back would lose it",
    "map it, or list it under ignore with the reason",
)
SOURCE_GENERATED = Rule(
    "source-generated-column",
    Severity.ERROR,
    "the mapping reads a generated column of the source",
    "the snapshot sees it, the log does not: the stream would write NULL",
    "ignore it and compute it in the mapping, or ALTER TABLE … ALTER … DROP EXPRESSION",
)
IGNORED_MISSING = Rule(
    "ignored-column-missing",
    Severity.WARNING,
    "ignore names a column that the source does not have",
    "perhaps another one was meant",
    "remove the entry",
)
RESTORED_MISSING = Rule(
    "source-column-missing",
    Severity.ERROR,
    "the mapping names a source column that does not exist",
    "the expression cannot be computed",
    "correct the name",
)
TARGET_MISSING = Rule(
    "target-table-missing",
    Severity.ERROR,
    "a target table does not exist",
    "there is nothing to write to",
    "run the service's migrations, or correct the name",
)
TARGET_KEY = Rule(
    "target-key-not-unique",
    Severity.ERROR,
    "the target table has no complete, immediate unique index on the key",
    "rows are written by INSERT … ON CONFLICT (key)",
    "ALTER TABLE … ADD UNIQUE (…)",
)
TARGET_COLUMN_MISSING = Rule(
    "target-column-missing",
    Severity.ERROR,
    "a mapped target column does not exist",
    "nothing can be written to it",
    "correct the name, or add the column",
)
TARGET_GENERATED = Rule(
    "target-generated-column",
    Severity.ERROR,
    "the mapping writes a generated column of the target",
    "PostgreSQL refuses it",
    "move it from columns to generated, or ALTER TABLE … ALTER … DROP EXPRESSION",
)
TARGET_NOT_NULL = Rule(
    "target-not-null",
    Severity.WARNING,
    "a column that may be NULL in the source is copied into one that may not in the target",
    "the first such row stops the stream",
    "ALTER TABLE … ALTER … DROP NOT NULL, or map coalesce(…) with its inverse",
)
GENERATED_UNFIT = Rule(
    "target-generated-unfit",
    Severity.ERROR,
    "a column under generated is not one that the target can fill by itself",
    "every INSERT of the stream would fail",
    "map it, or give it a default",
)
TARGET_REQUIRED = Rule(
    "target-column-required",
    Severity.ERROR,
    "a target column is NOT NULL, has no default and is not mapped",
    "every INSERT of the stream would fail",
    "map it, or ALTER TABLE … ALTER … DROP NOT NULL",
)
TARGET_UNWRITTEN = Rule(
    "target-column-unwritten",
    Severity.WARNING,
    "a target column is not written by the stream",
    "it stays NULL or at its default in every row",
    "list it under generated when that is meant",
)
TRIGGER_FIRES = Rule(
    "target-trigger-fires",
    Severity.WARNING,
    "the target has triggers, and the stream's role may not switch them off for its session",
    "each row of the snapshot and the stream fires them: what they do happens a second time",
    "GRANT SET ON PARAMETER session_replication_role, or ALTER TABLE … DISABLE TRIGGER …",
)
TRIGGER_ALWAYS = Rule(
    "target-trigger-always",
    Severity.WARNING,
    "the target has triggers that are ENABLE ALWAYS or ENABLE REPLICA",
    "they fire on what the stream writes, although ordinary triggers do not",
    "ALTER TABLE … ENABLE TRIGGER … (ordinary), or see that they bear it",
)
LARGE_MIXED = Rule(
    "large-value-mixed",
    Severity.WARNING,
    "an expression mixes a large column that the target does not hold with other columns",
    "an update that leaves a large value unchanged does not log it: the expression cannot be computed",
    "ALTER TABLE … REPLICA IDENTITY FULL, or carry the column into the target",
)
EXPRESSION_REFUSED = Rule(
    "expression-refused",
    Severity.ERROR,
    "PostgreSQL refuses an expression of the mapping (not immutable, no such column, wrong type)",
    "the same row must always give the same value",
    "correct the expression",
)
NOT_INVERTIBLE = Rule(
    "mapping-not-invertible",
    Severity.ERROR,
    "a real row does not come back from mapping and inverse as it was",
    "the way back, and with it every rollback of writes, would change data",
    "correct the expression or its inverse",
)

MAPPED_RULES: tuple[Rule, ...] = (
    SOURCE_MISSING, *_KINDS.values(), _NOT_A_TABLE, NO_IDENTITY, KEY_MISSING, KEY_NOT_LOGGED, KEY_NULL,
    KEY_NOT_UNIQUE, UNACCOUNTED, SOURCE_GENERATED, IGNORED_MISSING, RESTORED_MISSING, TARGET_MISSING,
    TARGET_KEY, TARGET_COLUMN_MISSING, TARGET_GENERATED, TARGET_NOT_NULL, GENERATED_UNFIT, TARGET_REQUIRED,
    TARGET_UNWRITTEN, TRIGGER_FIRES, TRIGGER_ALWAYS, LARGE_MIXED, EXPRESSION_REFUSED, NOT_INVERTIBLE,
)  # fmt: skip


def judge_source(table: TableMapping, shape: TableShape | None) -> Iterator[Finding]:
    """Findings about the source table `table.source`, as it is."""
    place = Place.of(Side.SOURCE, table.source)
    if shape is None:
        message = f"source table {table.source} does not exist"
        yield SOURCE_MISSING.found(message, place=place, path=table.path)
        return
    if shape.kind != "r":
        rule = _KINDS.get(shape.kind, _NOT_A_TABLE)
        what = {
            "p": "a partitioned table",
            "v": "a view",
            "m": "a materialized view",
            "f": "a foreign table",
            "inherited": "a table, and others inherit from it",
        }.get(shape.kind, "not a table")
        yield rule.found(f"source table {table.source} is {what}", place=place, path=table.path)
        return
    yield from _source_identity(table, shape, tuple(part.source for part in table.key))
    yield from _source_columns(table, shape)


def _source_columns(table: TableMapping, shape: TableShape) -> Iterator[Finding]:
    accounted = table.source_columns_accounted_for()
    names = {column.name for column in shape.columns}
    path = (*table.path, "columns")
    for column in shape.columns:
        place = Place.of(Side.SOURCE, table.source, column.name)
        if column.name not in accounted:
            yield UNACCOUNTED.found(
                f"source column {table.source}.{column.name} is neither carried (so that it can be "
                "restored) nor ignored",
                place=place,
                path=path,
                remedy="map it, or add it under ignore with the reason",
            )
        if column.generated and column.name not in dict(table.ignored):
            yield SOURCE_GENERATED.found(
                f"source column {table.source}.{column.name} is a generated column: it is not in the log",
                place=place,
                path=path,
                repair=_alter(table.source.sql, column.name, "DROP EXPRESSION"),
                remedy="ignore it and compute it from the columns it is generated from",
            )
    for name, _ in table.ignored:
        if name not in names:
            yield IGNORED_MISSING.found(
                f"source has no column {name!r}",
                place=Place.of(Side.SOURCE, table.source, name),
                path=(*table.path, "ignore", name),
            )
    for part in table.restored:
        if part.name not in names:
            yield RESTORED_MISSING.found(
                f"source table {table.source} has no column {part.name!r}",
                place=Place.of(Side.SOURCE, table.source, part.name),
                path=part.path,
            )


def _source_identity(table: TableMapping, shape: TableShape, key: tuple[str, ...]) -> Iterator[Finding]:
    path = (*table.path, "key")
    place = Place.of(Side.SOURCE, table.source)
    full = f"ALTER TABLE {table.source.sql} REPLICA IDENTITY FULL"
    if shape.identity == Identity.NOTHING or not shape.identity_columns:
        yield NO_IDENTITY.found(
            f"source table {table.source} has no replica identity: once published, its updates and deletes "
            "fail",
            place=place,
            path=path,
            repair=full,
            remedy=f"give it a primary key, or run {full}",
        )
        return
    unknown = [name for name in key if shape.column(name) is None]
    if unknown:
        message = f"source table {table.source} has no column {unknown[0]!r}"
        yield KEY_MISSING.found(message, place=place, path=path)
        return
    unlogged = [name for name in key if name not in shape.identity_columns]
    if unlogged:
        yield KEY_NOT_LOGGED.found(
            f"the log names rows of {table.source} by {', '.join(shape.identity_columns)}, not by "
            f"{unlogged[0]!r}",
            place=place,
            path=path,
            repair=full,
            remedy=f"use these columns as the key, or run {full}",
        )
    for name in key:
        column = shape.column(name)
        if column is not None and not column.not_null:
            yield KEY_NULL.found(
                f"key column {name!r} may be NULL: such a row could not be found again",
                place=Place.of(Side.SOURCE, table.source, name),
                path=path,
                repair=_alter(table.source.sql, name, "SET NOT NULL"),
            )
    if not any(set(unique) == set(key) for unique in shape.unique_keys):
        yield KEY_NOT_UNIQUE.found(
            f"no unique index on {table.source} ({', '.join(key)}): the key would not name one row",
            place=place,
            path=path,
            repair=f"ALTER TABLE {table.source.sql} ADD UNIQUE ({', '.join(map(quote, key))})",
        )


def judge_target(
    table: TableMapping, shape: TableShape | None, source: TableShape | None
) -> Iterator[Finding]:
    """Findings about the target table `table.target`, as it is. `source` where it is known."""
    place = Place.of(Side.TARGET, table.target)
    if shape is None:
        message = f"target table {table.target} does not exist"
        yield TARGET_MISSING.found(message, place=place, path=(*table.path, "target"))
        return
    key = sorted(part.target for part in table.key)
    if not any(sorted(unique) == key for unique in shape.unique_keys):
        yield TARGET_KEY.found(
            f"target table {table.target} has no unique index on ({', '.join(key)})",
            place=place,
            path=(*table.path, "key"),
            repair=f"ALTER TABLE {table.target.sql} ADD UNIQUE ({', '.join(map(quote, key))})",
        )
    yield from _written_columns(table, shape, source)
    yield from _other_columns(table, shape)


def _written_columns(table: TableMapping, shape: TableShape, source: TableShape | None) -> Iterator[Finding]:
    for column in table.columns:
        place = Place.of(Side.TARGET, table.target, column.name)
        held = shape.column(column.name)
        if held is None:
            message = f"target table {table.target} has no column {column.name!r}"
            yield TARGET_COLUMN_MISSING.found(message, place=place, path=column.path)
            continue
        if held.generated:
            yield TARGET_GENERATED.found(
                f"target column {column.name!r} is generated by the target",
                place=place,
                path=column.path,
                repair=_alter(table.target.sql, column.name, "DROP EXPRESSION"),
                remedy="move it from columns to generated",
            )
        origin = source.column(column.copied) if source and column.copied else None
        if origin is not None and held.not_null and not origin.not_null:
            yield TARGET_NOT_NULL.found(
                f"source column {origin.name!r} may be NULL, target column {column.name!r} may not: such a "
                "row would stop the stream",
                place=place,
                path=column.path,
                repair=_alter(table.target.sql, column.name, "DROP NOT NULL"),
                remedy="allow NULL in the target, or map coalesce(…) with its inverse",
            )


def _other_columns(table: TableMapping, shape: TableShape) -> Iterator[Finding]:
    for name in table.generated:
        held = shape.column(name)
        if held is None or not _fills_itself(held):
            reason = "does not exist" if held is None else "is NOT NULL and has no default"
            yield GENERATED_UNFIT.found(
                f"target column {name!r} {reason}",
                place=Place.of(Side.TARGET, table.target, name),
                path=(*table.path, "generated"),
                repair="" if held is None else _alter(table.target.sql, name, "DROP NOT NULL"),
                remedy="map it, or correct the name",
            )
    written = {column.name for column in table.columns} | set(table.generated)
    for held in shape.columns:
        if held.name in written or held.generated:
            continue
        place = Place.of(Side.TARGET, table.target, held.name)
        if held.not_null and not held.has_default:
            yield TARGET_REQUIRED.found(
                f"target column {table.target}.{held.name} is NOT NULL, has no default and is not mapped",
                place=place,
                path=(*table.path, "columns"),
                repair=_alter(table.target.sql, held.name, "DROP NOT NULL"),
                remedy="map it, or give it a default and list it under generated",
            )
        else:
            yield TARGET_UNWRITTEN.found(
                f"target column {table.target}.{held.name} is not written by the stream",
                place=place,
                path=(*table.path, "columns"),
            )


def _fills_itself(column: ColumnShape) -> bool:
    return column.generated or column.has_default or not column.not_null


def judge_triggers(table: TableMapping, shape: TableShape, *, replica: bool) -> Iterator[Finding]:
    """Triggers of the target that would fire on what the stream writes. `replica`: the stream's role may
    set session_replication_role, which switches ordinary ones off.
    """
    target = table.target.sql
    for rule, states, act, remedy in (
        (
            TRIGGER_ALWAYS,
            "AR" if replica else "A",
            "ENABLE" if replica else "DISABLE",
            "see that they bear it",
        ),
        (
            TRIGGER_FIRES,
            "" if replica else "O",
            "DISABLE",
            "as a superuser GRANT SET ON PARAMETER session_replication_role to it, or see that they bear it",
        ),
    ):
        names = [trigger.name for trigger in shape.triggers if trigger.enabled in states]
        if names:
            yield rule.found(
                f"the stream's writes to {table.target} fire its trigger(s) {', '.join(names)}",
                place=Place.of(Side.TARGET, table.target),
                path=(*table.path, "target"),
                repair="; ".join(f"ALTER TABLE {target} {act} TRIGGER {quote(name)}" for name in names),
                remedy=remedy,
            )


def judge_large_values(
    table: TableMapping, source: TableShape, reads: MappingOf[str, frozenset[str]]
) -> Iterator[Finding]:
    """Expressions that mix a value the log may leave out with others, where nothing can restore it."""
    if source.identity == Identity.FULL:
        return
    large = {column.name for column in source.columns if column.large}
    restored = {part.name for part in table.restored}
    repair = f"ALTER TABLE {table.source.sql} REPLICA IDENTITY FULL"
    for column in table.columns:
        read = reads.get(column.name, frozenset())
        for name in sorted((read & large) - restored):
            if len(read) > 1:
                yield LARGE_MIXED.found(
                    f"{column.name!r} mixes {name!r} with other columns; when {name!r} is large and an "
                    "update leaves it unchanged, the log does not carry it and the target cannot restore it",
                    place=Place.of(Side.SOURCE, table.source, name),
                    path=column.path,
                    repair=repair,
                    remedy=f"run {repair}, or carry {name!r} into the target",
                )


def _alter(table: str, column: str, what: str) -> str:
    return f"ALTER TABLE {table} ALTER {quote(column)} {what}"
