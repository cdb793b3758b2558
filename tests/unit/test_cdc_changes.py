"""Log positions, table names, quoting."""

import pytest

from cdc.changes import UNCHANGED, Lsn, TableName, literal, quote


def test_a_position_is_written_as_postgresql_writes_it() -> None:
    assert Lsn.parse("16/B374D848") == Lsn((0x16 << 32) | 0xB374D848)
    assert str(Lsn.parse("16/B374D848")) == "16/B374D848"
    assert str(Lsn(0)) == "0/0"


def test_positions_are_ordered_as_numbers_not_as_text() -> None:
    assert Lsn.parse("9/0") < Lsn.parse("10/0")
    assert Lsn.parse("0/FF") < Lsn.parse("0/100")


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "x/1", "1/2/3", "123456789/0", "-1/0"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a log position"):
        Lsn.parse(text)


def test_unchanged_is_not_null() -> None:
    assert UNCHANGED is not None
    assert repr(UNCHANGED) == "UNCHANGED"


def test_table_names() -> None:
    assert TableName.parse("product") == TableName("public", "product")
    assert TableName.parse("shop.product").sql == '"shop"."product"'
    for wrong in ("", ".a", "a."):
        with pytest.raises(ValueError, match="table name"):
            TableName.parse(wrong)


def test_quoting() -> None:
    assert quote('a"b') == '"a""b"'
    assert literal("a'b") == "'a''b'"
    assert literal("a\\b") == " E'a\\\\b'"
    with pytest.raises(ValueError, match="cannot be an SQL name"):
        quote("a\0")
