"""What of a record of Debezium's is read, as msgspec wants to know it. Everything else in the JSON is skipped: half of
a record without its schema, nine tenths of one with.

Not compiled: msgspec makes these classes, and what takes their attributes is.

https://debezium.io/documentation/reference/3.6/connectors/postgresql.html#postgresql-events
"""

from typing import Any

import msgspec


class Origin(msgspec.Struct, gc=False):
    """`source`: where in the log, and of which table. `sequence`: the last commit before, and the record itself."""

    ts_ms: int
    ts_us: int | None = None
    lsn: int | None = None
    sequence: str | None = None
    schema: str | None = None
    table: str | None = None
    origin: str | None = None


class Within(msgspec.Struct, gc=False):
    """`transaction`: which, and the record's number in it."""

    id: str
    total_order: int


class Message(msgspec.Struct, gc=False):
    """`message`, of pg_logical_emit_message."""

    prefix: str
    content: str


class Envelope(msgspec.Struct):
    """A record's value: a change (`op`), a transaction's begin or end (`status`), or a heartbeat (neither). Where a
    schema stands beside it, `payload` is the envelope.
    """

    op: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    source: Origin | None = None
    transaction: Within | None = None
    message: Message | None = None
    status: str | None = None
    id: str | None = None
    event_count: int | None = None
    ts_ms: int | None = None
    payload: "Envelope | None" = None


DECODER = msgspec.json.Decoder(Envelope)


def read_key(text: bytes) -> dict[str, Any]:
    """A record's key: column → value. Raises msgspec.MsgspecError."""
    key: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    # a column may be named `payload`, but hardly beside one named `schema`
    if "payload" in key and "schema" in key:
        wrapped: dict[str, Any] = msgspec.convert(key["payload"], dict[str, Any])
        return wrapped
    return key
