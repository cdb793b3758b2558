"""The SQL of the comparison: one question asked on both sides. Pure.

Every row becomes a 64-bit hash of its mapped columns: on the source of the mapping's expressions, on the
target of the columns they fill. A stretch of keys (`Stretch`) is compared by count and sum of hashes. Only where
those are unequal, its rows fall into buckets by the hash of their key, unequal buckets are looked at row by row,
and unequal rows column by column.

Stretches follow the index of the key, so that a small one costs little and a comparison can be left and taken up
again. They need one order on both sides (`verify_order`); without it a table is one stretch, and buckets do the
whole work: they need no index and do not depend on how a collation sorts text.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Iterable, Sequence
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

Key = tuple[str, ...]
"""The text of a key without NULLs, in the order of the index."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The rows whose key is greater than `after` and not greater than `upto`; None is no bound."""

    after: Key | None = None
    upto: Key | None = None


EVERYTHING = Stretch()


@dataclass(frozen=True, slots=True)
class OrderedBy:
    """A column of the key's index, and the type that bounds are read as ("" for the column's own)."""

    column: str
    read_as: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """A table as the comparison sees it: `items` over `table` give one column for each mapped column.

    `order`: the key's index, empty when only the whole table can be compared.
    """

    items: str
    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    order: tuple[OrderedBy, ...] = ()

    def rows(self, stretch: Stretch) -> str:
        """The rows of `stretch` as a FROM item."""
        return f"(SELECT {self.items} FROM {self.table}{_where(self, stretch)}) AS mapped"


def sides(
    table: TableMapping,
    target: TableShape,
    *,
    source_order: Sequence[OrderedBy] = (),
    target_order: Sequence[OrderedBy] = (),
) -> tuple[Side, Side]:
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
    of_source = f"{table.source.sql} AS {quote(table.source.name)}"
    return (
        Side(", ".join(source_items), of_source, key, columns, tuple(source_order)),
        Side(", ".join(target_items), table.target.sql, key, columns, tuple(target_order)),
    )


def edge(side: Side, after: Key | None, rows: int) -> str:
    """One row: the key (text array) of row number `rows` behind `after`; none when fewer are left."""
    names = [quote(part.column) for part in side.order]
    return (
        f"SELECT {_texts(part.column for part in side.order)} FROM {side.table}{_where(side, Stretch(after))} "
        f"ORDER BY {', '.join(names)} OFFSET {rows - 1} LIMIT 1"
    )


def total(side: Side, stretch: Stretch) -> str:
    """One row (count, sum of row hashes)."""
    # sum(bigint) adds 128-bit integers and gives an exact numeric
    return f"SELECT count(*), sum({_hash(side.columns)})::text FROM {side.rows(stretch)}"


def sums(side: Side, stretch: Stretch, buckets: int) -> str:
    """Rows (bucket, count, sum of row hashes). `buckets` is a power of two."""
    return (
        f"SELECT {_bucket(side, buckets)}, count(*), sum({_hash(side.columns)})::text "
        f"FROM {side.rows(stretch)} GROUP BY 1"
    )


def hashes(side: Side, stretch: Stretch, buckets: int, wanted: Sequence[int]) -> str:
    """Rows (key as text array, row hash) of the buckets `wanted`."""
    return (
        f"SELECT {_texts(side.key)}, {_hash(side.columns)} FROM {side.rows(stretch)} "
        f"WHERE {_in_buckets(side, buckets, wanted)}"
    )


def values(
    side: Side, stretch: Stretch, buckets: int, wanted: Sequence[int], *, keys: Sequence[Sequence[str | None]]
) -> str:
    """Rows (key as text array, all mapped columns as text array) of `keys`, which lie in the buckets
    `wanted`. A key with a NULL finds nothing.
    """
    parts = [["NULL" if part is None else literal(part) for part in key] for key in keys]
    listed = ", ".join(f"({', '.join(key)})" for key in parts)
    names = ", ".join(f"{quote(name)}::text" for name in side.key)
    return (
        f"SELECT {_texts(side.key)}, {_texts(side.columns)} FROM {side.rows(stretch)} "
        f"WHERE {_in_buckets(side, buckets, wanted)} AND ({names}) IN ({listed})"
    )


def _where(side: Side, stretch: Stretch) -> str:
    bounds = [
        f"({', '.join(quote(part.column) for part in side.order)}) {sign} ({_bound(side, key)})"
        for sign, key in ((">", stretch.after), ("<=", stretch.upto))
        if key is not None
    ]
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def _bound(side: Side, key: Key) -> str:
    return ", ".join(
        literal(text) + (f"::{part.read_as}" if part.read_as else "")
        for part, text in zip(side.order, key, strict=True)
    )


def _hash(columns: Sequence[str]) -> str:
    return f"hash_record_extended(ROW({', '.join(quote(name) for name in columns)}), 0)"


def _bucket(side: Side, buckets: int) -> str:
    return f"({_hash(side.key)} & {buckets - 1})"


def _in_buckets(side: Side, buckets: int, wanted: Sequence[int]) -> str:
    return f"{_bucket(side, buckets)} IN ({', '.join(str(int(bucket)) for bucket in wanted)})"


def _texts(columns: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(f'{quote(name)}::text' for name in columns)}]"
