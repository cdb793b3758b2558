"""Debezium's JSON to PostgreSQL's text: the pairs were recorded from Debezium 3.6.3 beside the log of PostgreSQL 16."""

from typing import Any

import pytest

from cdc.changes import UNCHANGED
from cdc.decode.debezium_values import (
    Binaries,
    ColumnType,
    DebeziumError,
    Decimals,
    Intervals,
    Modes,
    Times,
    column,
    loss,
)

OURS = Modes()
DEBEZIUMS = Modes.of({})
ISO = Modes(times=Times.ISOSTRING)
CONNECT = Modes(times=Times.CONNECT)
NANOS = Modes(times=Times.NANOSECONDS)
MICROS = Modes(times=Times.MICROSECONDS)
BASE64 = Modes(binaries=Binaries.BYTES)
URL = Modes(binaries=Binaries.BASE64_URL)
MARK = "__debezium_unavailable_value"

NUMERIC_10_2, NUMERIC_5_0, TIMESTAMP_3 = (
    ColumnType(1700, 655366),
    ColumnType(1700, 327684),
    ColumnType(1114, 3),
)


def of(oid: int) -> ColumnType:
    return ColumnType(oid)


def array(element: int, modifier: int = -1) -> ColumnType:
    return ColumnType(2277, modifier, element)


@pytest.mark.parametrize(
    ("modes", "type_", "said", "text"),
    [
        (OURS, of(16), True, b"t"),
        (OURS, of(20), 9007199254740993, b"9007199254740993"),
        (OURS, of(26), 4000000000, b"4000000000"),
        (OURS, of(25), 'tab\tq"\\\n', b'tab\tq"\\\n'),
        (OURS, of(1042), "ab ", b"ab "),
        (OURS, of(19), "nm", b"nm"),
        (OURS, of(3802), '{"a": 1.50, "ü": null}', '{"a": 1.50, "ü": null}'.encode()),
        (OURS, of(3910), '["2024-01-01 00:00:00+00",)', b'["2024-01-01 00:00:00+00",)'),
        (OURS, of(16385), "it's", b"it's"),
        (OURS, of(701), "NaN", b"NaN"),
        (OURS, of(701), "Infinity", b"Infinity"),
        (OURS, of(701), 1e-30, b"1e-30"),
        (OURS, of(701), 1e15, b"1e+15"),
        (OURS, of(701), 123456789012345.0, b"123456789012345"),
        (OURS, of(701), 0.0001, b"0.0001"),
        (OURS, of(701), 0.00001, b"1e-05"),
        (OURS, of(701), 1.7976931348623157e308, b"1.7976931348623157e+308"),
        (OURS, of(700), 16777216.0, b"1.6777216e+07"),
        (OURS, of(700), 999999990000000.0, b"1e+15"),
        (OURS, of(700), 123456.7, b"123456.7"),
        (OURS, of(700), -0.0, b"-0"),
        (OURS, of(1700), "0.00000000000000000000100", b"0.00000000000000000000100"),
        (OURS, of(1700), "NAN", b"NaN"),
        (OURS, of(1700), "NEGATIVE_INFINITY", b"-Infinity"),
        (DEBEZIUMS, NUMERIC_10_2, "B88=", b"19.99"),
        (DEBEZIUMS, NUMERIC_10_2, "zg==", b"-0.50"),
        (DEBEZIUMS, NUMERIC_10_2, "AA==", b"0.00"),
        (DEBEZIUMS, NUMERIC_5_0, "/nlh", b"-99999"),
        (DEBEZIUMS, of(790), "BQ==", b"0.05"),
        (OURS, ColumnType(1560, 1), True, b"1"),
        (OURS, ColumnType(1560, 20), "AQAI", b"10000000000000000001"),
        (OURS, of(17), "deadbeef00", b"\\xdeadbeef00"),
        (BASE64, of(17), "3q2+7wA=", b"\\xdeadbeef00"),
        (URL, of(17), "3q2-7wA=", b"\\xdeadbeef00"),
        (OURS, of(1082), 19782, b"2024-02-29"),
        (OURS, of(1082), -735160, b"0044-03-15 BC"),
        (OURS, of(1082), -2440588, b"4714-11-24 BC"),
        (OURS, of(1082), 2145042905, b"5874897-12-31"),
        (OURS, of(1082), -2147472692, b"infinity"),
        (OURS, of(1082), -2147472691, b"-infinity"),
        (ISO, of(1082), "-0043-03-15Z", b"0044-03-15 BC"),
        (ISO, of(1082), "-5877611-06-21Z", b"infinity"),
        (OURS, of(1083), 86400000000, b"24:00:00"),
        (OURS, of(1083), 47655678901, b"13:14:15.678901"),
        (OURS, ColumnType(1083, 3), 47655600, b"13:14:15.6"),
        (MICROS, ColumnType(1083, 3), 47655600000, b"13:14:15.6"),
        (NANOS, of(1083), 47655678901000, b"13:14:15.678901"),
        (ISO, of(1083), "13:14:15.678901Z", b"13:14:15.678901"),
        (CONNECT, ColumnType(1083, 3), 47655600, b"13:14:15.6"),
        (OURS, of(1114), 1709202896789012, b"2024-02-29 10:34:56.789012"),
        (OURS, of(1114), -63517820277000000, b"0044-03-15 01:02:03 BC"),
        (OURS, of(1114), 9223372036825200000, b"infinity"),
        (OURS, of(1114), -9223372036832400000, b"-infinity"),
        (OURS, TIMESTAMP_3, -1, b"1969-12-31 23:59:59.999"),
        (OURS, TIMESTAMP_3, 9223372036825200, b"infinity"),
        (OURS, ColumnType(1114, 0), 253402300800000, b"10000-01-01 00:00:00"),
        (ISO, of(1114), "2024-02-29T10:34:56.789012Z", b"2024-02-29 10:34:56.789012"),
        (ISO, of(1114), "+10000-01-01T00:00:00Z", b"10000-01-01 00:00:00"),
        (ISO, of(1114), "-290308-12-21T19:59:27.6Z", b"-infinity"),
        (OURS, of(1184), "2024-02-29T08:34:56.789012Z", b"2024-02-29 08:34:56.789012+00"),
        (OURS, of(1184), "2024-02-29T10:34:56.700Z", b"2024-02-29 10:34:56.7+00"),
        (OURS, of(1184), "0000-01-01T00:00:00.000000Z", b"0001-01-01 00:00:00+00 BC"),
        (OURS, of(1184), "+294276-12-31T23:59:59.999999Z", b"294276-12-31 23:59:59.999999+00"),
        (OURS, of(1184), "-infinity", b"-infinity"),
        (OURS, of(1186), "P1Y2M3DT4H5M6.7S", b"1 year 2 mons 3 days 04:05:06.7"),
        (OURS, of(1186), "P0Y-1M3DT0H0M-0.000001S", b"-1 mons +3 days -00:00:00.000001"),
        (OURS, of(1186), "P0Y0M1DT-1H0M0S", b"1 day -01:00:00"),
        (OURS, of(1186), "P-1Y-2M3DT100H0M0S", b"-1 years -2 mons +3 days 100:00:00"),
        (OURS, of(1186), "P0Y0M-1DT0H0M-0.5S", b"-1 days -00:00:00.5"),
        (OURS, of(1186), "P0Y0M0DT0H0M0S", b"00:00:00"),
        (OURS, of(600), {"x": 1.5, "y": -2.0, "wkb": "AQEAAAA", "srid": None}, b"(1.5,-2)"),
        (OURS, of(3220), "31362f4233373444383438", b"16/B374D848"),
        (MICROS, of(4451), "7b5b312c33292c5b352c37297d", b"{[1,3),[5,7)}"),
        (OURS, array(23), [1, None, 3], b"{1,NULL,3}"),
        (OURS, array(25), ["a", "b,c", None, 'q"\\', "", "null"], b'{a,"b,c",NULL,"q\\"\\\\","","null"}'),
        (OURS, array(1042), ["abc", "d  "], b'{abc,"d  "}'),
        (OURS, array(16), [True, False, None], b"{t,f,NULL}"),
        (OURS, array(17), ["dead", None], b'{"\\\\xdead",NULL}'),
        (OURS, array(700), [1.1, 0.002, 1e-30, "NaN"], b"{1.1,0.002,1e-30,NaN}"),
        (OURS, array(1114, 3), [1709202896789], b'{"2024-02-29 10:34:56.789"}'),
        (OURS, array(1184), ["2024-02-29T08:34:56.789012Z"], b'{"2024-02-29 08:34:56.789012+00"}'),
        (OURS, array(3802), ['{"a": 1}'], b'{"{\\"a\\": 1}"}'),
        (OURS, array(3904), ["[1,3)"], b'{"[1,3)"}'),
        (OURS, array(25), [], b"{}"),
    ],
)
def test_a_value_becomes_what_the_log_says(modes: Modes, type_: ColumnType, said: Any, text: bytes) -> None:
    assert column(type_, modes, "column t.c").convert(said) == text


@pytest.mark.parametrize(
    ("modes", "type_", "said"),
    [
        (OURS, of(25), MARK),
        (OURS, of(3802), MARK),
        (OURS, of(1700), MARK),
        (OURS, of(17), MARK),
        (OURS, of(3614), MARK),
        (OURS, of(604), MARK),
        (DEBEZIUMS, of(17), "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        (OURS, array(25), [MARK]),
        (OURS, array(3802), [MARK]),
        (OURS, array(23), list(MARK.encode())),
        (OURS, array(20), list(MARK.encode())),
        (OURS, array(1082), list(MARK.encode())),
        (OURS, array(2950), ["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]),
        (DEBEZIUMS, array(17), ["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]),
    ],
)
def test_an_unchanged_large_value_is_known_in_each_of_its_guises(
    modes: Modes, type_: ColumnType, said: Any
) -> None:
    read = column(type_, modes, "column t.c")
    assert read.convert(said) is UNCHANGED
    assert not read.blurred


@pytest.mark.parametrize(
    ("modes", "type_"),
    [
        (OURS, array(701)),
        (OURS, array(1184)),
        (OURS, array(16)),
        (OURS, array(21)),
        (OURS, array(17)),
        (OURS, ColumnType(1560, 40000)),
        (ISO, array(1082)),
        (URL, of(17)),
        (Modes(binaries=Binaries.BASE64), of(17)),
    ],
)
def test_types_whose_unchanged_large_values_look_like_null_are_marked(
    modes: Modes, type_: ColumnType
) -> None:
    assert column(type_, modes, "column t.c").blurred


@pytest.mark.parametrize(
    ("modes", "type_", "why"),
    [
        (Modes(decimals=Decimals.DOUBLE), NUMERIC_10_2, "rounds"),
        (Modes(decimals=Decimals.PRECISE), of(1700), "NaN"),
        (Modes(intervals=Intervals.NUMERIC), of(1186), "months"),
        (CONNECT, of(1114), "microseconds"),
        (CONNECT, ColumnType(1083, 6), "microseconds"),
        (NANOS, TIMESTAMP_3, "1677"),
        (OURS, of(1266), "zone"),
        (OURS, of(1562), "long"),
        (OURS, array(16385), "arrays"),
        (OURS, array(1186), "arrays"),
        (OURS, array(1700), "arrays"),
        (Modes(unknown=False), of(19), r"include\.unknown"),
        (Modes(unknown=False), of(3220), r"include\.unknown"),
    ],
)
def test_what_debezium_loses_is_refused_with_the_reason(modes: Modes, type_: ColumnType, why: str) -> None:
    with pytest.raises(DebeziumError, match=rf"column t\.c: .*{why}"):
        column(type_, modes, "column t.c")
    assert loss(type_, modes)


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        (of(1114), -9223372036853775810),  # an overflow in Debezium: 294276-12-31
        (of(1082), -2147472693),
        (of(1083), 86400000001),
        (of(17), "no hex"),
        (of(1184), "2024-02-29T08:34:56+02:00"),
        (of(1186), "3 days"),
        (of(20), 1.5),
        (ColumnType(1560, 3), "AQAI"),
        (array(25), ["[Ljava.lang.String;@5b17ac29"]),
        (array(23), [[1, 2]]),
        (array(23), "{1}"),
    ],
)
def test_a_damaged_value_is_an_error_that_names_the_column(type_: ColumnType, said: Any) -> None:
    with pytest.raises(DebeziumError, match=r"column t\.c"):
        column(type_, OURS, "column t.c").convert(said)
