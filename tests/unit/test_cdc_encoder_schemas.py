"""Schemas of our envelopes: what is not known to be as Debezium writes it is refused by name."""

import pytest

from cdc.changes import Relation, RelationColumn, TableName
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType
from cdc.encode.debezium_schemas import SchemaColumn, SchemaError, Schemas, column_schema

TABLE = TableName("public", "item")


@pytest.mark.parametrize(
    ("type_", "default", "said"),
    [
        (ColumnType(1266), None, "column item.a: .* of type OID 1266"),
        (ColumnType(20_000), None, "of type OID 20000"),
        (ColumnType(1231, -1, 1700), None, "an array of type OID 1700"),
        (ColumnType(23), "(1 + 1)", r"with DEFAULT \(1 \+ 1\)"),
        (ColumnType(1114, 3), "now()", r"with DEFAULT now\(\)"),
        (ColumnType(1700, (10 << 16 | 2) + 4), "1.005", "with DEFAULT 1.005"),
        (ColumnType(1082), "'infinity'::date", "with DEFAULT 'infinity'::date"),
        (ColumnType(25), "(lower('A'::text) || 'b'::text)", "with DEFAULT"),
    ],
)
def test_what_is_not_known_is_refused(type_: ColumnType, default: str | None, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        column_schema(SchemaColumn("a", type_, not_null=False, default=default), TABLE)


def test_a_table_that_changed_is_refused() -> None:
    relation = Relation(TABLE, (RelationColumn("id", 23, key=True), RelationColumn("a", 25)))
    columns = tuple(
        SchemaColumn(each.name, ColumnType(each.type_oid), not_null=True) for each in relation.columns
    )
    table = Table(relation, tuple(each.type for each in columns))
    schemas = Schemas(prefix="p", tables={TABLE: table}, columns={TABLE: columns}, keys={TABLE: ("id",)})
    schemas.check(relation)
    wider = Relation(TABLE, (RelationColumn("id", 20, key=True), RelationColumn("a", 25)))
    with pytest.raises(SchemaError, match=r"table item: id changed since its schema was read; start again"):
        schemas.check(wider)
