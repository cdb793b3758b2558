"""The schemas of Kafka Connect's JSON converter, `{"schema": …, "payload": …}` (`schemas.enable=true`). Pure.

As Debezium 3.6 makes them with the settings of `cdc.connect`. `Schemas` is built once for some tables from what the
source's catalogue says of them (`SchemaColumn`), and wraps the records of `cdc.encode.debezium`. Only types and
defaults that the engine's own records were compared with (`tests/contract/test_cdc_conformance.py`) have a schema here;
others raise SchemaError with the column's name, so that no schema is ever a guess.

Debezium's own quirks are kept: a default that calls a function shows as that of an empty value (0, "", the epoch), and
some types show no default at all.

Sources: org.apache.kafka.connect.json.JsonSchema (the words), the connector itself (names, versions, optional fields).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from cdc.changes import Relation, TableName
from cdc.decode.debezium import Table
from cdc.decode.debezium_values import ColumnType
from cdc.encode.debezium_values import value_json

Schema = Mapping[str, Any]


class SchemaError(Exception):
    """A column has a type or a default whose schema is not known, or its table has changed since; says which."""


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """What a schema needs to know of a column. `default`: its expression as pg_get_expr prints it, in a session of
    TimeZone=UTC; `labels`: an enum's, in order; `domain`: the column's type is one.
    """

    name: str
    type: ColumnType
    not_null: bool
    default: str | None = None
    labels: tuple[str, ...] = ()
    domain: bool = False


_INT2, _INT4, _INT8, _FLOAT4, _FLOAT8, _BOOL = 21, 23, 20, 700, 701, 16
_TEXT, _BPCHAR, _VARCHAR, _NUMERIC, _UUID = 25, 1042, 1043, 1700, 2950
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _INTERVAL = 1082, 1083, 1114, 1184, 1186
_JSON, _JSONB, _BIT, _POINT = 114, 3802, 1560, 600

_TYPES: Final[Mapping[int, str]] = {
    _BOOL: "boolean",
    _INT2: "int16",
    _INT4: "int32",
    _INT8: "int64",
    26: "int64",
    _FLOAT4: "float",
    _FLOAT8: "double",
}
# bytea (as hex), "char", name, text, varchar, char, numeric, money, inet, cidr, macaddr, macaddr8, and what Debezium
# does not know (tsquery, pg_lsn, jsonpath, xid8, int4multirange: their bytes, as hex)
_STRINGS: Final = frozenset(
    {17, 18, 19, _TEXT, _VARCHAR, _BPCHAR, _NUMERIC, 790, 869, 650, 829, 774, 3615, 3220, 4072, 5069, 4451}
)
_RANGES: Final = frozenset({3904, 3906, 3910, 3912})
_NAMED: Final[Mapping[int, tuple[str, str]]] = {
    _TIMESTAMPTZ: ("string", "io.debezium.time.ZonedTimestamp"),
    _DATE: ("int32", "io.debezium.time.Date"),
    _INTERVAL: ("string", "io.debezium.time.Interval"),
    _JSON: ("string", "io.debezium.data.Json"),
    _JSONB: ("string", "io.debezium.data.Json"),
    _UUID: ("string", "io.debezium.data.Uuid"),
    3614: ("string", "io.debezium.data.Tsvector"),
}
_ELEMENTS: Final = frozenset(
    {_INT2, _INT4, _INT8, _TEXT, _VARCHAR, _BPCHAR, _BOOL, _FLOAT4, _FLOAT8, _TIMESTAMP, _TIMESTAMPTZ, _DATE}
    | {_TIME, _UUID, _JSONB, 17, 869, 26, 3904}
)
_WITHOUT_DEFAULT: Final = frozenset({790, 869, 17, 3904, 26, _POINT, 3614, 19})
"""Types whose defaults Debezium does not read: money, inet, bytea, ranges, oid, point, tsvector, name."""
_OF_CALLS: Final[Mapping[int, Any]] = {
    _INT4: 0,
    _INT8: 0,
    _TEXT: "",
    _TIMESTAMP: 0,
    _TIMESTAMPTZ: "1970-01-01T00:00:00.000000Z",
    _DATE: 0,
    _UUID: "00000000-0000-0000-0000-000000000000",
}
"""What Debezium shows for a default that calls a function."""
_CALL: Final = re.compile(r"[a-z_.]+\(.*\)|CURRENT_TIMESTAMP|CURRENT_DATE")
_LITERAL: Final = re.compile(r"'((?:[^'\\]|'')*)'::[a-z_\". ]+(?:\([\d,]+\))?(?: [a-z ]+)?")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]+")


def _of(type_: str, *, optional: bool, **more: Any) -> dict[str, Any]:
    return {"type": type_, "optional": optional} | more


def _field(name: str, schema: Schema) -> dict[str, Any]:
    return {**schema, "field": name}


def _struct(
    name: str, version: int | None, fields: Mapping[str, Schema], *, optional: bool
) -> dict[str, Any]:
    listed = [_field(each, schema) for each, schema in fields.items()]
    numbered = {} if version is None else {"version": version}
    return {"type": "struct", "fields": listed, "optional": optional, "name": name} | numbered


_WORD: Final = _of("string", optional=False)
_MAYBE_WORD: Final = _of("string", optional=True)
_LONG: Final = _of("int64", optional=False)
_MAYBE_LONG: Final = _of("int64", optional=True)

_SOURCE: Final = _struct(
    "io.debezium.connector.postgresql.Source",
    1,
    {
        "version": _WORD,
        "connector": _WORD,
        "name": _WORD,
        "ts_ms": _LONG,
        "snapshot": _of(
            "string",
            optional=True,
            name="io.debezium.data.Enum",
            version=1,
            parameters={
                "allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"
            },
            default="false",
        ),
        "db": _WORD,
        "sequence": _MAYBE_WORD,
        "ts_us": _MAYBE_LONG,
        "ts_ns": _MAYBE_LONG,
        "schema": _WORD,
        "table": _WORD,
        "txId": _MAYBE_LONG,
        "lsn": _MAYBE_LONG,
        "xmin": _MAYBE_LONG,
        "origin": _MAYBE_WORD,
        "origin_lsn": _MAYBE_LONG,
    },
    optional=False,
)
_BLOCK: Final = _struct(
    "event.block",
    1,
    {"id": _WORD, "total_order": _LONG, "data_collection_order": _LONG},
    optional=True,
)
_COLLECTION: Final = _struct(
    "event.collection", 1, {"data_collection": _WORD, "event_count": _LONG}, optional=True
)
_TRANSACTION_KEY: Final = _struct(
    "io.debezium.connector.common.TransactionMetadataKey", 1, {"id": _WORD}, optional=False
)
_TRANSACTION: Final = _struct(
    "io.debezium.connector.common.TransactionMetadataValue",
    1,
    {
        "status": _WORD,
        "id": _WORD,
        "event_count": _MAYBE_LONG,
        "data_collections": {"type": "array", "items": _COLLECTION, "optional": True},
        "ts_ms": _LONG,
    },
    optional=False,
)
_MESSAGE_KEY: Final = _struct(
    "io.debezium.connector.postgresql.MessageKey", 1, {"prefix": _MAYBE_WORD}, optional=False
)
_MESSAGE: Final = _struct(
    "io.debezium.connector.postgresql.MessageValue",
    1,
    {
        "op": _WORD,
        "ts_ms": _MAYBE_LONG,
        "source": _SOURCE,
        "transaction": _BLOCK,
        "message": _struct(
            "io.debezium.connector.postgresql.Message",
            1,
            {"prefix": _MAYBE_WORD, "content": _MAYBE_WORD},
            optional=False,
        ),
    },
    optional=False,
)
_HEARTBEAT_KEY: Final = _struct(
    "io.debezium.connector.common.ServerNameKey", 1, {"serverName": _WORD}, optional=False
)
_HEARTBEAT: Final = _struct("io.debezium.connector.common.Heartbeat", 1, {"ts_ms": _LONG}, optional=False)


class Schemas:
    """The schemas of one stream's topics. `columns` are those of `tables`, in any order; `keys` as the encoder's."""

    def __init__(
        self,
        *,
        prefix: str,
        tables: Mapping[TableName, Table],
        columns: Mapping[TableName, tuple[SchemaColumn, ...]],
        keys: Mapping[TableName, tuple[str, ...]],
    ) -> None:
        """Raises SchemaError for a column whose schema is not known."""
        self._relations = {name: table.relation for name, table in tables.items()}
        self._schemas: dict[str, tuple[Schema, Schema]] = {
            f"{prefix}.transaction": (_TRANSACTION_KEY, _TRANSACTION),
            f"{prefix}.message": (_MESSAGE_KEY, _MESSAGE),
            f"__debezium-heartbeat.{prefix}": (_HEARTBEAT_KEY, _HEARTBEAT),
        }
        for name, table in tables.items():
            topic = f"{prefix}.{name.schema}.{name.name}"
            if not _TOPIC.fullmatch(topic):
                raise SchemaError(
                    f"table {name}: Debezium would write it to a topic of another name than {topic}"
                )
            known = {column.name: column for column in columns[name]}
            fields = {each.name: column_schema(known[each.name], name) for each in table.relation.columns}
            self._schemas[topic] = _schemas_of(topic, fields, keys[name])

    def check(self, relation: Relation) -> None:
        """Raises SchemaError when the table is no longer what its schema says."""
        known, now = _types(self._relations[relation.table]), _types(relation)
        if known != now:
            changed = {name for name, *_ in {*known} ^ {*now}}
            raise SchemaError(
                f"table {relation.table}: {', '.join(sorted(changed)) or 'the order of its columns'} changed since its "
                "schema was read; start again"
            )

    def wrap_key(self, topic: str, key: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A key of this topic with its schema. That of a TRUNCATE, None, has none."""
        return None if key is None else {"schema": self._schemas[topic][0], "payload": key}

    def wrap_value(self, topic: str, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A value of this topic with its schema. A tombstone has none."""
        return None if value is None else {"schema": self._schemas[topic][1], "payload": value}


def _types(relation: Relation) -> tuple[tuple[str, int, int], ...]:
    # the log names a domain by what it is made of, the catalogue by itself; their OIDs are the same
    return tuple((each.name, each.type_oid, each.type_modifier) for each in relation.columns)


def _schemas_of(topic: str, fields: Mapping[str, Schema], key: tuple[str, ...]) -> tuple[Schema, Schema]:
    row = _struct(f"{topic}.Value", None, fields, optional=True)
    envelope = {
        "before": row,
        "after": row,
        "source": _SOURCE,
        "transaction": _BLOCK,
        "op": _WORD,
        "ts_ms": _MAYBE_LONG,
        "ts_us": _MAYBE_LONG,
        "ts_ns": _MAYBE_LONG,
    }
    of_key = _struct(f"{topic}.Key", None, {name: fields[name] for name in key}, optional=False)
    return of_key, _struct(f"{topic}.Envelope", 2, envelope, optional=False)


def column_schema(column: SchemaColumn, table: TableName) -> Schema:
    """The schema of one column's values. Raises SchemaError when it is not known."""
    where = f"column {table.name}.{column.name}"
    schema = _type_schema(column.type, column.labels, where) | {"optional": not column.not_null}
    default = _default(column, where)
    return schema if default is None else schema | {"default": default}


def _type_schema(  # noqa: PLR0911, PLR0912  (one arm a type)
    type_: ColumnType, labels: tuple[str, ...], where: str
) -> dict[str, Any]:
    if type_.element:
        if type_.element not in _ELEMENTS:
            raise _unknown(where, f"an array of type OID {type_.element}")
        element = replace(type_, oid=type_.element, element=0)
        return {"type": "array", "items": _type_schema(element, (), where), "optional": True}
    milli = type_.modifier in range(4)
    match type_.oid:
        case _ if labels:
            allowed = {"allowed": ",".join(labels)}
            return _of("string", optional=True, name="io.debezium.data.Enum", version=1, parameters=allowed)
        case oid if oid in _TYPES:
            return _of(_TYPES[oid], optional=True)
        case oid if oid in _STRINGS or oid in _RANGES:
            return _of("string", optional=True)
        case oid if oid in _NAMED:
            kind, name = _NAMED[oid]
            return _of(kind, optional=True, name=name, version=1)
        case 1114:
            name = "io.debezium.time.Timestamp" if milli else "io.debezium.time.MicroTimestamp"
            return _of("int64", optional=True, name=name, version=1)
        case 1083 if milli:
            return _of("int32", optional=True, name="io.debezium.time.Time", version=1)
        case 1083:
            return _of("int64", optional=True, name="io.debezium.time.MicroTime", version=1)
        case 1560 if type_.modifier == 1:
            return _of("boolean", optional=True)
        case 1560:
            length = {"length": str(type_.modifier)}
            return _of("bytes", optional=True, name="io.debezium.data.Bits", version=1, parameters=length)
        case 600:
            double = _of("double", optional=False)
            wkb, srid = _of("bytes", optional=True), _of("int32", optional=True)
            name = "io.debezium.data.geometry.Point"
            point = _struct(name, 1, {"x": double, "y": double, "wkb": wkb, "srid": srid}, optional=True)
            return point | {"doc": "Geometry (POINT)"}
        case oid:
            raise _unknown(where, f"of type OID {oid}")


def _default(column: SchemaColumn, where: str) -> Any:
    """None for none: Debezium shows no NULL as a default."""
    said, type_ = column.default, column.type
    if said is None or said.startswith("NULL::"):
        return None
    if column.domain or type_.element or type_.oid in _WITHOUT_DEFAULT:
        return None
    if _CALL.fullmatch(said) and type_.oid in _OF_CALLS and type_.modifier < 0:
        return _OF_CALLS[type_.oid]
    literal = _LITERAL.fullmatch(said)
    text = literal[1].replace("''", "'") if literal else said if _NUMBER.fullmatch(said) else None
    known: Any = None
    match type_.oid:
        case 16 if said in ("true", "false"):
            known = said == "true"
        case 20 | 21 | 23 if text is not None and re.fullmatch(r"-?\d+", text):
            known = int(text)
        case 700 | 701 if text is not None and _NUMBER.fullmatch(text):
            known = float(text)
        case 1700 if text is not None and _NUMBER.fullmatch(text):
            known = _scaled(text, type_.modifier)
        case 25 | 1042 | 1043 | 114 | 3802 | 2950 if literal:
            known = text
        case 1082 | 1083 | 1114 | 1184 | 1186 if literal and text and "infinity" not in text:
            known = value_json(text.encode(), type_)
        case _ if column.labels and literal:
            known = text
    if known is None:
        raise _unknown(where, f"with DEFAULT {said}")
    return known


def _scaled(text: str, modifier: int) -> str | None:
    """Digits as the column's scale has them; None when some would be lost."""
    if modifier < 0:
        return text
    places = Decimal(1).scaleb(-((modifier - 4) & 0x7FF))
    scaled = Decimal(text).quantize(places)
    return str(scaled) if scaled == Decimal(text) else None


def _unknown(where: str, what: str) -> SchemaError:
    return SchemaError(
        f"{where}: how Debezium's schema describes a column {what} is not known; leave schemas out"
    )
