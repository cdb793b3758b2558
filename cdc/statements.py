"""The SQL that a mapping stands for. Pure: text in, text out, one function a statement.

Rows arrive in *staged* tables that have the source's columns and types, so that the mapping's expressions
read the same there as they do on the source. Three staged tables serve one source table:

* `fresh`: whole rows, to be inserted or to replace what is there;
* `gone`:  keys of rows to delete;
* `holes`: updated rows in which PostgreSQL left out unchanged large values, with the key (`__at_n`) under
  which the
  target still holds the row.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

from cdc.changes import quote
from cdc.mapping import Column, Restored, TableMapping

Dependencies = MappingOf[str, frozenset[str]]
"""Target column → source columns that its expression reads."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Where a statement finds the rows: three FROM items. `columns` are (name, SQL type) of those in use."""

    columns: tuple[tuple[str, str], ...]
    fresh: str
    gone: str
    holes: str

    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.columns)


def staged_carrier(columns: tuple[tuple[str, str], ...], number: int) -> Carrier:
    """Many rows: temporary tables filled by COPY. `number` tells those of different source tables apart."""
    return Carrier(
        columns,
        fresh=f"pg_temp.strangler_fresh_{number}",
        gone=f"pg_temp.strangler_gone_{number}",
        holes=f"pg_temp.strangler_holes_{number}",
    )


def inline_carrier(table: TableMapping, columns: tuple[tuple[str, str], ...]) -> Carrier:
    """One row: the parameters $1, $2, … of a prepared statement, in the order of the staged table's
    columns.
    """
    types = dict(columns)
    key = [(part.source, types[part.source]) for part in table.key]
    at = [(f"__at_{n}", type_) for n, (_, type_) in enumerate(key)]
    return Carrier(
        columns, fresh=_parameters(columns), gone=_parameters(key), holes=_parameters([*at, *columns])
    )


def _parameters(columns: Iterable[tuple[str, str]]) -> str:
    items = (f"${n}::{type_} AS {quote(name)}" for n, (name, type_) in enumerate(columns, start=1))
    return f"(SELECT {', '.join(items)})"


class MissingValueError(Exception):
    """A target column needs a value that neither the log nor the target row can give."""

    def __init__(self, column: str, source: str) -> None:
        self.column = column
        self.source = source
        super().__init__(
            f"target column {column!r} mixes source column {source!r}, a large value that the log leaves "
            "out when "
            f"an update does not touch it, with other columns, and {source!r} cannot be restored from the "
            "target"
        )


def snapshot_select(table: TableMapping) -> str:
    """All rows of the source table, mapped."""
    return f"SELECT {_selected(table.columns)} FROM {table.source.sql} AS {_row_name(table)}"


def target_select(table: TableMapping) -> str:
    """The columns of the target table that `snapshot_select` fills, in its order."""
    return f"SELECT {_names(column.name for column in table.columns)} FROM {table.target.sql}"


def copy_target(table: TableMapping, *, binary: bool = False) -> str:
    """Takes rows of `snapshot_select` as COPY text, or in its binary form."""
    names = _names(column.name for column in table.columns)
    return f"COPY {table.target.sql} ({names}) FROM STDIN{' (FORMAT binary)' if binary else ''}"


def create_staged(table: TableMapping, carrier: Carrier) -> list[str]:
    """Create the three staged tables of this session."""
    types = dict(carrier.columns)
    key = [part.source for part in table.key]
    columns = [f"{quote(name)} {type_}" for name, type_ in carrier.columns]
    at = [f"{at_column(n)} {types[name]}" for n, name in enumerate(key)]
    wanted = {
        carrier.fresh: columns,
        carrier.gone: [f"{quote(name)} {types[name]}" for name in key],
        carrier.holes: at + columns,
    }
    return [f"CREATE TEMP TABLE {_bare(name)} ({', '.join(parts)})" for name, parts in wanted.items()]


def drop_staged(carrier: Carrier) -> str:
    """Drop them, when the source table's definition has changed."""
    return f"DROP TABLE {carrier.fresh}, {carrier.gone}, {carrier.holes}"


def copy_fresh(carrier: Carrier) -> str:
    """Takes whole rows as COPY text."""
    return f"COPY {carrier.fresh} FROM STDIN"


def copy_gone(carrier: Carrier) -> str:
    """Takes keys as COPY text."""
    return f"COPY {carrier.gone} FROM STDIN"


def copy_holes(table: TableMapping, carrier: Carrier, *, missing: frozenset[str]) -> str:
    """Takes the old key, then the columns that are there, as COPY text."""
    present = [quote(name) for name in carrier.names() if name not in missing]
    at = [at_column(n) for n, _ in enumerate(table.key)]
    return f"COPY {carrier.holes} ({', '.join(at + present)}) FROM STDIN"


def wipe(table: TableMapping) -> str:
    """Empty the target. DELETE, not TRUNCATE: readers go on, and tables that refer to it are no obstacle."""
    return f"DELETE FROM {table.target.sql}"


def upsert(table: TableMapping, carrier: Carrier) -> str:
    """Write the whole rows."""
    key = {part.target for part in table.key}
    changed = [quote(column.name) for column in table.columns if column.name not in key]
    resolve = (
        "UPDATE SET " + ", ".join(f"{name} = EXCLUDED.{name}" for name in changed) if changed else "NOTHING"
    )
    return (
        f"INSERT INTO {table.target.sql} ({_names(column.name for column in table.columns)}) "
        f"OVERRIDING SYSTEM VALUE "
        f"SELECT {', '.join(_expression(column) for column in table.columns)} "
        f"FROM {carrier.fresh} AS {_row_name(table)} "
        f"ON CONFLICT ({_names(part.target for part in table.key)}) DO {resolve}"
    )


def delete(table: TableMapping, carrier: Carrier, types: MappingOf[str, str]) -> str:
    """Delete the rows whose keys are in `gone`. `types`: target column → its SQL type."""
    return (
        f"DELETE FROM {table.target.sql} AS kept "
        f"USING (SELECT {_located_key(table, types)} FROM {carrier.gone} AS {_row_name(table)}) "
        f"AS gone CROSS JOIN LATERAL {_place(table, at='gone')} AS place WHERE {_at('place')}"
    )


def _at(place: str) -> str:
    return f'kept.ctid = {place}."__row" AND kept.tableoid = {place}."__table"'


def _place(table: TableMapping, *, at: str, also: Sequence[str] = ()) -> str:
    """Where the target holds the row with the key of `at`, by its unique index, and `also` what it holds there.

    A join with the target leaves the planner the choice, and statistics that lag behind a target that is being filled
    make it walk the whole table for each row. This is a function of one row (OFFSET 0 keeps it one), and what a row
    is at is not joined but fetched.
    """
    held = ", ".join(['held.tableoid AS "__table"', 'held.ctid AS "__row"', *also])
    same = " AND ".join(f"held.{quote(part.target)} = {at}.{_located(n)}" for n, part in enumerate(table.key))
    return f"(SELECT {held} FROM {table.target.sql} AS held WHERE {same} OFFSET 0)"


def patch(
    table: TableMapping,
    carrier: Carrier,
    types: MappingOf[str, str],
    dependencies: Dependencies,
    *,
    missing: frozenset[str],
    moves: bool,
) -> str | None:
    """Update rows in which the source columns `missing` were left out because they did not change.

    Target columns that read only missing columns stay as they are. One that mixes a missing column with
    others is computed from the value that the mapping's inverse restores out of the target row. `moves`:
    the key changes too. None when nothing is left to write. Raises MissingValueError when such a value
    cannot be restored.
    """
    key = {part.target for part in table.key}
    written = [
        column
        for column in table.columns
        if not (dependencies[column.name] and dependencies[column.name] <= missing)
        and (moves or column.name not in key)
    ]
    if not written:
        return None
    restores = {part.name: part for part in table.restored}
    restored: dict[str, Restored] = {}
    for column in written:
        for name in sorted(dependencies[column.name] & missing):
            if name not in restores:
                raise MissingValueError(column.name, name)
            restored[name] = restores[name]
    row = _row_name(table)
    staged = dict(carrier.columns)
    present = [f"staged.{quote(name)} AS {quote(name)}" for name in carrier.names() if name not in missing]
    inverses = [f"({part.sql})::{staged[name]} AS {quote(name)}" for name, part in restored.items()]
    holes = ['hole."__table" AS "__table"', 'hole."__row" AS "__row"']
    holes += [f"hole.{quote(name)} AS {quote(name)}" for name in restored]
    old_key = ", ".join(f"staged.{at_column(n)} AS {quote(part.source)}" for n, part in enumerate(table.key))
    values = ['"__table"', '"__row"']
    values += [f"({column.sql}) AS {quote(column.name)}" for column in written if dependencies[column.name]]
    return (
        f"UPDATE {table.target.sql} AS kept SET {_settings(written, dependencies)} "
        f"FROM (SELECT {', '.join(values)} FROM (SELECT {', '.join(holes + present)} "
        f"FROM {carrier.holes} AS staged "
        f"CROSS JOIN LATERAL (SELECT {_located_key(table, types)} FROM (SELECT {old_key}) AS {row}) AS at "
        f"CROSS JOIN LATERAL {_place(table, at='at', also=inverses)} AS hole) AS {row}) AS fresh "
        f"WHERE {_at('fresh')}"
    )


def _settings(columns: Iterable[Column], dependencies: Dependencies) -> str:
    # what reads no column stands here: in a subquery a bare 'text' or NULL would have a type already, and perhaps not
    # the column's
    return ", ".join(
        f"{quote(column.name)} = "
        + (f"fresh.{quote(column.name)}" if dependencies[column.name] else f"({column.sql})")
        for column in columns
    )


def exactly(statement: str, rows: int) -> str:
    """`statement`, which fails (`division_by_zero`) when it does not concern that many rows."""
    return f"WITH done AS ({statement} RETURNING 1) SELECT 1 / (count(*) = {rows})::int FROM done"


def source_columns_used(dependencies: Dependencies, table: TableMapping) -> frozenset[str]:
    """The source columns that have to be staged."""
    used: set[str] = {part.source for part in table.key}
    for names in dependencies.values():
        used |= names
    return frozenset(used)


def at_column(place: int) -> str:
    """The column of `holes` for the old value of key column number `place`."""
    return quote(f"__at_{place}")


def _located(place: int) -> str:
    return quote(f"__key_{place}")


def _located_key(table: TableMapping, types: MappingOf[str, str]) -> str:
    """The key that the target holds the row under, as columns `_located(0)` and on."""
    return ", ".join(
        f"({column.sql})::{types[column.name]} AS {_located(n)}"
        for n, column in enumerate(table.key_columns())
    )


def _selected(columns: Iterable[Column]) -> str:
    return ", ".join(f"{_expression(column)} AS {quote(column.name)}" for column in columns)


def _expression(column: Column) -> str:
    return column.sql if column.copied is not None else f"({column.sql})"


def _names(names: Iterable[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _row_name(table: TableMapping) -> str:
    return quote(table.source.name)


def _bare(name: str) -> str:
    return name.removeprefix("pg_temp.")
