"""The SQL of the comparison: one question asked on both sides. Pure.

Every row becomes a 64-bit hash of its mapped columns: on the source of the mapping's expressions, on the
target of the columns they fill. Rows fall into buckets by the hash of their key; a bucket is compared by
count and sum of hashes, and only unequal buckets are looked at row by row. Buckets instead of key ranges:
they need no index, are even, and do not depend on how each side's collation sorts text.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.changes import literal, quote
from cdc.mapping import TableMapping
from cdc.tableshape import FIRST_USER_TYPE, TableShape

_UNCUT = {
    1042: "bpchar", 1014: "bpchar[]", 1043: "varchar", 1015: "varchar[]",
    1560: "varbit", 1561: "varbit[]", 1562: "varbit", 1563: "varbit[]",
}  # fmt: skip
"""Types of limited length, by OID: a cast to `varchar(5)` would cut the source's value to what the target
holds.
"""

_INTERVALS = frozenset({1186, 1187})
"""`1 mon` and `30 days` are equal to PostgreSQL and to its hash, but not the same: compared as text."""


@dataclass(frozen=True, slots=True)
class Side:
    """A table as the comparison sees it: `rows` is a FROM item with one column for each mapped column."""

    rows: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


def sides(table: TableMapping, target: TableShape) -> tuple[Side, Side]:
    """Source and target of `table`; both give the same columns with the same types."""
    columns = tuple(column.name for column in table.columns)
    key = tuple(part.target for part in table.key)
    source_items: list[str] = []
    target_items: list[str] = []
    for column in table.columns:
        shape = target.column(column.name)
        assert shape is not None, (
            f"{table.target} has no column {column.name}: the pre-flight check finds this"
        )
        name = quote(column.name)
        source, held = f"({column.sql})", name
        if shape.type_oid < FIRST_USER_TYPE:
            source = f"{source}::{_UNCUT.get(shape.type_oid, shape.type)}"
        if shape.type_oid >= FIRST_USER_TYPE or not shape.hashable or shape.type_oid in _INTERVALS:
            source, held = f"({source})::text", f"{held}::text"
        source_items.append(f"{source} AS {name}")
        target_items.append(f"{held} AS {name}")
    of_source = (
        f"(SELECT {', '.join(source_items)} FROM {table.source.sql} AS {quote(table.source.name)}) AS mapped"
    )
    of_target = f"(SELECT {', '.join(target_items)} FROM {table.target.sql}) AS mapped"
    return Side(of_source, key, columns), Side(of_target, key, columns)


def sums(side: Side, buckets: int) -> str:
    """Rows (bucket, count, sum of row hashes). `buckets` is a power of two."""
    return (
        f"SELECT {_bucket(side, buckets)}, count(*), sum({_hash(side.columns)}::numeric)::text "
        f"FROM {side.rows} GROUP BY 1"
    )


def hashes(side: Side, buckets: int, wanted: Sequence[int]) -> str:
    """Rows (key as text array, row hash) of the buckets `wanted`."""
    chosen = ", ".join(str(int(bucket)) for bucket in wanted)
    return (
        f"SELECT {_texts(side.key)}, {_hash(side.columns)} FROM {side.rows} "
        f"WHERE {_bucket(side, buckets)} IN ({chosen})"
    )


def values(side: Side, buckets: int, wanted: Sequence[int], keys: Sequence[Sequence[str | None]]) -> str:
    """Rows (key as text array, all mapped columns as text array) of `keys`, which lie in the buckets
    `wanted`. A key with a NULL finds nothing.
    """
    chosen = ", ".join(str(int(bucket)) for bucket in wanted)
    parts = [["NULL" if part is None else literal(part) for part in key] for key in keys]
    listed = ", ".join(f"({', '.join(key)})" for key in parts)
    names = ", ".join(f"{quote(name)}::text" for name in side.key)
    return (
        f"SELECT {_texts(side.key)}, {_texts(side.columns)} FROM {side.rows} "
        f"WHERE {_bucket(side, buckets)} IN ({chosen}) AND ({names}) IN ({listed})"
    )


def _hash(columns: Sequence[str]) -> str:
    return f"hash_record_extended(ROW({', '.join(quote(name) for name in columns)}), 0)"


def _bucket(side: Side, buckets: int) -> str:
    return f"({_hash(side.key)} & {buckets - 1})"


def _texts(columns: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(f'{quote(name)}::text' for name in columns)}]"
