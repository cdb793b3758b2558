"""The mapping: how a source table becomes a target table, declared once and used five times.

From the one declaration are derived: the snapshot's COPY, the stream's apply statements (both in
`statements`), the comparison on both sides (`verify`), the reverse direction (`reverse`), and the check
before anything moves (`preflight`). Under `tables:` in a plan:

    catalog_product:                 # source table; schema.table, schema public when left out
      target: product                # target table; the same name when left out
      key: {product_id: id}          # target column: source column; rows are identified by these
      columns:                       # target column: what it holds
        product_id: id               #   a bare name copies that source column
        price_cents:                 #   anything else is SQL over the source row, with its inverse
          sql: (price * 100)::bigint
          inverse: {price: "(price_cents::numeric / 100)::numeric(10,2)"}
        initial: {sql: "upper(left(name, 1))", derived: true}    # never needed to restore the source
      ignore: {search_vector: the service builds its own}         # source column: why it is not carried
      generated: [search]            # target columns that the target fills by itself

Expressions see the columns of one source row, inverses the columns of one target row; both must be
immutable. What can be seen without a database is checked here, each fault with its line; the rest in
`preflight`. List parent tables before their children: without the right to switch foreign keys off, rows
are written in this order.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from cdc.changes import TableName
from chassis.problems import InvalidFileError, Problem
from chassis.yamlfile import KeyPath, Places

_BARE_NAME = re.compile(r"[^\W\d]\w*\Z")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_FORBIDDEN = re.compile(r"(;|--|/\*|\b(?:select|over)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Column:
    """A target column and the SQL over the source row that fills it.

    `copied` names the source column when the SQL is nothing but that column. `derived` columns are not
    needed to restore the source. `path` is where the declaration stands in the plan.
    """

    name: str
    sql: str
    copied: str | None = None
    derived: bool = False
    path: KeyPath = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """A source column and the SQL over the target row that restores it. `copied`, `path`: as in `Column`."""

    name: str
    sql: str
    copied: str | None = None
    path: KeyPath = ()


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of the identity of a row, under its name on both sides."""

    target: str
    source: str


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How one source table fills one target table. `ignored`: (source column, reason)."""

    source: TableName
    target: TableName
    key: tuple[KeyColumn, ...]
    columns: tuple[Column, ...]
    restored: tuple[Restored, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    generated: tuple[str, ...] = ()
    path: KeyPath = ()

    def column(self, target: str) -> Column:
        """The column that fills target column `target`. Raises KeyError."""
        for column in self.columns:
            if column.name == target:
                return column
        raise KeyError(target)

    def key_columns(self) -> tuple[Column, ...]:
        """The columns of the target's key, in key order."""
        return tuple(self.column(part.target) for part in self.key)

    def source_columns_accounted_for(self) -> frozenset[str]:
        """Source columns that can be restored or are knowingly left out."""
        return frozenset(part.name for part in self.restored) | {name for name, _ in self.ignored}


@dataclass(frozen=True, slots=True)
class Mapping:
    """All tables that move together: one slot, one target transaction."""

    tables: tuple[TableMapping, ...]

    def table(self, source: TableName) -> TableMapping:
        """The mapping of source table `source`. Raises KeyError."""
        for table in self.tables:
            if table.source == source:
                return table
        raise KeyError(str(source))

    def sources(self) -> tuple[TableName, ...]:
        """The source tables, in declared order."""
        return tuple(table.source for table in self.tables)

    def order(self, source: TableName) -> int:
        """The place of a source table in declared order, parents before children. Raises ValueError."""
        return self.sources().index(source)


def reverse(mapping: Mapping) -> Mapping:
    """The opposite direction: target rows back into source rows.

    What is derived has nothing to restore and is ignored on the way back; source columns that were
    ignored are the source's own to fill.
    """
    return Mapping(tuple(_reverse(table) for table in mapping.tables))


def _reverse(table: TableMapping) -> TableMapping:
    derived = tuple((column.name, "derived from other columns") for column in table.columns if column.derived)
    own = tuple((name, "the target fills it by itself") for name in table.generated)
    return TableMapping(
        source=table.target,
        target=table.source,
        key=tuple(KeyColumn(part.source, part.target) for part in table.key),
        columns=tuple(Column(part.name, part.sql, part.copied, path=part.path) for part in table.restored),
        restored=tuple(
            Restored(part.name, part.sql, part.copied, part.path)
            for part in table.columns
            if not part.derived
        ),
        ignored=derived + own,
        generated=tuple(name for name, _ in table.ignored),
        path=table.path,
    )


_Name = Annotated[str, StringConstraints(min_length=1, max_length=63)]
_Sql = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class _Expression(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sql: _Sql
    inverse: dict[_Name, _Sql] = Field(default_factory=dict)
    derived: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"sql": data}
        if not isinstance(data, dict):
            raise ValueError("should be the name of a source column, or {sql: …, inverse: {…}}")  # noqa: TRY004  (pydantic)
        return data


def _names(data: Any) -> Any:
    return [data] if isinstance(data, str) else data


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    target: _Name | None = None
    key: dict[_Name, Annotated[list[_Name], BeforeValidator(_names)]] = Field(min_length=1)
    columns: dict[_Name, _Expression] = Field(min_length=1)
    ignore: dict[_Name, _Sql] = Field(default_factory=dict)
    generated: list[_Name] = Field(default_factory=list)


_TABLES: TypeAdapter[dict[str, _Table]] = TypeAdapter(
    Annotated[dict[str, _Table], Field(min_length=1)], config=ConfigDict(strict=True)
)


def parse_mapping(data: Any, places: Places, prefix: Sequence[str | int] = ("tables",)) -> Mapping:
    """The mapping written in `data` (the value under `tables:`), which stands at `prefix` in its file.

    Raises InvalidFileError with every fault, each at its line.
    """
    try:
        parsed = _TABLES.validate_python(data)
    except ValidationError as error:
        raise InvalidFileError(_with_remedy(places.problems_of(error, prefix))) from error
    problems: list[Problem] = []
    tables: list[TableMapping] = []
    for name, table in parsed.items():
        reader = _TableReader(name, table, places, (*prefix, name))
        mapped = reader.read()
        problems += reader.problems
        if mapped is not None:
            tables.append(mapped)
    problems += _targets_once(tables, places)
    if problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return Mapping(tuple(tables))


def _with_remedy(problems: list[Problem]) -> list[Problem]:
    remedy = "write it as the documentation of the mapping shows"
    return [replace(problem, remedy=problem.remedy or remedy) for problem in problems]


def _targets_once(tables: list[TableMapping], places: Places) -> Iterator[Problem]:
    seen: dict[TableName, TableName] = {}
    sources: set[TableName] = set()
    for table in tables:
        if table.target in seen:
            yield places.problem(
                (*table.path, "target"),
                f"table {table.target} is already filled from {seen[table.target]}",
                "give each target table one source table",
            )
        if table.source in sources:
            yield places.problem(table.path, f"table {table.source} is mapped twice", "keep one of the two")
        seen[table.target] = table.source
        sources.add(table.source)


class _TableReader:
    """Reads one table; collects faults instead of stopping at the first."""

    def __init__(self, name: str, table: _Table, places: Places, path: KeyPath) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._table = table
        self._places = places
        self._path = path

    def read(self) -> TableMapping | None:
        source = self._table_name(self._name, ())
        target = self._table_name(self._table.target or self._name, ("target",))
        key = tuple(self._key())
        columns: list[Column] = []
        restored: list[Restored] = []
        for name, declared in self._with_key_columns(key):
            column = self._column(name, declared)
            columns.append(column)
            restored += self._restored(column, declared)
        self._check_written_once(restored)
        self._check_key(key, columns, restored)
        if source is None or target is None:
            return None
        return TableMapping(
            source=source,
            target=target,
            key=key,
            columns=tuple(columns),
            restored=tuple(restored),
            ignored=tuple(self._table.ignore.items()),
            generated=tuple(self._table.generated),
            path=self._path,
        )

    def _fault(self, where: Sequence[str | int], message: str, remedy: str) -> None:
        self.problems.append(self._places.problem((*self._path, *where), message, remedy))

    def _table_name(self, text: str, where: Sequence[str]) -> TableName | None:
        try:
            return TableName.parse(text)
        except ValueError as error:
            self._fault(where, str(error), "write table or schema.table")
            return None

    def _key(self) -> Iterator[KeyColumn]:
        for target, names in self._table.key.items():
            if len(names) != 1:
                self._fault(
                    ("key", target),
                    f"the key is not mapped one-to-one: {len(names)} source columns for {target!r}",
                    "name one source column for each column of the target's key",
                )
                continue
            yield KeyColumn(target, names[0])

    def _with_key_columns(self, key: tuple[KeyColumn, ...]) -> Iterator[tuple[str, _Expression]]:
        for part in key:
            if part.target not in self._table.columns:
                yield part.target, _Expression(sql=part.source)
        yield from self._table.columns.items()

    def _column(self, name: str, declared: _Expression) -> Column:
        path = (*self._path, "columns", name)
        text = declared.sql
        derived = declared.derived
        if _BARE_NAME.match(text):
            return Column(name, _identifier(text), text, derived, path)
        self._check_sql(("columns", name), text)
        return Column(name, text, derived=derived, path=path)

    def _restored(self, column: Column, declared: _Expression) -> Iterator[Restored]:
        inverse = declared.inverse
        where = ("columns", column.name)
        if column.copied is not None and not inverse:
            if column.derived:
                return  # a second copy of one source column: the other one restores it
            yield Restored(column.copied, _identifier(column.name), column.name, column.path)
            return
        if column.derived and inverse:
            self._fault(where, "a derived column has no inverse", "remove derived or remove inverse")
        elif not column.derived and not inverse:
            self._fault(
                where,
                f"{column.name!r} is computed and has no inverse, so the source could not be restored from "
                "it",
                "add inverse: {source column: SQL over the target row}, or derived: true when other columns "
                "restore the source",
            )
        yield from self._declared(where, inverse)

    def _declared(self, where: tuple[str, ...], inverse: dict[str, str]) -> Iterator[Restored]:
        for source, text in inverse.items():
            path = (*self._path, *where, "inverse", source)
            if _BARE_NAME.match(text):
                yield Restored(source, _identifier(text), text, path)
            else:
                self._check_sql((*where, "inverse", source), text)
                yield Restored(source, text, path=path)

    def _check_sql(self, where: Sequence[str], text: str) -> None:
        found = _FORBIDDEN.search(_QUOTED.sub("''", text))
        if found:
            self._fault(
                where,
                f"{found.group()!r} is not allowed in {text!r}",
                "write one expression over the columns of one row: no subquery, window, comment or second "
                "statement",
            )

    def _check_written_once(self, restored: list[Restored]) -> None:
        table = self._table
        for name in table.generated:
            if name in table.columns or name in table.key:
                self._fault(
                    ("generated",),
                    f"target column {name!r} is written twice: mapped and filled by the target itself",
                    "remove it from columns or from generated",
                )
        for name, count in Counter(part.name for part in restored).items():
            if count > 1:
                last = [part for part in restored if part.name == name][-1]
                self._fault(
                    last.path[len(self._path) :],
                    f"source column {name!r} is restored by {count} target columns; the way back is "
                    "ambiguous",
                    "mark all but one of them derived: true",
                )
        for name in table.ignore:
            if any(part.name == name for part in restored):
                self._fault(
                    ("ignore", name),
                    f"source column {name!r} is both carried and ignored",
                    "remove it from ignore or from columns",
                )

    def _check_key(self, key: tuple[KeyColumn, ...], columns: list[Column], restored: list[Restored]) -> None:
        for name, count in Counter(part.source for part in key).items():
            if count > 1:
                self._fault(
                    ("key",),
                    f"the key is not mapped one-to-one: source column {name!r} is used {count} times",
                    "name each column of the source's key once",
                )
        by_name = {column.name: column for column in columns}
        restores = {part.name for part in restored}
        for part in key:
            column = by_name[part.target]
            copies_another = column.copied is not None and column.copied != part.source
            if copies_another or column.derived or part.source not in restores:
                self._fault(
                    ("key", part.target),
                    f"the key is not mapped one-to-one: {part.target!r} is filled by {column.sql} and does "
                    f"not give source column {part.source!r} back",
                    f"copy {part.source!r} into {part.target!r} or give an inverse that restores it",
                )


def _identifier(name: str) -> str:
    return '"' + name + '"'
