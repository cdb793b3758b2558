"""What Debezium would write of a value is read back as the value: decode(encode(text)) == text."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cdc.changes import UNCHANGED
from cdc.decode.debezium_values import ColumnType, Modes, column
from cdc.decode.pgtext import float8_text, interval_text, quoted_element
from cdc.encode.debezium_values import value_json

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001  (a timestamp without zone)


def fraction(microseconds: int) -> str:
    return f".{microseconds:06d}".rstrip("0") if microseconds else ""


def clock(moment: time) -> str:
    return f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}{fraction(moment.microsecond)}"


def interval(parts: tuple[int, int, int, int]) -> bytes:
    months, days, seconds, micros = parts
    return interval_text(f"P{months // 12}Y{months % 12}M{days}DT0H0M{seconds}.{micros:06d}S")


def back_and_forth(text: bytes, type_: ColumnType) -> None:
    assert column(type_, Modes(), "column t.c").convert(value_json(text, type_)) == text


@given(TEXT)
def test_text(text: str) -> None:
    back_and_forth(text.encode(), ColumnType(25))


@given(st.lists(st.none() | TEXT))
def test_arrays_of_text(elements: list[str | None]) -> None:
    parts = [b"NULL" if each is None else quoted_element(each.encode()) for each in elements]
    back_and_forth(b"{" + b",".join(parts) + b"}", ColumnType(1009, -1, 25))


@given(st.floats())
def test_double_precision(number: float) -> None:
    text = float8_text(number)
    back_and_forth(text, ColumnType(701))
    assert float(text) == number or text == b"NaN"


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_numeric(number: Decimal) -> None:
    text = "NaN" if number.is_nan() else str(number) if number.is_infinite() else format(number, "f")
    back_and_forth(text.encode(), ColumnType(1700))


@given(st.binary())
def test_bytea(value: bytes) -> None:
    back_and_forth(b"\\x" + value.hex().encode(), ColumnType(17))


@given(DATES, st.booleans())
def test_dates(day: date, before_christ: bool) -> None:
    if before_christ and (day.month, day.day) == (2, 29):
        return  # leap years lie otherwise there
    text = f"{day.year:04d}-{day.month:02d}-{day.day:02d}" + (
        " BC" if before_christ and day.year < 4700 else ""
    )
    back_and_forth(text.encode(), ColumnType(1082))


@given(MOMENTS, st.sampled_from([-1, 3]))
def test_timestamps(moment: datetime, modifier: int) -> None:
    if modifier == 3:
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    text = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d} {clock(moment.time())}"
    back_and_forth(text.encode(), ColumnType(1114, modifier))
    back_and_forth(f"{text}+00".encode(), ColumnType(1184, modifier))
    back_and_forth(clock(moment.time()).encode(), ColumnType(1083, modifier))
    micros = round((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
    if modifier == 3:
        assert value_json(text.encode(), ColumnType(1114, 3)) == micros


@given(
    st.tuples(
        st.integers(0, 10**6), st.integers(-(10**6), 10**6), st.integers(0, 10**9), st.integers(0, 999_999)
    )
)
def test_intervals(parts: tuple[int, int, int, int]) -> None:
    back_and_forth(interval(parts), ColumnType(1186))


@given(st.integers(2, 70).flatmap(lambda width: st.tuples(st.just(width), st.integers(0, 2**width - 1))))
def test_bits(bits: tuple[int, int]) -> None:
    width, number = bits
    back_and_forth(f"{number:0{width}b}".encode(), ColumnType(1560, width))


@given(st.sampled_from([25, 17, 1700, 3802]))
def test_unchanged_large_values(oid: int) -> None:
    type_ = ColumnType(oid)
    assert column(type_, Modes(), "column t.c").convert(value_json(UNCHANGED, type_)) is UNCHANGED
