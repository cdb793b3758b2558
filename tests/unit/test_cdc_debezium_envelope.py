"""Records as Debezium writes them, with and without a schema, and what is none."""

import json
from typing import Any

import pytest

from cdc.changes import Change, Identity, Lsn, Operation, Relation, RelationColumn, TableName
from cdc.decode.debezium import Decoder, Kind, Record, Table
from cdc.decode.debezium_values import ColumnType, DebeziumError

_TABLE = TableName("public", "item")
_INT8, _TEXT = 20, 25
_RELATION = Relation(
    _TABLE, (RelationColumn("id", _INT8, key=True), RelationColumn("payload", _TEXT)), Identity.DEFAULT
)


def decoder() -> Decoder:
    return Decoder({_TABLE: Table(_RELATION, (ColumnType(_INT8), ColumnType(_TEXT)))})


def record(**said: Any) -> dict[str, Any]:
    source = {"version": "3.6", "schema": "public", "table": "item", "ts_ms": 1, "ts_us": 1_000, "xmin": None}
    source |= {"lsn": 500, "sequence": '["400","500"]', "origin": None}
    within = {"id": "7:500", "total_order": 3, "data_collection_order": 1}
    return {"before": None, "after": None, "source": source, "transaction": within, "op": "u"} | said


def decode(said: object, key: object = None, *, wrapped: bool = False) -> Record:
    def written(value: object) -> bytes:
        return json.dumps({"schema": {"type": "struct"}, "payload": value} if wrapped else value).encode()

    return decoder().decode(None if key is None else written(key), written(said))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_schema_beside_the_record_changes_nothing(wrapped: bool) -> None:
    found = decode(record(after={"id": 1, "payload": "a"}), wrapped=wrapped)
    assert found.change == Change(Operation.UPDATE, _RELATION, None, (b"1", b"a"))
    assert (found.kind, found.xid, found.order, found.position, found.after) == (
        Kind.CHANGE, 7, 3, Lsn(500), Lsn(400),
    )  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_deletion_believes_its_key_alone(wrapped: bool) -> None:
    found = decode(record(op="d", before={"id": 0, "payload": ""}), {"id": 9}, wrapped=wrapped)
    assert found.change == Change(Operation.DELETE, _RELATION, (b"9", None), None)


def test_a_key_column_may_be_named_payload() -> None:
    before = {"id": 3, "payload": "x"}
    found = decode(record(op="d", before=before), {"payload": "x", "id": 3})
    assert found.change is not None
    assert found.change.before == (b"3", None)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_boundary_says_null_where_it_has_nothing_to_say(wrapped: bool) -> None:
    begin = {"status": "BEGIN", "id": "7:450", "event_count": None, "data_collections": None, "ts_ms": 5}
    assert decode(begin, wrapped=wrapped).kind is Kind.BEGIN
    end = decode(begin | {"status": "END", "id": "7:520", "event_count": 3}, wrapped=wrapped)
    assert (end.kind, end.xid, end.position, end.count) == (Kind.END, 7, Lsn(520), 3)


def test_the_commit_before_is_that_of_each_record() -> None:
    reader = decoder()
    row = {"id": 1, "payload": "a"}
    found = []
    for sequence in ('["400","500"]', '["400","510"]', '["520","530"]', '[null,"540"]', None):
        said = record(after=row)
        said["source"] |= {"sequence": sequence}
        found.append(reader.decode(None, json.dumps(said).encode()).after)
    assert found == [400, 400, 520, None, None]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([], id="no object"),
        pytest.param(record(op="u"), id="no row"),
        pytest.param(record(after={"id": 1, "payload": "a"}, source=None), id="no source"),
        pytest.param(record(after=[1]), id="a row that is a list"),
        pytest.param(record(op="m"), id="a message without one"),
        pytest.param(record(op="x", after={"id": 1, "payload": "a"}), id="an unknown operation"),
        pytest.param({"status": "END", "id": "7:1", "event_count": None, "ts_ms": 1}, id="an end without count"),
        pytest.param({"status": "END", "id": "7", "event_count": 1, "ts_ms": 1}, id="an end without position"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused_with_its_text(said: object) -> None:
    with pytest.raises(DebeziumError, match=r"not a record of Debezium's|is unknown"):
        decode(said)
    with pytest.raises(DebeziumError, match="not a record"):
        decoder().decode(None, b'{"op":')
