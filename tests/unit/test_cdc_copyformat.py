"""When a snapshot's rows may travel in binary."""

from cdc.copyformat import binary_fits

INT4, INT8, TEXT, VARCHAR, NUMERIC, REGCLASS, REGCLASSES, ENUM = 23, 20, 25, 1043, 1700, 2205, 2210, 16_500


def test_equal_common_types_do() -> None:
    assert binary_fits([INT8, TEXT, NUMERIC], [INT8, TEXT, NUMERIC])


def test_text_and_varchar_are_the_same_bytes() -> None:
    assert binary_fits([TEXT, VARCHAR], [VARCHAR, TEXT])


def test_another_width_is_read_anew_from_text() -> None:
    assert not binary_fits([INT8, INT4], [INT8, INT8])


def test_a_type_of_one_server_alone_does_not() -> None:
    for oid in (REGCLASS, REGCLASSES, ENUM):
        assert not binary_fits([oid], [oid])


def test_a_column_more_does_not() -> None:
    assert not binary_fits([INT8, INT8], [INT8])
