"""From the JSON in which Debezium writes a value back to the text that PostgreSQL prints. Pure.

What the JSON looks like depends on the column's type and on four settings of the connector (`Modes`). `column` gives
the function for one column; `loss` tells beforehand why there is none: in some modes and for some types Debezium
writes less than was there, and a stream that goes on regardless would spoil the target quietly.

Refused, because something is lost whatever one does (each shown by `tests/contract/test_cdc_conformance.py`):

* `decimal.handling.mode=double` rounds; `precise` makes NaN and infinities of an unlimited numeric NULL
* `interval.handling.mode=numeric` counts a month as so many seconds
* `time.precision.mode=connect` cuts microseconds off; `nanoseconds` makes NULL of years before 1677 and after 2262
* timetz loses its zone, bit varying its length, arrays of many types (enums, intervals, numerics ...) everything,
  arrays of time their microseconds

Carried, with one uncertainty: for some types (`Column.blurred`) an update that left a large value alone shows NULL
instead of the placeholder, as if it had been set to NULL; such an update is refused when it comes, not the column.

Written otherwise but the same value: money without its sign and separators, geometric types with `.0`.

Refused when they come: a timestamp after the year 294247, most days before 1582-10-15 within an array
(`debezium_times`).

Not to be seen here, so a check of the table has to find it (`cdc.doctor.debezium`): arrays of several dimensions come
with NULL for each inner array, arrays with bounds of their own come without, days before Christ inside an array as
after, 24:00:00 inside an array as 00:00:00; with `isostring` 24:00:00 does so everywhere, with `precise` the NaN of a
limited numeric comes as NULL.

Sources: https://debezium.io/documentation/reference/3.6/connectors/postgresql.html#postgresql-data-types, the
connector itself.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from cdc.changes import UNCHANGED, Value
from cdc.decode.debezium_times import (
    in_array,
    read_clock,
    read_date,
    read_iso_date,
    read_iso_timestamp,
    read_iso_timestamptz,
    read_timestamp,
    read_timestamp_milli,
)
from cdc.decode.pgtext import float4_text, float8_text, interval_text, quoted_element, time_text

PLACEHOLDER: Final = "__debezium_unavailable_value"
"""What stands for an unchanged large value unless `unavailable.value.placeholder` says otherwise."""


class DebeziumError(Exception):
    """A record is not what Debezium writes, or holds a value that Debezium has damaged; the message says which."""


class Decimals(StrEnum):
    """`decimal.handling.mode`."""

    PRECISE = "precise"
    STRING = "string"
    DOUBLE = "double"


class Times(StrEnum):
    """`time.precision.mode`."""

    ADAPTIVE = "adaptive"
    ADAPTIVE_MICROSECONDS = "adaptive_time_microseconds"
    CONNECT = "connect"
    ISOSTRING = "isostring"
    MICROSECONDS = "microseconds"
    NANOSECONDS = "nanoseconds"


class Binaries(StrEnum):
    """`binary.handling.mode`."""

    BYTES = "bytes"
    BASE64 = "base64"
    BASE64_URL = "base64-url-safe"
    HEX = "hex"


class Intervals(StrEnum):
    """`interval.handling.mode`."""

    NUMERIC = "numeric"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Modes:
    """The settings that decide how values are written. The defaults are those of `cdc.connect`, not Debezium's."""

    decimals: Decimals = Decimals.STRING
    times: Times = Times.ADAPTIVE
    binaries: Binaries = Binaries.HEX
    intervals: Intervals = Intervals.STRING
    unknown: bool = True
    """`include.unknown.datatypes`: types that Debezium does not know come as bytes instead of not at all."""
    placeholder: str = PLACEHOLDER

    @classmethod
    def of(cls, config: Mapping[str, str]) -> Self:
        """As a connector's configuration sets them; what it leaves out is Debezium's default. Raises ValueError."""
        return cls(
            decimals=Decimals(config.get("decimal.handling.mode", Decimals.PRECISE)),
            times=Times(config.get("time.precision.mode", Times.ADAPTIVE)),
            binaries=Binaries(config.get("binary.handling.mode", Binaries.BYTES)),
            intervals=Intervals(config.get("interval.handling.mode", Intervals.NUMERIC)),
            unknown=config.get("include.unknown.datatypes", "false").lower() == "true",
            placeholder=config.get("unavailable.value.placeholder", PLACEHOLDER),
        )


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type without its domains: OID and modifier of what it is made of. `element`: what an array holds."""

    oid: int
    modifier: int = -1
    element: int = 0


Convert = Callable[[Any], Value]
"""JSON as read, never null, to PostgreSQL's text."""


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is read. `blurred`: in an update, null may mean "unchanged"."""

    convert: Convert
    blurred: bool = False


BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID, JSON = 16, 17, 19, 20, 21, 23, 25, 26, 114
CHAR, POINT, CIDR, FLOAT4, FLOAT8, MACADDR8, MONEY = 18, 600, 650, 700, 701, 774, 790
MACADDR, INET, BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ = (
    829,
    869,
    1042,
    1043,
    1082,
    1083,
    1114,
    1184,
)
INTERVAL, TIMETZ, BIT, VARBIT, NUMERIC, UUID_, TSVECTOR, JSONB = (
    1186,
    1266,
    1560,
    1562,
    1700,
    2950,
    3614,
    3802,
)
RANGES: Final = frozenset({3904, 3906, 3908, 3910, 3912, 3926})
FIRST_USER_TYPE: Final = 16384

_PLAIN = (
    frozenset(
        {NAME, INT8, INT2, INT4, TEXT, OID, JSON, CHAR, CIDR, MACADDR8, MACADDR, INET, BPCHAR, VARCHAR, UUID_}
    )
    | {TSVECTOR, JSONB}
    | RANGES
)
_KNOWN: Final = (
    _PLAIN
    | {BOOL, BYTEA, FLOAT4, FLOAT8, NUMERIC, MONEY, DATE, TIME, TIMESTAMP, TIMESTAMPTZ}
    | {
        INTERVAL,
        BIT,
        POINT,
    }
)
_ARRAYS: Final = frozenset(
    {
        BOOL,
        BYTEA,
        INT8,
        INT2,
        INT4,
        TEXT,
        OID,
        JSON,
        CIDR,
        FLOAT4,
        FLOAT8,
        INET,
        BPCHAR,
        VARCHAR,
        DATE,
        TIME,
        TIMESTAMP,
    }
    | {TIMESTAMPTZ, UUID_, JSONB}
    | RANGES
)
"""Elements of arrays that come whole."""
_MARKED_ARRAYS: Final = frozenset({INT8, INT4, TEXT, JSON, BPCHAR, VARCHAR, UUID_, JSONB})
"""Of those, the ones whose unchanged arrays bear a mark; bytea[] and date[] do in some modes."""
_LARGE_BITS: Final = 8_000  # below, a bit string is never stored out of line


def loss(type_: ColumnType, modes: Modes) -> str | None:  # noqa: PLR0911  (one arm a reason)
    """Why values of this type cannot be trusted in these modes; None when they can."""
    oid = type_.element or type_.oid
    if type_.element and oid not in _ARRAYS:
        return "Debezium does not carry arrays of this type whole"
    micro = type_.modifier not in range(4)
    match oid:
        case 1083 if type_.element and micro:
            return "Debezium cuts microseconds off times within arrays"
        case 1700 | 790 if modes.decimals is Decimals.DOUBLE:
            return "decimal.handling.mode=double rounds; set it to string"
        case 1700 if modes.decimals is Decimals.PRECISE and type_.modifier < 0:
            return "decimal.handling.mode=precise writes NaN and unchanged large values as NULL; set it to string"
        case 1186 if modes.intervals is Intervals.NUMERIC:
            return "interval.handling.mode=numeric counts months as days; set it to string"
        case 1083 | 1114 if micro and modes.times is Times.CONNECT:
            return "time.precision.mode=connect cuts microseconds off; set it to adaptive"
        case 1114 if modes.times is Times.NANOSECONDS:
            return "time.precision.mode=nanoseconds writes years before 1677 and after 2262 as NULL; set it to adaptive"
        case 1266:
            return "Debezium does not tell the zone of a timetz"
        case 1562:
            return "Debezium does not tell how long a bit varying is"
        case _ if not modes.unknown and (oid == NAME or oid not in _KNOWN) and oid < FIRST_USER_TYPE:
            return "Debezium leaves columns of this type out or NULL unless include.unknown.datatypes=true is set"
        case _:
            return None


def column(type_: ColumnType, modes: Modes, where: str) -> Column:
    """How a column of this type is read; `where` names it in errors. Raises DebeziumError when `loss` has a reason."""
    reason = loss(type_, modes)
    if reason is not None:
        raise DebeziumError(
            f"{where}: {reason}, leave the column out of the mapping, or read the log with source: slot"
        )
    if type_.element:
        match type_.element:
            case 17:
                marked = modes.binaries is Binaries.BYTES
            case 1082:
                marked = modes.times is not Times.ISOSTRING
            case element:
                marked = element in _MARKED_ARRAYS
        return Column(_array(type_, modes, where), blurred=not marked)
    if is_plain(type_.oid):
        return Column(_plain(modes.placeholder, where))
    unmarked = (type_.oid == BIT and type_.modifier > _LARGE_BITS) or (
        type_.oid == BYTEA and modes.binaries in (Binaries.BASE64, Binaries.BASE64_URL)
    )
    return Column(_guarded(_scalar(type_, modes), where), blurred=unmarked)


def _guarded(convert: Convert, where: str) -> Convert:
    def guarded(value: Any) -> Value:
        try:
            return convert(value)
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise DebeziumError(
                f"{where}: {value!r:.100} is no value that Debezium writes here ({error}); repair it, leave the column "
                "out of the mapping, or read the log with source: slot"
            ) from error

    return guarded


def _scalar(type_: ColumnType, modes: Modes) -> Convert:  # noqa: PLR0911, PLR0912  (one arm a type)
    mark = modes.placeholder
    milli = type_.modifier in range(4)
    adaptive = modes.times in (Times.ADAPTIVE, Times.ADAPTIVE_MICROSECONDS)
    match type_.oid:
        case 16:
            return lambda value: b"t" if value else b"f"
        case 17:
            return _bytes(modes)
        case 700:
            return lambda value: float4_text(float(value))
        case 701:
            return lambda value: float8_text(float(value))
        case 1700 | 790:
            return _decimal(type_, modes)
        case 1082:
            return read_iso_date if modes.times is Times.ISOSTRING else read_date
        case 1083:
            if modes.times is Times.ISOSTRING:
                return lambda value: read_clock(value.removesuffix("Z"))
            counts_milli = modes.times is Times.CONNECT or (milli and modes.times is Times.ADAPTIVE)
            unit = 1000 if counts_milli else 1
            return lambda value: time_text(
                value // 1000 if modes.times is Times.NANOSECONDS else value * unit
            )
        case 1114:
            if modes.times is Times.ISOSTRING:
                return read_iso_timestamp
            if modes.times is Times.CONNECT or (milli and adaptive):
                return read_timestamp_milli
            return read_timestamp
        case 1184:
            return lambda value: read_iso_timestamptz(value, mark)
        case 1186:
            return interval_text
        case 1560:
            width = max(type_.modifier, 1)
            return lambda value: _bits(value, width)
        case 600:
            return lambda value: b"(%b,%b)" % (float8_text(value["x"]), float8_text(value["y"]))
        case oid if is_plain(oid):
            return _plain(mark, "an element")
        case _:
            return _opaque(modes)


def is_plain(oid: int) -> bool:
    """Is the type written as text, or as a whole number?"""
    return oid in _PLAIN or oid >= FIRST_USER_TYPE


def _plain(mark: str, where: str) -> Convert:
    """Text and whole numbers: most columns, so no call more than needed."""

    def plain(value: Any) -> Value:
        if type(value) is str:
            return UNCHANGED if value == mark else value.encode()
        if type(value) is int:
            return b"%d" % value
        raise DebeziumError(f"{where}: {value!r:.100} is neither text nor a whole number")

    return plain


def _opaque(modes: Modes) -> Convert:
    """Types that Debezium does not know (`include.unknown.datatypes`): the bytes of their text."""
    read = read_bytes(modes.binaries)
    mark = modes.placeholder
    marks = {mark, base64.b64encode(mark.encode()).decode()}
    return lambda value: UNCHANGED if value in marks else read(value)


def _bytes(modes: Modes) -> Convert:
    read = read_bytes(modes.binaries)
    mark = modes.placeholder
    marks = {mark, base64.b64encode(mark.encode()).decode(), base64.urlsafe_b64encode(mark.encode()).decode()}
    return lambda value: UNCHANGED if value in marks else b"\\x" + read(value).hex().encode()


def read_bytes(mode: Binaries) -> Callable[[str], bytes]:
    """Reads what `binary.handling.mode` writes."""
    match mode:
        case Binaries.HEX:
            return bytes.fromhex
        case Binaries.BYTES | Binaries.BASE64:
            return lambda text: base64.b64decode(text, validate=True)
        case Binaries.BASE64_URL:
            return lambda text: base64.b64decode(text, altchars=b"-_", validate=True)


_JAVA_DECIMALS: Final = {"NAN": b"NaN", "POSITIVE_INFINITY": b"Infinity", "NEGATIVE_INFINITY": b"-Infinity"}


def _decimal(type_: ColumnType, modes: Modes) -> Convert:
    mark = modes.placeholder
    if modes.decimals is Decimals.STRING:
        return lambda value: UNCHANGED if value == mark else _JAVA_DECIMALS.get(value) or value.encode()
    # org.apache.kafka.connect.data.Decimal: the unscaled number, big-endian two's complement
    scale = 2 if type_.oid == MONEY else ((type_.modifier - 4) & 0x7FF ^ 0x400) - 0x400

    def exact(value: str) -> bytes:
        unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
        if scale <= 0:
            return b"%d" % (unscaled * 10**-scale)
        digits = f"{abs(unscaled):0{scale + 1}d}"
        return ("-" * (unscaled < 0) + digits[:-scale] + "." + digits[-scale:]).encode()

    return exact


def _bits(value: Any, width: int) -> bytes:
    if isinstance(value, bool):
        return b"1" if value else b"0"
    # io.debezium.data.Bits: little-endian, base64 whatever binary.handling.mode says
    text = f"{int.from_bytes(base64.b64decode(value, validate=True), 'little'):0{width}b}"
    if len(text) > width:
        raise ValueError(f"more than {width} bits")
    return text.encode()


# Arrays


def _array(type_: ColumnType, modes: Modes, where: str) -> Convert:
    element = ColumnType(type_.element, type_.modifier)
    convert = _scalar(element, modes)
    if element.oid in (DATE, TIMESTAMP, TIMESTAMPTZ):
        convert = in_array(convert, dated=element.oid == DATE)
    convert = _guarded(convert, where)
    marks = array_marks(type_.element, modes.placeholder)

    def written(value: Any) -> Value:
        if value in marks:
            return UNCHANGED
        if not isinstance(value, list):
            raise DebeziumError(f"{where}: {value!r:.100} is no array")
        parts: list[bytes] = []
        for each in value:
            if each is None:
                parts.append(b"NULL")
                continue
            if isinstance(each, list) or (isinstance(each, str) and each.startswith("[L") and "@" in each):
                raise DebeziumError(
                    f"{where}: Debezium damages arrays of several dimensions; use source: slot"
                )
            text = convert(each)
            if not isinstance(text, bytes):
                return UNCHANGED
            parts.append(quoted_element(text))
        return b"{" + b",".join(parts) + b"}"

    return written


def array_marks(element: int, mark: str) -> tuple[Any, ...]:
    """How an unchanged array shows: its element's encoding of the placeholder, if any."""
    text = mark.encode()
    match element:
        case 23 | 20 | 1082:
            return (list(text),)
        case 2950:
            digest = bytearray(
                hashlib.md5(text, usedforsecurity=False).digest()
            )  # java.util.UUID.nameUUIDFromBytes
            digest[6] = digest[6] & 0x0F | 0x30
            digest[8] = digest[8] & 0x3F | 0x80
            return ([str(UUID(bytes=bytes(digest)))],)
        case 17:
            return ([base64.b64encode(text).decode()], [base64.urlsafe_b64encode(text).decode()])
        case _:
            return ([mark], mark)
