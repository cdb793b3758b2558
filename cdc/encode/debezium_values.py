"""PostgreSQL's text as Debezium would write it with the settings of `cdc.connect`: the inverse of
`cdc.decode.debezium_values` for those (decimals and intervals as strings, adaptive times, bytes as hex). Pure.
"""

import base64
import re
import struct
from typing import Any, Final

from cdc.changes import Unchanged, Value
from cdc.decode.debezium_values import FIRST_USER_TYPE, PLACEHOLDER, ColumnType, array_marks, is_plain

_DAY: Final = 86_400_000_000
_DAYS: Final = {b"infinity": -2147472692, b"-infinity": -2147472691}
_MOMENTS: Final = {b"infinity": 9223372036825200000, b"-infinity": -9223372036832400000}
_MOMENTS_MILLI: Final = {b"infinity": 9223372036825200, b"-infinity": -9223372036832400}
_DECIMALS: Final = {"NaN": "NAN", "Infinity": "POSITIVE_INFINITY", "-Infinity": "NEGATIVE_INFINITY"}
_WHOLE: Final = frozenset({20, 21, 23, 26})
_MARKED: Final = frozenset({20, 23, 25, 114, 1042, 1043, 1082, 2950, 3802})


def value_json(value: Value, type_: ColumnType) -> Any:
    """The value as it stands in an envelope's row. Raises ValueError for text that is not of the type."""
    match value:
        case None:
            return None
        case Unchanged():
            return _placeholder(type_)
        case _ if type_.element:
            element = ColumnType(type_.element, type_.modifier)
            return [None if part is None else value_json(part, element) for part in array_elements(value)]
        case _:
            return _scalar(value, type_)


def _placeholder(type_: ColumnType) -> Any:
    if not type_.element:
        return PLACEHOLDER
    # other arrays show no mark there, and NULL
    return array_marks(type_.element, PLACEHOLDER)[0] if type_.element in _MARKED else None


def _scalar(value: bytes, type_: ColumnType) -> Any:  # noqa: PLR0911, PLR0912  (one arm a type)
    text = value.decode()
    milli = type_.modifier in range(4)
    match type_.oid:
        case 16:
            return value == b"t"
        case 17:
            return text.removeprefix("\\x")
        case oid if oid in _WHOLE:
            return int(text)
        case 700 | 701:
            return text if text in _DECIMALS else float(text)
        case 1700:
            return _DECIMALS.get(text, text)
        case 790:
            return re.sub(r"[$,]", "", text)
        case 1082:
            return _DAYS.get(value) if value in _DAYS else days_of(text)
        case 1083:
            return _time(text) // 1000 if milli else _time(text)
        case 1114 if value in _MOMENTS:
            return (_MOMENTS_MILLI if milli else _MOMENTS)[value]
        case 1114:
            date, _, rest = text.partition(" ")
            clock, _, era = rest.partition(" ")
            moment = days_of(f"{date} {era}".strip()) * _DAY + _time(clock)
            return moment // 1000 if milli else moment
        case 1184:
            return text if value in _MOMENTS else _timestamptz(text, type_.modifier)
        case 1186:
            return _interval(text)
        case 1560 if type_.modifier == 1:
            return value == b"1"
        case 1560:
            size = (len(text) + 7) // 8
            return base64.b64encode(int(text, 2).to_bytes(size, "little")).decode()
        case 600:
            x, y = map(float, text.strip("()").split(","))
            wkb = base64.b64encode(struct.pack("<BIdd", 1, 1, x, y)).decode()
            return {"x": x, "y": y, "wkb": wkb, "srid": None}
        case oid if is_plain(oid) or oid >= FIRST_USER_TYPE:
            return text
        case _:
            return value.hex()


def days_of(text: str) -> int:
    """Days since 1970-01-01 of `2024-02-29` or `0044-03-15 BC`. Howard Hinnant, "chrono-Compatible Low-Level Date
    Algorithms", days_from_civil.
    """
    date, _, era = text.partition(" ")
    year, month, day = map(int, date.split("-"))
    year = 1 - year if era == "BC" else year
    year -= month <= 2
    cycle, of_cycle = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return cycle * 146_097 + of_cycle * 365 + of_cycle // 4 - of_cycle // 100 + of_year - 719_468


def _time(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    whole, _, fraction = seconds.partition(".")
    return ((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1_000_000 + int(fraction.ljust(6, "0") or 0)


def _timestamptz(text: str, modifier: int) -> str:
    """The log is read with TimeZone=UTC, so the zone is +00."""
    date, _, rest = text.partition(" ")
    clock, _, era = rest.partition(" ")
    clock, zone, _ = clock.partition("+00")
    if not zone:
        raise ValueError(f"{text} is not in UTC")
    year, month, day = date.split("-")
    number = 1 - int(year) if era == "BC" else int(year)
    sign = "-" if number < 0 else "+" if number > 9999 else ""
    digits = 6 if modifier < 0 else modifier
    whole, _, fraction = clock.partition(".")
    shown = f"{whole}.{fraction.ljust(digits, '0')}" if digits else whole
    return f"{sign}{abs(number):04d}-{month}-{day}T{shown}Z"


_UNITS: Final = {"year": 0, "mon": 1, "day": 2}


def _interval(text: str) -> str:
    parts = [0, 0, 0]
    words = text.split()
    clock = words.pop() if ":" in words[-1] else "0:0:0"
    for number, unit in zip(words[::2], words[1::2], strict=True):
        parts[_UNITS[unit.removesuffix("s")]] = int(number)
    sign = -1 if clock.startswith("-") else 1
    hours, minutes, seconds = clock.lstrip("+-").split(":")
    whole, _, fraction = seconds.partition(".")
    negative = "-" if sign < 0 and (int(whole) or fraction.strip("0")) else ""
    second = f"{negative}{int(whole)}" + (f".{fraction.rstrip('0')}" if fraction.strip("0") else "")
    years, months, days = parts
    return f"P{years}Y{months}M{days}DT{sign * int(hours)}H{sign * int(minutes)}M{second}S"


def array_elements(value: bytes) -> list[bytes | None]:
    """The elements of an array of one dimension, as array_in reads them. Raises ValueError for several."""
    if value[:1] != b"{" or value[-1:] != b"}":
        raise ValueError(f"{value[:40]!r} is no array of one dimension that begins at 1")
    found: list[bytes | None] = []
    at = 1
    while value[at : at + 1] != b"}":
        part = bytearray()
        quoted = value[at : at + 1] == b'"'
        at += quoted
        while value[at : at + 1] not in ((b'"',) if quoted else (b",", b"}")):
            if value[at : at + 1] == b"{" and not quoted:
                raise ValueError("an array of several dimensions")
            at += value[at : at + 1] == b"\\"
            part += value[at : at + 1]
            at += 1
        at += quoted
        found.append(None if not quoted and part == b"NULL" else bytes(part))
        at += value[at : at + 1] == b","
    return found
