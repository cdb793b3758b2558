"""What a check is: one query for its facts, one pure function that judges them.

`Check` asks a fixed query in one or both databases. `TableCheck` needs facts of a database to know what to
ask of each mapped table (which limits its rows must keep, which sequence feeds its key): `question` writes
that query, or "" when there is nothing to ask. The queries are given the parameters of `Subject.parameters`;
rows come as dictionaries by column name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from cdc.changes import TableName
from cdc.findings import Finding, Place, Rule, Side
from cdc.mapping import Mapping as TableMappings
from cdc.mapping import TableMapping

Row = Mapping[str, Any]
Rows = Sequence[Row]


class AskedBy(Enum):
    """Whose session asks: the stream's role; the owner of the tables, who may read rows before `prepare` has
    granted that to the stream's role; or nobody but the owner, when the question is what he himself may do.
    """

    STREAM = auto()
    OWNER = auto()
    OWNER_ALONE = auto()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined: the names in a plan, and how much is too much.

    `debezium`: whether Debezium reads the log. `long_transaction`: seconds; `sample`: rows a table whose values are
    looked at; `clock_skew`: seconds.
    """

    mapping: TableMappings
    slot: str
    publication: str
    role: str
    debezium: bool = False
    long_transaction: float = 60.0
    sample: int = 10_000
    clock_skew: float = 2.0

    def tables(self, side: Side) -> list[TableName]:
        """The mapped tables of one side, in declared order."""
        return [table.source if side is Side.SOURCE else table.target for table in self.mapping.tables]

    def table_at(self, side: Side, row: Row) -> TableMapping:
        """The mapping of the table that `row` names by `schema` and `table`. Raises StopIteration."""
        name = TableName(row["schema"], row["table"])
        tables = zip(self.tables(side), self.mapping.tables, strict=True)
        return next(table for found, table in tables if found == name)

    def parameters(self, side: Side) -> dict[str, Any]:
        """What every query may use: %(schemas)s and %(tables)s (parallel arrays of the mapped tables of
        `side`), %(slot)s, %(publication)s, %(role)s, %(long)s.
        """
        names = self.tables(side)
        return {
            "schemas": [name.schema for name in names],
            "tables": [name.name for name in names],
            "slot": self.slot,
            "publication": self.publication,
            "role": self.role,
            "long": self.long_transaction,
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """The rows that both databases answered; empty where nothing was asked."""

    source: Rows = ()
    target: Rows = ()

    def of(self, side: Side) -> Rows:
        """The rows of one side."""
        return self.source if side is Side.SOURCE else self.target

    def both(self) -> Iterator[tuple[Side, Row]]:
        """Every row with its side."""
        for side in Side:
            for row in self.of(side):
                yield side, row


Judge = Callable[[Facts, Subject], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and how it is checked. `source`, `target`: the query asked there, "" when none.

    `none_when_absent`: a table that a query names may not exist yet, that is no row. `mended_by_prepare`:
    stage `prepare` puts it right, so it does not hold that stage up.
    """

    rule: Rule
    judge: Judge
    source: str = ""
    target: str = ""
    asked_by: AskedBy = AskedBy.STREAM
    none_when_absent: bool = False
    mended_by_prepare: bool = False


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One rule that is checked table by table. `facts` is asked once in database `facts_in`, `question`
    turns its rows into the query that is asked in `asks` for one table, as the owner of the tables. `asked_by`:
    who asks for `facts`.
    """

    rule: Rule
    asks: Side
    question: Callable[[TableMapping, Rows, Subject], str]
    judge: Callable[[TableMapping, Rows, Rows, Subject], Iterator[Finding]]
    facts_in: Side | None = None
    facts: str = ""
    asked_by: AskedBy = AskedBy.OWNER
    none_when_absent: bool = False
    mended_by_prepare: bool = False


MAPPED = """mapped AS (
    SELECT n.nspname AS schema, c.relname AS "table", m.place, c.*, c.oid AS relation
    FROM unnest(%(schemas)s::text[], %(tables)s::text[]) WITH ORDINALITY AS m(schema, name, place)
    JOIN pg_namespace n ON n.nspname = m.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = m.name)"""
"""A common table expression: the mapped tables that exist, with their row of pg_class, oid as `relation`."""


def place_of(side: Side, row: Row) -> Place:
    """The place that `row` names by `schema`, `table` and perhaps `column`."""
    return Place.of(side, TableName(row["schema"], row["table"]), row.get("column") or "")


def sql_name(row: Row) -> str:
    """The table that `row` names, quoted for SQL."""
    return TableName(row["schema"], row["table"]).sql
