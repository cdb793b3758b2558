"""The wire messages of PostgreSQL's output plugin `pgoutput`, protocol version 1, text values.

`decode` turns the payload of one XLogData message into one value; `cdc.decode.pgoutput_encoder` is its
inverse and `cdc.decode.transactions` puts the values together. Source: PostgreSQL 16 manual, "Logical
Replication Message Formats". Version 1 sends a transaction only after its commit, so what was rolled back
is never seen.
"""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cdc.changes import UNCHANGED, Identity, Lsn, Row, Value


class DecodeError(Exception):
    """The bytes are not a pgoutput message of protocol version 1."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction starts; `final_position` is where its commit record starts."""

    final_position: Lsn
    commit_time: datetime
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction ends; `position` is where its commit record starts, `end_position` just after it."""

    position: Lsn
    end_position: Lsn
    commit_time: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction was applied by a replication origin, not by a local client."""

    position: Lsn
    name: str


@dataclass(frozen=True, slots=True)
class TypeName:
    """Name of a type that is not built in."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class WireColumn:
    """A column in a `RelationMessage`."""

    key: bool
    name: str
    type_oid: int
    type_modifier: int


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """Describes a table before its first change and after each change of its definition."""

    oid: int
    schema: str
    name: str
    identity: Identity
    columns: tuple[WireColumn, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row of table `oid`."""

    oid: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row. `old` is None unless the key changed (key columns only) or the identity is FULL
    (`full`).
    """

    oid: int
    new: Row
    old: Row | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """A removed row: its key columns, or the whole row when the identity is FULL (`full`)."""

    oid: int
    old: Row
    full: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied together."""

    oids: tuple[int, ...]
    cascade: bool = False
    restart_identity: bool = False


@dataclass(frozen=True, slots=True)
class Emitted:
    """A message written with `pg_logical_emit_message`."""

    transactional: bool
    position: Lsn
    prefix: str
    content: bytes


Message = Begin | Commit | Origin | TypeName | RelationMessage | Insert | Update | Delete | Truncate | Emitted

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
IDENTITIES = {
    ord("d"): Identity.DEFAULT,
    ord("n"): Identity.NOTHING,
    ord("f"): Identity.FULL,
    ord("i"): Identity.INDEX,
}

BEGIN = struct.Struct(">QqI")
"""The body of a begin message: position of its commit record, time, transaction id."""
_COMMIT = struct.Struct(">BQQq")
_TRUNCATE = struct.Struct(">IB")
_EMITTED = struct.Struct(">BQ")
_COLUMN = struct.Struct(">Ii")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


def decode(payload: bytes) -> Message:
    """The message in `payload`. Raises DecodeError for anything that is not exactly one known message."""
    try:
        message, end = _decode(payload)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise DecodeError(f"truncated or malformed pgoutput message {payload[:40]!r}: {error}") from error
    if end != len(payload):
        raise DecodeError(f"pgoutput message {payload[:1]!r} is {len(payload)} bytes long, expected {end}")
    return message


def read_row(payload: bytes, at: int) -> Row:
    """The row that fills `payload` from `at` to its end. Raises DecodeError."""
    try:
        row, end = _row(payload, at)
    except (struct.error, IndexError) as error:
        raise DecodeError(f"truncated or malformed row {payload[at : at + 40]!r}: {error}") from error
    if end != len(payload):
        raise DecodeError(f"a row ends at byte {end} of a message of {len(payload)}")
    return row


def _decode(payload: bytes) -> tuple[Message, int]:  # noqa: PLR0911  (one arm a message)
    match payload[0:1]:
        case b"I":
            (oid,) = _U32.unpack_from(payload, 1)
            _expect(payload, at=5, kind=b"N")
            new, at = _row(payload, 6)
            return Insert(oid, new), at
        case b"U":
            return _update(payload)
        case b"D":
            (oid,) = _U32.unpack_from(payload, 1)
            kind = _expect(payload, at=5, kind=b"KO")
            old, at = _row(payload, 6)
            return Delete(oid, old, full=kind == ord("O")), at
        case b"B":
            final, moment, xid = BEGIN.unpack_from(payload, 1)
            return Begin(Lsn(final), time_of(moment), xid), 21
        case b"C":
            _, position, end, moment = _COMMIT.unpack_from(payload, 1)
            return Commit(Lsn(position), Lsn(end), time_of(moment)), 26
        case b"R":
            return _relation(payload)
        case b"Y":
            (oid,) = _U32.unpack_from(payload, 1)
            schema, at = _text(payload, 5)
            name, at = _text(payload, at)
            return TypeName(oid, schema, name), at
        case b"O":
            (position,) = _U64.unpack_from(payload, 1)
            name, at = _text(payload, 9)
            return Origin(Lsn(position), name), at
        case b"T":
            count, options = _TRUNCATE.unpack_from(payload, 1)
            end = 6 + 4 * count
            if end > len(payload):
                raise IndexError(f"{count} tables do not fit")
            oids = struct.unpack_from(f">{count}I", payload, 6)
            return Truncate(oids, cascade=bool(options & 1), restart_identity=bool(options & 2)), end
        case b"M":
            flags, position = _EMITTED.unpack_from(payload, 1)
            prefix, at = _text(payload, 10)
            (size,) = _U32.unpack_from(payload, at)
            at += 4
            content = payload[at : at + size]
            return Emitted(bool(flags & 1), Lsn(position), prefix, content), at + size
        case other:
            raise DecodeError(
                f"unknown pgoutput message {other!r}; the stream must be started with proto_version '1'"
            )


def _update(payload: bytes) -> tuple[Update, int]:
    (oid,) = _U32.unpack_from(payload, 1)
    kind = _expect(payload, at=5, kind=b"KON")
    old: Row | None = None
    at = 6
    if kind != ord("N"):
        old, at = _row(payload, at)
        _expect(payload, at=at, kind=b"N")
        at += 1
    new, at = _row(payload, at)
    return Update(oid, new, old, full=kind == ord("O")), at


def _relation(payload: bytes) -> tuple[RelationMessage, int]:
    (oid,) = _U32.unpack_from(payload, 1)
    schema, at = _text(payload, 5)
    name, at = _text(payload, at)
    identity = IDENTITIES.get(payload[at])
    if identity is None:
        raise DecodeError(f"unknown replica identity {payload[at : at + 1]!r} of table {schema}.{name}")
    (count,) = _U16.unpack_from(payload, at + 1)
    at += 3
    columns: list[WireColumn] = []
    for _ in range(count):
        flags = payload[at]
        column, at = _text(payload, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(payload, at)
        at += 8
        columns.append(WireColumn(bool(flags & 1), column, type_oid, modifier))
    # an empty schema name stands for pg_catalog on the wire
    return RelationMessage(oid, schema or "pg_catalog", name, identity, tuple(columns)), at


def u32(payload: bytes, at: int) -> int:
    """Four bytes, big-endian. Raises IndexError."""
    return (payload[at] << 24) | (payload[at + 1] << 16) | (payload[at + 2] << 8) | payload[at + 3]


def _row(payload: bytes, at: int) -> tuple[Row, int]:
    # The hot path: compiled, index arithmetic is three times as fast as struct. A slice that runs past the end is
    # caught by the length check of the caller.
    count = (payload[at] << 8) | payload[at + 1]
    at += 2
    values: list[Value] = []
    for _ in range(count):
        kind = payload[at]
        if kind == 0x74:  # 't': text
            start = at + 5
            at = start + (
                (payload[at + 1] << 24) | (payload[at + 2] << 16) | (payload[at + 3] << 8) | payload[at + 4]
            )
            values.append(payload[start:at])
        elif kind == 0x6E:  # 'n': NULL
            values.append(None)
            at += 1
        elif kind == 0x75:  # 'u': unchanged TOAST value
            values.append(UNCHANGED)
            at += 1
        else:
            raise DecodeError(
                f"unknown kind of column value {bytes([kind])!r}; the stream must not be binary"
            )
    return tuple(values), at


def _text(payload: bytes, at: int) -> tuple[str, int]:
    end = payload.index(0, at)
    return payload[at:end].decode("utf-8"), end + 1


def _expect(payload: bytes, *, at: int, kind: bytes) -> int:
    if payload[at] not in kind:
        raise DecodeError(f"expected one of {kind!r} at byte {at} of {payload[:40]!r}")
    return payload[at]


def time_of(microseconds: int) -> datetime:
    """The moment that is so many microseconds after the epoch of PostgreSQL."""
    return EPOCH + timedelta(microseconds=microseconds)
