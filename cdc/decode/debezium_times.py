"""Dates and times as Debezium counts or writes them, back to PostgreSQL's text. Pure.

Its counts end before PostgreSQL's years do (294247 of 294276): what is later comes as the last count, and is refused.

Within arrays Debezium asks the JDBC driver for `java.sql.Date` and `Timestamp`, which count days before 15 October 1582
by Julius Caesar's calendar and know no era: such elements come as other days, those before Christ as days after, and
most infinities as days that PostgreSQL does not have. `in_array` refuses what shows that; a day before Christ that
comes as one after 1582 does not show, the doctor has to find it in the table.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from cdc.changes import UNCHANGED, Value
from cdc.decode.pgtext import date_text, timestamp_text

_LAST_COUNT: Final = 2**63 - 1
_GREGORIAN: Final = b"1582-10-15"
_LAST_YEAR: Final = 294276  # of PostgreSQL's timestamps

# pgjdbc's infinities (org.postgresql.PGStatement, milliseconds) as Debezium carries them on: a date's by an overflow
_INFINITE_DAYS: Final = {-2147472692: b"infinity", -2147472691: b"-infinity"}
_INFINITE: Final = {9223372036825200000: b"infinity", -9223372036832400000: b"-infinity"}
_INFINITE_MILLI: Final = {9223372036825200: b"infinity", -9223372036832400: b"-infinity"}
_INFINITE_ISO: Final = {"+294247-01-10T04:00:25.2Z": b"infinity", "-290308-12-21T19:59:27.6Z": b"-infinity"}
_INFINITE_ISO_DAYS: Final = {"-5877611-06-21Z": b"infinity", "-5877611-06-22Z": b"-infinity"}


@lru_cache(maxsize=4_096)  # a table's days lie close together
def read_date(days: int) -> bytes:
    """Days since 1970."""
    return _INFINITE_DAYS.get(days) or date_text(days)


def read_timestamp(microseconds: int) -> bytes:
    """Microseconds since 1970. Raises ValueError."""
    if microseconds == _LAST_COUNT:
        raise ValueError("Debezium counts no further, the moment is this or a later one")
    return _INFINITE.get(microseconds) or timestamp_text(microseconds)


def read_timestamp_milli(milliseconds: int) -> bytes:
    """Milliseconds since 1970."""
    return _INFINITE_MILLI.get(milliseconds) or timestamp_text(milliseconds * 1000)


def read_iso_date(text: str) -> bytes:
    """`isostring`: a date with a zone that is always UTC."""
    infinite = _INFINITE_ISO_DAYS.get(text)
    if infinite is not None:
        return infinite
    date, era = _iso_civil(text.removesuffix("Z"))
    return (date + era).encode()


def _iso_civil(text: str) -> tuple[str, str]:
    """ISO 8601 has a year 0, PostgreSQL a year 1 BC."""
    negative = text.startswith("-")
    year, month, day = text.lstrip("+-").split("-")
    number = -int(year) if negative else int(year)
    if number > 0:
        return f"{number:04d}-{month}-{day}", ""
    return f"{1 - number:04d}-{month}-{day}", " BC"


def read_iso_timestamp(text: str) -> bytes:
    """`isostring`: a timestamp, as if it were one of UTC."""
    infinite = _INFINITE_ISO.get(text)
    if infinite is not None:
        return infinite
    date, _, clock = text.removesuffix("Z").partition("T")
    day, era = _iso_civil(date)
    return f"{day} ".encode() + read_clock(clock) + era.encode()


def read_iso_timestamptz(text: str, mark: str) -> Value:
    """A timestamptz in whatever mode; `mark` stands for an unchanged one. Raises ValueError."""
    if text in ("infinity", "-infinity"):
        return text.encode()
    if text == mark:
        return UNCHANGED
    if not text.endswith("Z"):
        raise ValueError("not in UTC")
    if len(text) > 19 and text[0] in "12" and text[4] == "-" and text[10] == "T" and text[16] == ":":
        # of our time: two letters differ, and zeros at the end
        clock = text[11:-1]
        return f"{text[:10]} {clock.rstrip('0').rstrip('.') if '.' in clock else clock}+00".encode()
    date, _, clock = text[:-1].partition("T")
    day, era = _iso_civil(date)
    return f"{day} ".encode() + read_clock(clock) + b"+00" + era.encode()


def read_clock(clock: str) -> bytes:
    """A time of day as PostgreSQL writes it: seconds always, no zeros behind the last digit."""
    if clock.count(":") == 1:  # Java leaves out seconds that are 0
        clock += ":00"
    return (clock.rstrip("0").rstrip(".") if "." in clock else clock).encode()


def in_array(convert: Callable[[Any], Value], *, dated: bool) -> Callable[[Any], Value]:
    """`convert` for elements of an array of dates or timestamps; it raises ValueError for one that came as another.
    `dated`: dates, whose years go on to 5874897.
    """

    def converted(value: Any) -> Value:
        text = convert(value)
        if not isinstance(text, bytes) or text.endswith(b"infinity"):
            return text
        year, _, _ = text.partition(b"-")
        early = text.endswith(b" BC") or (len(year) == len(b"1582") and text[: len(_GREGORIAN)] < _GREGORIAN)
        if early or (not dated and int(year) > _LAST_YEAR):
            raise ValueError("Debezium writes days before 1582-10-15 within arrays as other days")
        return text

    return converted
