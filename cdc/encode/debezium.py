"""Our transactions as the records that Debezium 3.6 would write of them: key, value, headers. Pure.

Made for people and programs that know Debezium's envelopes (`strangler cdc tail`), with the settings of `cdc.connect`;
with `schemas` each key and value comes in its wrapper (`cdc.encode.debezium_schemas`).
`tests/contract/test_cdc_conformance.py` holds them equal to the connector's own, but for what a `Transaction` does not
keep: the log position of each single row (all bear their commit's), where messages stood between changes, and the time
at which a process of Debezium's handled it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cdc.changes import Change, LogMessage, Lsn, Operation, Relation, Row, TableName, Transaction
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType
from cdc.encode.debezium_schemas import Schemas
from cdc.encode.debezium_values import value_json

VERSION: Final = "3.6.3.Final"
_LETTERS: Final = {
    Operation.INSERT: "c",
    Operation.UPDATE: "u",
    Operation.DELETE: "d",
    Operation.TRUNCATE: "t",
}


@dataclass(frozen=True, slots=True)
class Envelope:
    """One record. `value` None is a tombstone."""

    topic: str
    key: Mapping[str, Any] | None
    value: Mapping[str, Any] | None
    headers: Mapping[str, Any]


class Encoder:
    """Fed with transactions in commit order, pieces of large ones as they come. `prefix` is the topics' prefix;
    `tables` tells types below domains, `keys` the columns by which a row is named.
    """

    def __init__(
        self,
        *,
        prefix: str,
        database: str,
        tables: Mapping[TableName, Table],
        keys: Mapping[TableName, tuple[str, ...]],
        schemas: Schemas | None = None,
    ) -> None:
        self._prefix = prefix
        self._schemas = schemas
        self._database = database
        self._types = {
            name: {
                column.name: type_ for column, type_ in zip(table.relation.columns, table.types, strict=True)
            }
            for name, table in tables.items()
        }
        self._keys = keys
        self._last: Lsn | None = None
        self._open = False
        self._total = 0
        self._counts: dict[str, int] = {}

    def encode(self, transaction: Transaction, *, now: datetime) -> Iterator[Envelope]:
        """BEGIN, a record or more for each change and message, END. `now`: when the records are made. Raises ValueError
        for a value that its type cannot have, SchemaError for a table that changed since its schema was read.
        """
        return map(self._wrapped, self._records(transaction, now))

    def heartbeat(self, *, now: datetime) -> Envelope:
        """What says that the log has moved on without a change."""
        topic = f"__debezium-heartbeat.{self._prefix}"
        said = {"ts_ms": _microseconds(now) // 1000}
        return self._wrapped(Envelope(topic, {"serverName": self._prefix}, said, {}))

    def _wrapped(self, record: Envelope) -> Envelope:
        if self._schemas is None:
            return record
        topic, wrap_key = record.topic, self._schemas.wrap_key
        # the headers of a key change hold the other key
        headers = {name: wrap_key(topic, other) for name, other in record.headers.items()}
        return Envelope(
            topic, wrap_key(topic, record.key), self._schemas.wrap_value(topic, record.value), headers
        )

    def _records(self, transaction: Transaction, now: datetime) -> Iterator[Envelope]:
        name = f"{transaction.xid}:{int(transaction.position)}"
        if not self._open:
            self._open, self._total, self._counts = True, 0, {}
            yield self._boundary("BEGIN", name, transaction)
        for change in transaction.changes:
            yield from self._change(change, transaction, name, now)
        for message in transaction.messages:
            yield self._message(message, transaction, name, now)
        if not transaction.more:
            self._open, self._last = False, transaction.position
            yield self._boundary("END", name, transaction)

    def _change(
        self, change: Change, transaction: Transaction, name: str, now: datetime
    ) -> Iterator[Envelope]:
        table = change.relation.table
        if self._schemas is not None:
            self._schemas.check(change.relation)
        topic = f"{self._prefix}.{table.schema}.{table.name}"
        before, after = self._row(change.relation, change.before), self._row(change.relation, change.after)
        old, new = self._key(table, before), self._key(table, after)

        def record(letter: str, row: Any, next_: Any) -> Mapping[str, Any]:
            source = self._source(transaction, table)
            block = self._counted(f"{table.schema}.{table.name}", name)
            rows = {"before": row, "after": next_}
            return rows | {"source": source, "transaction": block, "op": letter} | _times(now, micro=True)

        if change.operation is Operation.UPDATE and old is not None and old != new:
            # a key change is a delete, a tombstone and an insert there
            away, here = {"__debezium.newkey": new}, {"__debezium.oldkey": old}
            yield Envelope(topic, old, record("d", before, None), away)
            yield Envelope(topic, old, None, away)
            yield Envelope(topic, new, record("c", None, after), here)
            return
        key = new if new is not None else old
        yield Envelope(topic, key, record(_LETTERS[change.operation], before, after), {})
        if change.operation is Operation.DELETE:
            yield Envelope(topic, key, None, {})

    def _message(self, message: LogMessage, transaction: Transaction, name: str, now: datetime) -> Envelope:
        value = {
            "op": "m",
            **_times(now, micro=False),
            "source": self._source(transaction, TableName("", "")),
            "transaction": self._counted("message", name),
            "message": {"prefix": message.prefix, "content": message.content.hex()},
        }
        return Envelope(f"{self._prefix}.message", {"prefix": message.prefix}, value, {})

    def _boundary(self, status: str, name: str, transaction: Transaction) -> Envelope:
        over = status == "END"
        counts = [{"data_collection": each, "event_count": count} for each, count in self._counts.items()]
        value = {
            "status": status,
            "id": name,
            "event_count": self._total if over else None,
            "data_collections": counts if over else None,
            "ts_ms": _microseconds(transaction.commit_time) // 1000,
        }
        return Envelope(f"{self._prefix}.transaction", {"id": name}, value, {})

    def _counted(self, collection: str, name: str) -> Mapping[str, Any]:
        self._total += 1
        self._counts[collection] = count = self._counts.get(collection, 0) + 1
        return {"id": name, "total_order": self._total, "data_collection_order": count}

    def _source(self, transaction: Transaction, table: TableName) -> Mapping[str, Any]:
        micros = _microseconds(transaction.commit_time)
        last = "null" if self._last is None else f'"{int(self._last)}"'
        return {
            "version": VERSION,
            "connector": "postgresql",
            "name": self._prefix,
            "ts_ms": micros // 1000,
            "snapshot": None,  # its default, "false", which the converter is told not to fill in
            "db": self._database,
            "sequence": f'[{last},"{int(transaction.position)}"]',
            "ts_us": micros,
            "ts_ns": micros * 1000,
            "schema": table.schema,
            "table": table.name,
            "txId": transaction.xid,
            "lsn": int(transaction.position),
            "xmin": None,
            "origin": transaction.origin,
            "origin_lsn": None,
        }

    def _row(self, relation: Relation, row: Row | None) -> dict[str, Any] | None:
        if row is None:
            return None
        types = self._types[relation.table]
        return {
            column.name: value_json(
                value, types.get(column.name, ColumnType(column.type_oid, column.type_modifier))
            )
            for column, value in zip(relation.columns, row, strict=True)
        }

    def _key(self, table: TableName, row: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if row is None else {name: row.get(name) for name in self._keys[table]}


def _times(now: datetime, *, micro: bool) -> dict[str, int]:
    micros = _microseconds(now)
    return {"ts_ms": micros // 1000} | ({"ts_us": micros, "ts_ns": micros * 1000} if micro else {})


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
