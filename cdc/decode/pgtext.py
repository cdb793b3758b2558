"""The text in which PostgreSQL prints values, from numbers and ISO 8601. Pure.

Sources: PostgreSQL 16, src/backend/utils/adt: float8out and float4out (float.c), EncodeDateOnly, EncodeDateTime and
EncodeInterval with the styles ISO and `postgres` (datetime.c), array_out (arrayfuncs.c).
"""

import struct
from decimal import Decimal
from typing import Final

# Floating point. PostgreSQL prints the shortest digits that read back equal, fixed where the exponent is small.


def float8_text(value: float) -> bytes:
    """As float8out prints it."""
    return _float_text(value, repr(value), limit=15)


def float4_text(value: float) -> bytes:
    """As float4out prints it: the shortest digits that are the same single-precision number."""
    if value - value != 0:  # NaN or infinite
        return _float_text(value, "", limit=6)
    (single,) = struct.unpack("f", struct.pack("f", value))
    digits = next(
        text
        for precision in range(1, 18)
        if struct.unpack("f", struct.pack("f", float(text := f"{single:.{precision}g}")))[0] == single
    )
    return _float_text(value, digits, limit=6)


def _float_text(value: float, digits: str, *, limit: int) -> bytes:
    if value != value:  # noqa: PLR0124  (NaN alone is not equal to itself)
        return b"NaN"
    if value - value != 0:
        return b"Infinity" if value > 0 else b"-Infinity"
    sign, number, exponent = Decimal(digits).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, number)).rstrip("0")
    if not text:
        return b"-0" if sign else b"0"
    point = exponent + len(number) - 1
    if -5 < point < limit:
        if point < 0:
            shown = "0." + "0" * (-point - 1) + text
        elif len(text) <= point + 1:
            shown = text.ljust(point + 1, "0")
        else:
            shown = text[: point + 1] + "." + text[point + 1 :]
    else:
        shown = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{point:+03d}"
    return ("-" * sign + shown).encode()


# Dates and times

_DAY: Final = 86_400_000_000  # microseconds
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905  # 4714-11-24 BC and 5874897-12-31: PostgreSQL's own limits
_FIRST_MOMENT: Final = _FIRST_DAY * _DAY


def date_text(days: int) -> bytes:
    """A date from its days since 1970-01-01. Raises ValueError for a day that PostgreSQL does not have."""
    if not _FIRST_DAY <= days <= _LAST_DAY:
        raise ValueError("a day that PostgreSQL does not have")
    date, era = _civil(days)
    return date + era


def _civil(days: int) -> tuple[bytes, bytes]:
    """The proleptic Gregorian date and, before Christ, ` BC`. Source: Howard Hinnant, "chrono-Compatible Low-Level
    Date Algorithms", civil_from_days.
    """
    era, rest = divmod(days + 719_468, 146_097)
    year = (rest - rest // 1460 + rest // 36_524 - rest // 146_096) // 365
    of_year = rest - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    year += era * 400 + (month <= 2)
    day = of_year - (153 * shifted + 2) // 5 + 1
    if year > 0:
        return b"%04d-%02d-%02d" % (year, month, day), b""
    return b"%04d-%02d-%02d" % (1 - year, month, day), b" BC"


def time_text(microseconds: int) -> bytes:
    """A time of day; 24:00:00 is one."""
    if not 0 <= microseconds <= _DAY:
        raise ValueError("no time of a day")
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    text = b"%02d:%02d:%02d" % (*divmod(minutes, 60), second)
    return (text + b".%06d" % fraction).rstrip(b"0") if fraction else text


def timestamp_text(microseconds: int) -> bytes:
    """A timestamp from its microseconds since 1970. Raises ValueError for one that PostgreSQL does not have."""
    if microseconds < _FIRST_MOMENT:
        raise ValueError("a moment before PostgreSQL's first")
    days, clock = divmod(microseconds, _DAY)
    date, era = _civil(days)
    return date + b" " + time_text(clock) + era


_UNITS: Final = {"Y": "year", "M": "mon", "D": "day"}


def interval_text(text: str) -> bytes:
    """`P1Y2M3DT4H5M6.7S` as PostgreSQL's interval style `postgres` writes it (EncodeInterval, datetime.c)."""
    days, has_time, clock = text.removeprefix("P").partition("T")
    if days == text or not has_time:
        raise ValueError("an interval is written P…Y…M…DT…H…M…S")
    parts: list[str] = []
    negative = False
    for number, unit in _pairs(days):
        count = int(number)
        if count:
            plus = "+" if negative and count > 0 else ""
            parts.append(f"{plus}{count} {_UNITS[unit]}{'' if count == 1 else 's'}")
            negative = count < 0
    micros = 0
    for number, unit in _pairs(clock):
        micros += int(Decimal(number) * {"H": 3_600_000_000, "M": 60_000_000, "S": 1_000_000}[unit])
    if micros or not parts:
        sign = "-" if micros < 0 else "+" if negative else ""
        seconds, fraction = divmod(abs(micros), 1_000_000)
        minutes, second = divmod(seconds, 60)
        hours, minute = divmod(minutes, 60)
        shown = f"{sign}{hours:02d}:{minute:02d}:{second:02d}"
        parts.append(f"{shown}.{fraction:06d}".rstrip("0") if fraction else shown)
    return " ".join(parts).encode()


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    number = ""
    for character in text:
        if character.isalpha():
            pairs.append((number, character))
            number = ""
        else:
            number += character
    if number:
        raise ValueError(f"{number} has no unit")
    return pairs


# Arrays

_SPECIAL: Final = frozenset(b'"\\{}, \t\n\r\v\f')


def quoted_element(text: bytes) -> bytes:
    """One element as array_out writes it."""
    if text and text.upper() != b"NULL" and _SPECIAL.isdisjoint(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
