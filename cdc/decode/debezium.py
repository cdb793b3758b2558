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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import MsgspecError

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
from cdc.decode.debezium_envelope import DECODER, Envelope, read_key
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
_read: Final = DECODER.decode


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


class Record:
    """One record. `xid` and `order` (from 1) place it in its transaction; of an END `position` is the log's position
    after the commit and `count` how many records there were. `after`: what committed up to there came before.
    """

    # written out: it is made for every record, and what `dataclass` generates is not compiled
    __slots__ = (
        "after",
        "change",
        "commit_time",
        "count",
        "kind",
        "message",
        "order",
        "origin",
        "position",
        "xid",
    )

    def __init__(
        self,
        kind: Kind,
        *,
        xid: int = 0,
        order: int = 0,
        position: Lsn = _START,
        count: int = 0,
        commit_time: datetime = _EPOCH,
        after: Lsn | None = None,
        change: Change | None = None,
        message: LogMessage | None = None,
        origin: str | None = None,
    ) -> None:
        self.kind = kind
        self.xid = xid
        self.order = order
        self.position = position
        self.count = count
        self.commit_time = commit_time
        self.after = after
        self.change = change
        self.message = message
        self.origin = origin


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

    def row(self, said: dict[str, Any]) -> Row:
        values: list[Value] = []
        for place in range(len(self.names)):  # compiled, an index is faster than zip
            value = said[self.names[place]]
            values.append(None if value is None else self.converters[place](value))
        return tuple(values)

    def updated(self, said: dict[str, Any], older: Row | None = None) -> Row:
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

    def key_row(self, said: dict[str, Any]) -> Row:
        """The key's columns, all others NULL: what the log says of an old row under the default identity."""
        return tuple(
            [
                None if name not in self.key or (value := said.get(name)) is None else convert(value)
                for name, convert in zip(self.names, self.converters, strict=True)
            ]
        )


class Decoder:
    """Knows the tables (`learn`) and reads records of them. Rows of other tables count and say nothing.

    `halves`: the two halves of an update that changed the key lie in different partitions, so they are a deletion and
    an insertion; large values that the update left alone are UNCHANGED in the inserted row.
    """

    def __init__(
        self,
        tables: Mapping[TableName, Table],
        modes: Modes = Modes(),  # noqa: B008  (frozen)
        *,
        halves: bool = False,
    ) -> None:
        self._modes = modes
        self._halves = halves
        self._left: tuple[TableName, Row] | None = None  # the whole old row of a key change that has begun
        self._tables: dict[TableName, Table] = dict(tables)
        self._by_name = {(name.schema, name.name): name for name in tables}
        self._readers: dict[TableName, _Reader] = {}
        self._times: tuple[int, datetime] = (0, _EPOCH)
        self._before: tuple[str, Lsn | None] = ("", None)

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
            said = _read(value)
            if said.payload is not None:
                said = said.payload
            op = said.op
            if op is None:
                return self._boundary(said)
            return self._event(op, key, said, headers)
        except (MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DebeziumError(f"not a record of Debezium's: {value[:300]!r} ({error})") from error

    def _boundary(self, said: Envelope) -> Record:
        status = said.status
        if status is None:
            return NOTHING  # a heartbeat
        if said.id is None:
            raise ValueError("it has no id")
        xid, _, position = said.id.partition(":")
        if status == "BEGIN":
            return Record(Kind.BEGIN, xid=int(xid))
        if said.event_count is None or said.ts_ms is None:
            raise ValueError("it has no event_count or ts_ms")
        return Record(
            Kind.END,
            xid=int(xid),
            position=Lsn(int(position)),
            count=said.event_count,
            commit_time=self._time(said.ts_ms * 1000),
        )

    def _event(
        self, op: str, key: bytes | None, said: Envelope, headers: Sequence[tuple[str, bytes]]
    ) -> Record:
        source, within = said.source, said.transaction
        if source is None:
            raise ValueError("it has no source")
        micro = source.ts_us
        record = Record(
            Kind.OTHER,
            position=Lsn(source.lsn or 0),
            commit_time=self._time(source.ts_ms * 1000 if micro is None else micro),
            origin=source.origin,
        )
        if within is not None:
            place = within.id
            record.xid, record.order = int(place[: place.index(":")]), within.total_order
            record.after = self._committed_before(source.sequence)
        if op == "m":
            message = said.message
            if within is None:
                return NOTHING  # written outside of any transaction: says nothing about rows
            if message is None:
                raise ValueError("it has no message")
            record.message = LogMessage(message.prefix, _content(message.content, self._modes))
            return record
        table = self._by_name.get((source.schema or "", source.table or ""))
        if table is None:
            return record if within is not None else NOTHING
        if op == "t":
            record.kind = Kind.CHANGE
            record.change = Change(Operation.TRUNCATE, self._relation(table))
            return record
        marks = dict(headers) if headers else {}
        before = said.before
        if op == "d" and "__debezium.newkey" in marks and before is not None and not self._halves:
            reader = self._reader(table, before)
            whole = reader.relation.identity is Identity.FULL
            self._left = (table, reader.row(before)) if whole else None
            record.kind = Kind.MOVED_AWAY
            return record
        record.kind = Kind.SNAPSHOT if op == "r" else Kind.CHANGE
        record.change = self._change(op, table, key, said, marks)
        return record

    def _committed_before(self, sequence: str | None) -> Lsn | None:
        """The first of the two positions in `["1", "2"]`: the last commit before. Every record of a transaction has
        the same.
        """
        if not sequence:
            return None
        head = sequence[: sequence.find(",")]
        if self._before[0] != head:
            before = json.loads(sequence)[0]
            self._before = (head, Lsn(int(before)) if before else None)
        return self._before[1]

    def _change(  # noqa: PLR0911  (one arm a kind of change)
        self,
        op: str,
        table: TableName,
        key: bytes | None,
        said: Envelope,
        marks: Mapping[str, bytes],
    ) -> Change:
        after, before = said.after, said.before
        row = after if after is not None else before
        if row is None:
            raise ValueError("it has no row")
        reader = self._reader(table, row)
        whole = reader.relation.identity is Identity.FULL
        if after is not None and op == "u":
            if not whole or before is None:
                return Change(Operation.UPDATE, reader.relation, None, reader.updated(after))
            old_row = reader.row(before)
            return Change(Operation.UPDATE, reader.relation, old_row, reader.updated(after, old_row))
        if after is not None and op in ("c", "r"):
            moved = marks.get("__debezium.oldkey")
            if moved is None:
                return Change(Operation.INSERT, reader.relation, None, reader.row(after))
            if self._halves:
                return Change(Operation.INSERT, reader.relation, None, reader.updated(after))
            left, self._left = self._left, None
            if left is not None and left[0] == table and len(left[1]) == len(reader.names):
                return Change(Operation.UPDATE, reader.relation, left[1], reader.updated(after, left[1]))
            old_key = reader.key_row(read_key(moved))
            return Change(Operation.UPDATE, reader.relation, old_key, reader.updated(after))
        if before is not None and op == "d":
            if whole:
                return Change(Operation.DELETE, reader.relation, reader.row(before), None)
            # of `before` only the key is true: a NOT NULL column shows its default there
            names = before if key is None else read_key(key)
            return Change(Operation.DELETE, reader.relation, reader.key_row(names), None)
        raise DebeziumError(f"operation {op!r} of table {table} is unknown, or lacks its row")

    def _relation(self, table: TableName) -> Relation:
        reader = self._readers.get(table)
        return reader.relation if reader is not None else self._tables[table].relation

    def _reader(self, table: TableName, row: dict[str, Any]) -> _Reader:
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
