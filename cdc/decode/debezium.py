"""Debezium's JSON for PostgreSQL, record by record. Pure: bytes in, one `Record` out.

Values become text that PostgreSQL reads (not always the very text it prints: `2024-02-29T10:34:56Z`), for the
encodings that `cdc.connect.connector_config` asks for: decimals and intervals as strings, times as numbers by their
precision (`adaptive`), bytes as hex. Records without schemas do not tell types, so the decoder is told the table's
columns as the source's catalogue has them; with schemas, the payload is taken out of its wrapper and the types are
the catalogue's as well.

What Debezium 3.6 itself loses cannot be restored, and is refused where it shows: arrays of several dimensions and of
intervals. It does not show for the zone of `timetz` and leading zeros of `bit varying`.

Encodings: https://debezium.io/documentation/reference/3.6/connectors/postgresql.html#postgresql-data-types, and
recordings of the connector itself (tests/contract/test_cdc_conformance.py).
"""

import base64
from collections.abc import Callable, Mapping, Sequence
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

UNAVAILABLE: Final = "__debezium_unavailable_value"
_UNAVAILABLE_HEX: Final = UNAVAILABLE.encode().hex()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START: Final = Lsn(0)


class DebeziumError(Exception):
    """A record is not what Debezium writes, or holds a value that Debezium has damaged; the message says which."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type without its domains: OID and modifier of what it is made of. `element`: what an array holds."""

    oid: int
    modifier: int = -1
    element: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A source table: as the log would describe it, and what its columns are made of, in the same order."""

    relation: Relation
    types: tuple[ColumnType, ...]


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


Convert = Callable[[Any], Value]


@dataclass(frozen=True, slots=True)
class _Reader:
    """How rows with exactly these columns are read."""

    relation: Relation
    names: tuple[str, ...]
    converters: tuple[Convert, ...]
    key: frozenset[str]

    def row(self, said: Mapping[str, Any]) -> Row:
        return tuple(
            [
                None if (value := said[name]) is None else convert(value)
                for name, convert in zip(self.names, self.converters, strict=True)
            ]
        )

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

    def __init__(self, tables: Mapping[TableName, Table]) -> None:
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
        found = [types.get(name, (RelationColumn(name, _TEXT), ColumnType(_TEXT))) for name in error.columns]
        relation = Relation(
            known.relation.table, tuple(column for column, _ in found), known.relation.identity
        )
        self._readers[error.table] = _reader(Table(relation, tuple(type_ for _, type_ in found)))

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
                Kind.OTHER, message=LogMessage(message["prefix"], _content(message["content"])), **common
            )
        table = self._by_name.get((source["schema"], source["table"]))
        if table is None:
            return Record(Kind.OTHER, **common) if within is not None else NOTHING
        if op == "t":
            return Record(Kind.CHANGE, change=Change(Operation.TRUNCATE, self._relation(table)), **common)
        marks = dict(headers) if headers else {}
        if op == "d" and "__debezium.newkey" in marks:
            return Record(Kind.MOVED_AWAY, **common)
        change = self._change(op, table, key, said, marks)
        return Record(Kind.SNAPSHOT if op == "r" else Kind.CHANGE, change=change, **common)

    def _change(
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
                old = orjson.loads(moved)
                return Change(
                    Operation.UPDATE,
                    reader.relation,
                    reader.key_row(old.get("payload", old)),
                    reader.row(after),
                )
            case "u":
                new = reader.row(after)
                if not whole or before is None:
                    return Change(Operation.UPDATE, reader.relation, None, new)
                old_row = reader.row(before)
                filled = tuple(
                    held if value is UNCHANGED else value for value, held in zip(new, old_row, strict=True)
                )
                return Change(Operation.UPDATE, reader.relation, old_row, filled)
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
        reader = self._readers[table] = _reader(known)
        return reader

    def _time(self, microseconds: int) -> datetime:
        if self._times[0] != microseconds:
            self._times = (microseconds, _EPOCH + timedelta(microseconds=microseconds))
        return self._times[1]


def _reader(table: Table) -> _Reader:
    relation = table.relation
    return _Reader(
        relation,
        relation.names(),
        tuple(
            _converter(type_, f"column {relation.table}.{column.name}")
            for column, type_ in zip(relation.columns, table.types, strict=True)
        ),
        frozenset(column.name for column in relation.columns if column.key),
    )


def _content(text: str) -> bytes:
    return bytes.fromhex(text)


# Values

_BOOL, _BYTEA, _FLOAT4, _FLOAT8, _TEXT = 16, 17, 700, 701, 25
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _TIMETZ = 1082, 1083, 1114, 1184, 1266
_INTERVAL, _BIT, _VARBIT, _POINT = 1186, 1560, 1562, 600
_DAY = 86_400_000_000  # microseconds
# pgjdbc's infinities (org.postgresql.PGStatement, milliseconds), as Debezium carries them on
_INFINITE: Mapping[int, bytes] = {9223372036825200000: b"infinity", -9223372036832400000: b"-infinity"}
_INFINITE_MS: Mapping[int, bytes] = {9223372036825200: b"infinity", -9223372036832400: b"-infinity"}
_INFINITE_DAYS: Mapping[int, bytes] = {-2147472692: b"infinity", -622191234: b"infinity"}
_FIRST_DAY, _LAST_DAY = (
    -2_440_588,
    2_145_042_541,
)  # 4714-11-24 BC and 5874897-12-31, PostgreSQL's first and last


def _converter(type_: ColumnType, where: str) -> Convert:  # noqa: PLR0911  (one a type)
    if type_.element:
        return _array(_converter(ColumnType(type_.element, type_.modifier), where), type_.element, where)
    precise = type_.modifier not in range(4)  # up to milliseconds Debezium counts those
    match type_.oid:
        case 16:
            return lambda value: b"t" if value else b"f"
        case 17:
            return _bytea
        case 1082:
            return lambda value: _date(value, where)
        case 1083:
            return _clock if precise else (lambda value: _clock(value * 1000))
        case 1114:
            return _timestamp if precise else _timestamp_ms
        case 1184:
            return _timestamptz
        case 1560:
            width = type_.modifier
            return lambda value: _bits(value, width)
        case 1562:
            return lambda value: _bits(value, 0)
        case 600:
            return lambda value: f"({value['x']!r},{value['y']!r})".encode()
        case _:
            return _plain


def _plain(value: Any) -> Value:
    """Strings and numbers: PostgreSQL reads both as JSON writes them."""
    if isinstance(value, str):
        if value == UNAVAILABLE:
            return UNCHANGED
        return b"NaN" if value == "NAN" else value.encode()  # numeric's own NaN comes in Java's spelling
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode()
    raise DebeziumError(f"a value of a kind that Debezium does not write for such a column: {value!r}")


def _bytea(value: str) -> Value:
    return UNCHANGED if value == _UNAVAILABLE_HEX else b"\\x" + value.encode()


def _date(days: int, where: str) -> bytes:
    if not _FIRST_DAY <= days <= _LAST_DAY:
        infinite = _INFINITE_DAYS.get(days)
        if infinite is None:
            raise DebeziumError(f"{where}: day {days} is none that PostgreSQL has")
        return infinite
    return _dated(days)


def _dated(days: int, clock: bytes = b"") -> bytes:
    year, month, day = _civil(days)
    if year > 0:
        return b"%04d-%02d-%02d%b" % (year, month, day, clock)
    return b"%04d-%02d-%02d%b BC" % (1 - year, month, day, clock)


def _civil(days: int) -> tuple[int, int, int]:
    """Year (0 is 1 BC), month, day of a day counted from 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date
    Algorithms", civil_from_days.
    """
    era, rest = divmod(days + 719_468, 146_097)
    year = (rest - rest // 1460 + rest // 36_524 - rest // 146_096) // 365
    of_year = rest - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def _clock(microseconds: int) -> bytes:
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    text = b"%02d:%02d:%02d" % (*divmod(minutes, 60), second)
    return text + b".%06d" % fraction if fraction else text


def _timestamp(microseconds: int) -> bytes:
    infinite = _INFINITE.get(microseconds)
    if infinite is not None:
        return infinite
    days, clock = divmod(microseconds, _DAY)
    return _dated(days, b" " + _clock(clock))


def _timestamp_ms(milliseconds: int) -> bytes:
    infinite = _INFINITE_MS.get(milliseconds)
    return infinite if infinite is not None else _timestamp(milliseconds * 1000)


def _timestamptz(text: str) -> Value:
    if text[0] == "+":
        text = text[1:]  # years beyond 9999
    elif text[0] == "-" and text[1].isdigit():
        year, _, rest = text[1:].partition("-")  # ISO 8601 has a year 0, people have not
        return f"{int(year) + 1:04d}-{rest} BC".encode()
    return UNCHANGED if text == UNAVAILABLE else text.encode()


def _bits(value: Any, width: int) -> bytes:
    """`width` 0: as many as the number has, Debezium does not tell more."""
    if isinstance(value, bool):
        return b"1" if value else b"0"
    number = int.from_bytes(base64.b64decode(value), "little")
    return f"{number:0{width}b}".encode() if width or number else b""


_HEX_ARRAY = [UNAVAILABLE]


def _array(convert: Convert, element: int, where: str) -> Convert:
    if element == _INTERVAL:
        raise DebeziumError(
            f"{where}: Debezium leaves arrays of intervals out; map another column, or use source: slot"
        )

    def written(value: Any) -> Value:
        if value in (_HEX_ARRAY, UNAVAILABLE):
            return UNCHANGED
        parts: list[bytes] = []
        for each in value:
            if each is None:
                parts.append(b"NULL")
                continue
            if isinstance(each, str) and each.startswith("[L") and "@" in each:
                raise DebeziumError(
                    f"{where}: Debezium damages arrays of several dimensions; use source: slot"
                )
            text = convert(each)
            if not isinstance(text, bytes):
                return UNCHANGED
            parts.append(b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
        return b"{" + b",".join(parts) + b"}"

    return written
