"""Debezium's JSON for PostgreSQL, record by record. Pure: bytes in, one `Record` out.

Records without schemas do not tell types, so the decoder is told the table's columns as the source's catalogue has them
(`Table`) and the connector's `Modes`; with schemas, the payload is taken out of its wrapper and the types are the
catalogue's as well. `decode.debezium_values` turns the values into PostgreSQL's text, and refuses what Debezium loses.

Of `before` only the key is believed: under the default identity a NOT NULL column shows its default there. An update
that changes the key comes as three records, a `d` with the header `__debezium.newkey`, a tombstone and a `c` with
`__debezium.oldkey`; it is one `Change` here, or large values that it left alone would be lost.

Source: https://debezium.io/documentation/reference/3.6/connectors/postgresql.html#postgresql-events, and the connector
itself (tests/contract/test_cdc_conformance.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import orjson

from cdc.changes import (
    UNCHANGED,
    Change,
    Identity,
    LogMessage,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Value,
)
from cdc.decode.debezium_values import (
    TEXT,
    Column,
    ColumnType,
    Convert,
    DebeziumError,
    Modes,
    column,
    loss,
    read_bytes,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START: Final = Lsn(0)


@dataclass(frozen=True, slots=True)
class Table:
    """A source table: as the log would describe it, and what its columns are made of, in the same order. Columns among
    `ignored` need not be read: types and values that Debezium damages are left out instead of refused.
    """

    relation: Relation
    types: tuple[ColumnType, ...]
    ignored: frozenset[str] = frozenset()


class Kind(StrEnum):
    """What a record is."""

    BEGIN = "begin"
    END = "end"
    CHANGE = "change"
    OTHER = "other"
    """Counts in its transaction and says nothing about rows of ours."""
    SNAPSHOT = "snapshot"
    """A row read by a snapshot, of Debezium's or an incremental one: of no transaction."""
    MOVED_AWAY = "moved away"
    """The first half of an update that changed the key; the whole of it comes with the second."""
    NOTHING = "nothing"
    """A tombstone, a heartbeat."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `xid` and `order` (from 1) place it in its transaction; of an END `position` is the log's position
    after the commit and `count` how many records there were. `after`: what committed up to there came before.
    """

    kind: Kind
    xid: int = 0
    order: int = 0
    position: Lsn = _START
    count: int = 0
    commit_time: datetime = _EPOCH
    after: Lsn | None = None
    change: Change | None = None
    message: LogMessage | None = None
    origin: str | None = None


NOTHING: Final = Record(Kind.NOTHING)


class UnknownColumnsError(Exception):
    """A row of `table` has columns that the decoder was not told of, or lacks some: read the catalogue again."""

    def __init__(self, table: TableName, columns: tuple[str, ...]) -> None:
        self.table = table
        self.columns = columns
        super().__init__(f"table {table} has columns {', '.join(columns)}")


@dataclass(frozen=True, slots=True)
class _Reader:
    """How rows with exactly these columns are read. `blurred`: places of columns whose NULL, in an update, may be a
    large value that was left alone.
    """

    relation: Relation
    names: tuple[str, ...]
    converters: tuple[Convert, ...]
    key: frozenset[str]
    blurred: tuple[int, ...]

    def row(self, said: Mapping[str, Any]) -> Row:
        return tuple(
            [
                None if (value := said[name]) is None else convert(value)
                for name, convert in zip(self.names, self.converters, strict=True)
            ]
        )

    def updated(self, said: Mapping[str, Any], older: Row | None = None) -> Row:
        """The new row of an update. `older`: the whole old row, where it is known."""
        row = self.row(said)
        for place in self.blurred:
            if row[place] is None and (older is None or older[place] is not None):
                raise DebeziumError(
                    f"column {self.relation.table}.{self.names[place]} is NULL after an update: for this type Debezium "
                    "writes the same when a large value was left alone; leave the column out of the mapping, or read "
                    "the log with source: slot"
                )
        if older is None:
            return row
        return tuple(held if value is UNCHANGED else value for value, held in zip(row, older, strict=True))

    def key_row(self, said: Mapping[str, Any]) -> Row:
        """The key's columns, all others NULL: what the log says of an old row under the default identity."""
        return tuple(
            [
                None if name not in self.key or (value := said.get(name)) is None else convert(value)
                for name, convert in zip(self.names, self.converters, strict=True)
            ]
        )


class Decoder:
    """Knows the tables (`learn`) and reads records of them. Rows of other tables count and say nothing."""

    def __init__(self, tables: Mapping[TableName, Table], modes: Modes = Modes()) -> None:  # noqa: B008  (frozen)
        self._modes = modes
        self._left: tuple[TableName, Row] | None = None  # the whole old row of a key change that has begun
        self._tables: dict[TableName, Table] = dict(tables)
        self._by_name = {(name.schema, name.name): name for name in tables}
        self._readers: dict[TableName, _Reader] = {}
        self._times: tuple[int, datetime] = (0, _EPOCH)

    def learn(self, tables: Mapping[TableName, Table]) -> None:
        """Take the tables as they are now. What did not change keeps its relation, so that sinks keep their plans."""
        for name, table in tables.items():
            if self._tables.get(name) != table:
                self._tables[name] = table
                self._readers.pop(name, None)

    def accept(self, error: UnknownColumnsError) -> None:
        """Read rows of these columns although the catalogue does not have them (any more): those it lacks are text."""
        known = self._tables[error.table]
        types = {
            column.name: (column, type_)
            for column, type_ in zip(known.relation.columns, known.types, strict=True)
        }
        found = [types.get(name, (RelationColumn(name, TEXT), ColumnType(TEXT))) for name in error.columns]
        relation = Relation(
            known.relation.table, tuple(column for column, _ in found), known.relation.identity
        )
        table = Table(relation, tuple(type_ for _, type_ in found), known.ignored)
        self._readers[error.table] = _reader(table, self._modes)

    def decode(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Record:
        """One record. Raises DebeziumError, or UnknownColumnsError for rows of another shape."""
        if value is None:
            return NOTHING  # a tombstone, for compaction: its `d` came before
        try:
            said = orjson.loads(value)
            if "payload" in said and "schema" in said:
                said = said["payload"]
            op = said.get("op")
            if op is None:
                return self._boundary(said)
            return self._event(op, key, said, headers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DebeziumError(f"not a record of Debezium's: {value[:300]!r} ({error})") from error

    def _boundary(self, said: Mapping[str, Any]) -> Record:
        status = said.get("status")
        if status is None:
            return NOTHING  # a heartbeat
        xid, _, position = said["id"].partition(":")
        if status == "BEGIN":
            return Record(Kind.BEGIN, xid=int(xid))
        return Record(
            Kind.END,
            xid=int(xid),
            position=Lsn(int(position)),
            count=said["event_count"],
            commit_time=self._time(said["ts_ms"] * 1000),
        )

    def _event(
        self,
        op: str,
        key: bytes | None,
        said: Mapping[str, Any],
        headers: Sequence[tuple[str, bytes]],
    ) -> Record:
        source, within = said["source"], said.get("transaction")
        xid, order, after, lsn = 0, 0, None, source.get("lsn")
        if within is not None:
            xid, order = int(within["id"].partition(":")[0]), within["total_order"]
            sequence = source.get("sequence")
            before = orjson.loads(sequence)[0] if sequence else None
            after = Lsn(int(before)) if before else None
        common = {
            "xid": xid,
            "order": order,
            "position": Lsn(lsn or 0),
            "commit_time": self._time(source.get("ts_us", source["ts_ms"] * 1000)),
            "after": after,
            "origin": source.get("origin"),
        }
        if op == "m":
            if within is None:
                return NOTHING  # written outside of any transaction: says nothing about rows
            message = said["message"]
            return Record(
                Kind.OTHER,
                message=LogMessage(message["prefix"], _content(message["content"], self._modes)),
                **common,
            )
        table = self._by_name.get((source["schema"], source["table"]))
        if table is None:
            return Record(Kind.OTHER, **common) if within is not None else NOTHING
        if op == "t":
            return Record(Kind.CHANGE, change=Change(Operation.TRUNCATE, self._relation(table)), **common)
        marks = dict(headers) if headers else {}
        if op == "d" and "__debezium.newkey" in marks:
            reader = self._reader(table, said["before"])
            whole = reader.relation.identity is Identity.FULL
            self._left = (table, reader.row(said["before"])) if whole else None
            return Record(Kind.MOVED_AWAY, **common)
        change = self._change(op, table, key, said, marks)
        return Record(Kind.SNAPSHOT if op == "r" else Kind.CHANGE, change=change, **common)

    def _change(  # noqa: PLR0911  (one arm a kind of change)
        self,
        op: str,
        table: TableName,
        key: bytes | None,
        said: Mapping[str, Any],
        marks: Mapping[str, bytes],
    ) -> Change:
        after, before = said["after"], said["before"]
        reader = self._reader(table, after if after is not None else before)
        whole = reader.relation.identity is Identity.FULL
        match op:
            case "c" | "r":
                moved = marks.get("__debezium.oldkey")
                if moved is None:
                    return Change(Operation.INSERT, reader.relation, None, reader.row(after))
                left, self._left = self._left, None
                if left is not None and left[0] == table and len(left[1]) == len(reader.names):
                    return Change(Operation.UPDATE, reader.relation, left[1], reader.updated(after, left[1]))
                old = orjson.loads(moved)
                old_key = reader.key_row(old.get("payload", old))
                return Change(Operation.UPDATE, reader.relation, old_key, reader.updated(after))
            case "u":
                if not whole or before is None:
                    return Change(Operation.UPDATE, reader.relation, None, reader.updated(after))
                old_row = reader.row(before)
                return Change(Operation.UPDATE, reader.relation, old_row, reader.updated(after, old_row))
            case "d":
                if whole:
                    return Change(Operation.DELETE, reader.relation, reader.row(before), None)
                # of `before` only the key is true: a NOT NULL column shows its default there
                names = before if key is None else orjson.loads(key)
                return Change(
                    Operation.DELETE, reader.relation, reader.key_row(names.get("payload", names)), None
                )
            case _:
                raise DebeziumError(f"operation {op!r} of table {table} is unknown")

    def _relation(self, table: TableName) -> Relation:
        reader = self._readers.get(table)
        return reader.relation if reader is not None else self._tables[table].relation

    def _reader(self, table: TableName, row: Mapping[str, Any]) -> _Reader:
        reader = self._readers.get(table)
        if reader is not None and reader.names == tuple(row):
            return reader
        names = tuple(row)
        known = self._tables[table]
        if names != known.relation.names():
            raise UnknownColumnsError(table, names)
        reader = self._readers[table] = _reader(known, self._modes)
        return reader

    def _time(self, microseconds: int) -> datetime:
        if self._times[0] != microseconds:
            self._times = (microseconds, _EPOCH + timedelta(microseconds=microseconds))
        return self._times[1]


def _reader(table: Table, modes: Modes) -> _Reader:
    relation = table.relation
    columns: list[Column] = []
    for known, type_ in zip(relation.columns, table.types, strict=True):
        ignored = known.name in table.ignored
        if ignored and loss(type_, modes) is not None:
            columns.append(Column(_left_out))
            continue
        read = column(type_, modes, f"column {relation.table}.{known.name}")
        columns.append(Column(_unless_damaged(read.convert)) if ignored else read)
    return _Reader(
        relation,
        relation.names(),
        tuple(each.convert for each in columns),
        frozenset(known.name for known in relation.columns if known.key),
        tuple(place for place, each in enumerate(columns) if each.blurred),
    )


def _unless_damaged(convert: Convert) -> Convert:
    def converted(value: Any) -> Value:
        try:
            return convert(value)
        except DebeziumError:
            return _left_out(value)

    return converted


def _left_out(_value: Any) -> Value:
    return UNCHANGED  # whoever asks for it after all is told that it is not there


def _content(text: str, modes: Modes) -> bytes:
    return read_bytes(modes.binaries)(text)
