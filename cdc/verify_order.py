"""In which order can both sides be walked through, if in one at all?

A table is compared stretch by stretch when its key is an index on both sides, is copied as it is, holds no NULL,
and sorts alike. Numbers, times, uuids and bytes sort alike everywhere; text does when both columns have one
collation in one version, for a glibc or ICU of another version may sort otherwise (PostgreSQL's documentation,
"Collation Versions"). Where any of this fails the table is compared whole.

Completeness does not hang on that rule, only speed: the bounds lead from "before all keys" to "behind all keys", so
in whatever order a server sorts, each row lies in at least one stretch.
"""

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.changes import TableName
from cdc.compare_sql import OrderedBy
from cdc.mapping import TableMapping
from cdc.tableshape import ColumnShape, TableShape

_INTEGERS = frozenset({20, 21, 23})
_ALIKE = {
    16: "boolean", 17: "bytea", 26: "oid", 1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz",
    1700: "numeric", 2950: "uuid",
}  # fmt: skip
"""Types with one order everywhere, by OID."""

_TEXTS = frozenset({25, 1043})
_C_LIKE = ("C", "POSIX", "ucs_basic")


@dataclass(frozen=True, slots=True)
class Order:
    """The key's columns in the order of its index, as both sides name them."""

    source: tuple[OrderedBy, ...]
    target: tuple[OrderedBy, ...]


@dataclass(frozen=True, slots=True)
class Collation:
    """How a column sorts. `version` None: the server does not say."""

    provider: str
    locale: str
    version: str | None
    rules: str = ""

    def same_order(self, other: "Collation") -> bool:
        """Whether both surely sort alike."""
        if self.locale in _C_LIKE and other.locale in _C_LIKE:
            return True
        # of C.UTF-8 and the like no server tells a version: they sort by code point
        told = self.version is not None or self.locale.startswith("C.")
        return told and self == other


def choose_order(
    table: TableMapping,
    source: TableShape,
    target: TableShape,
    *,
    source_collations: MappingOf[str, Collation],
    target_collations: MappingOf[str, Collation],
) -> Order | None:
    """The order in which `table` can be walked on both sides, None when only the whole can be compared. Pure."""
    to_target = {part.source: part.target for part in table.key}
    if any(table.column(part.target).copied != part.source for part in table.key):
        return None
    for names in source.unique_keys:
        if set(names) != set(to_target):
            continue
        theirs = tuple(to_target[name] for name in names)
        if theirs not in target.unique_keys:
            continue
        ours: list[OrderedBy] = []
        for name in names:
            other = to_target[name]
            read_as = _read_as(source.column(name), target.column(other))
            if read_as is None:
                break
            if not read_as:
                here, there = source_collations.get(name), target_collations.get(other)
                if here is None or there is None or not here.same_order(there):
                    break
            ours.append(OrderedBy(name, read_as))
        else:
            return Order(tuple(ours), tuple(OrderedBy(to_target[part.column], part.read_as) for part in ours))
    return None


def _read_as(ours: ColumnShape | None, theirs: ColumnShape | None) -> str | None:
    """The type of bounds, "" for text (as the column is), None when the two do not sort alike."""
    if ours is None or theirs is None or not (ours.not_null and theirs.not_null):
        return None
    pair = {ours.type_oid, theirs.type_oid}
    if pair <= _INTEGERS:
        return "bigint"
    if pair <= _TEXTS:
        return ""
    return _ALIKE.get(ours.type_oid) if len(pair) == 1 else None


_COLLATIONS = """
SELECT a.attname, to_jsonb(c) || jsonb_build_object('actual', pg_collation_actual_version(c.oid))
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_collation c ON c.oid = a.attcollation
WHERE n.nspname = %s AND t.relname = %s AND a.attname = ANY(%s)
"""
_DATABASE = """
SELECT to_jsonb(d) || jsonb_build_object('actual', {version})
FROM pg_database d WHERE datname = current_database()
"""


def read_collations(
    connection: psycopg.Connection[Any], table: TableName, columns: Sequence[str]
) -> dict[str, Collation]:
    """How those of `columns` that have a collation sort."""
    rows = connection.execute(_COLLATIONS, [table.schema, table.name, list(columns)]).fetchall()
    if not rows:
        return {}
    # before PostgreSQL 15 a database's own collation has no version
    known = connection.info.server_version >= 150_000
    version = "pg_database_collation_actual_version(d.oid)" if known else "NULL"
    found = connection.execute(_DATABASE.format(version=version).encode()).fetchone()
    assert found is not None
    default = found[0]
    return {name: _collation(told, default) for name, told in rows}


def _collation(told: MappingOf[str, Any], default: MappingOf[str, Any]) -> Collation:
    # the names of these columns have changed from version to version of PostgreSQL
    if told["collprovider"] == "d":
        provider = default.get("datlocprovider", "c")
        locale = default.get("datlocale") or default.get("daticulocale")
        return Collation(
            provider,
            default["datcollate"] if provider == "c" else locale or "",
            default["actual"],
            default.get("daticurules") or "",
        )
    locale = told.get("colllocale") or told.get("colliculocale") or told.get("collcollate")
    return Collation(
        told["collprovider"],
        locale or "",
        told["actual"],
        (told.get("collicurules") or "") + ("" if told.get("collisdeterministic", True) else " loose"),
    )
