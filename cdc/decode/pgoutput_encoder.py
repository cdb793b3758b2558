"""The inverse of `cdc.decode.pgoutput.decode`: messages as PostgreSQL would send them.

Used by tests and by anyone who wants to play a recorded or invented log. `decode(encode(m)) == m` for every
message.
"""

import struct
from datetime import datetime, timedelta

from cdc.changes import Row, Unchanged
from cdc.decode.pgoutput import (
    EPOCH,
    IDENTITIES,
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    Origin,
    RelationMessage,
    Truncate,
    TypeName,
    Update,
)

_WIRE_IDENTITY = {identity: bytes([code]) for code, identity in IDENTITIES.items()}


def encode(message: Message) -> bytes:  # noqa: PLR0911  (one arm a message)
    """The payload of one XLogData message."""
    match message:
        case Begin(final, moment, xid):
            return b"B" + struct.pack(">QqI", final, _microseconds(moment), xid)
        case Commit(position, end, moment):
            return b"C" + struct.pack(">BQQq", 0, position, end, _microseconds(moment))
        case Origin(position, name):
            return b"O" + struct.pack(">Q", position) + _text(name)
        case TypeName(oid, schema, name):
            return b"Y" + struct.pack(">I", oid) + _text(schema) + _text(name)
        case RelationMessage():
            return _relation(message)
        case Insert(oid, new):
            return b"I" + struct.pack(">I", oid) + b"N" + _row(new)
        case Update(oid, new, None):
            return b"U" + struct.pack(">I", oid) + b"N" + _row(new)
        case Update(oid, new, old, full):
            assert old is not None
            return b"U" + struct.pack(">I", oid) + (b"O" if full else b"K") + _row(old) + b"N" + _row(new)
        case Delete(oid, old, full):
            return b"D" + struct.pack(">I", oid) + (b"O" if full else b"K") + _row(old)
        case Truncate(oids, cascade, restart):
            options = int(cascade) | int(restart) << 1
            return b"T" + struct.pack(f">IB{len(oids)}I", len(oids), options, *oids)
        case Emitted(transactional, position, prefix, content):
            head = struct.pack(">BQ", int(transactional), position)
            return b"M" + head + _text(prefix) + struct.pack(">I", len(content)) + content


def _relation(message: RelationMessage) -> bytes:
    schema = "" if message.schema == "pg_catalog" else message.schema
    parts = [b"R", struct.pack(">I", message.oid), _text(schema), _text(message.name)]
    parts += [_WIRE_IDENTITY[message.identity], struct.pack(">H", len(message.columns))]
    for column in message.columns:
        parts += [
            bytes([int(column.key)]),
            _text(column.name),
            struct.pack(">Ii", column.type_oid, column.type_modifier),
        ]
    return b"".join(parts)


def _row(row: Row) -> bytes:
    parts = [struct.pack(">H", len(row))]
    for value in row:
        match value:
            case None:
                parts.append(b"n")
            case Unchanged():
                parts.append(b"u")
            case _:
                parts.append(b"t" + struct.pack(">I", len(value)) + value)
    return b"".join(parts)


def _text(text: str) -> bytes:
    return text.encode("utf-8") + b"\0"


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
