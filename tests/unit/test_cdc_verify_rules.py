"""The rules of a comparison: in which order to walk, how fast to go, when a difference is one."""

from dataclasses import replace

import pytest

from cdc.changes import Identity, TableName
from cdc.compare_sql import OrderedBy, Stretch
from cdc.mapping import Mapping
from cdc.tableshape import ColumnShape, TableShape
from cdc.verify_chunk import Look, WrongKey, bucket_count, wrong_keys
from cdc.verify_order import Collation, choose_order
from cdc.verify_pace import Limits, must_wait, next_chunk, pause_after, slowness
from cdc.verify_table import sort_out
from tests.cdc_shop import shop_mapping

BIGINT, INTEGER, TEXT, VARCHAR, FLOAT, UUID = 20, 23, 25, 1043, 701, 2950
GLIBC = Collation("c", "en_US.UTF-8", "2.36")
MAPPING: Mapping = shop_mapping()
STOCK = MAPPING.tables[2]


def column(name: str, oid: int, *, not_null: bool = True) -> ColumnShape:
    return ColumnShape(
        name, "?", oid, -1, None, not_null=not_null, has_default=False, generated=False, identity="",
        hashable=True, large=False,
    )  # fmt: skip


def shape(name: str, key: tuple[str, ...], *columns: ColumnShape) -> TableShape:
    return TableShape(TableName("public", name), "r", columns, (key,), Identity.DEFAULT, key, "owner")


SOURCE = shape(
    "catalog_stock", ("product_id", "warehouse"), column("warehouse", VARCHAR), column("product_id", INTEGER)
)
TARGET = shape("stock", ("product_id", "place"), column("place", TEXT), column("product_id", BIGINT))
SAME = {"source_collations": {"warehouse": GLIBC}, "target_collations": {"place": GLIBC}}


def test_the_order_is_that_of_the_index_and_names_both_sides() -> None:
    order = choose_order(STOCK, SOURCE, TARGET, **SAME)
    assert order is not None
    assert order.source == (OrderedBy("product_id", "bigint"), OrderedBy("warehouse"))
    assert order.target == (OrderedBy("product_id", "bigint"), OrderedBy("place"))


@pytest.mark.parametrize(
    "target",
    [
        replace(TARGET, unique_keys=()),
        replace(TARGET, unique_keys=(("place", "product_id"),)),
        replace(TARGET, columns=(column("place", TEXT, not_null=False), column("product_id", BIGINT))),
        replace(TARGET, columns=(column("place", TEXT), column("product_id", FLOAT))),
        replace(TARGET, columns=(column("place", UUID), column("product_id", BIGINT))),
    ],
    ids=["no index", "index in another order", "may be NULL", "a float", "text and uuid"],
)
def test_without_one_order_the_table_is_compared_whole(target: TableShape) -> None:
    assert choose_order(STOCK, SOURCE, target, **SAME) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (GLIBC, GLIBC, True),
        (GLIBC, replace(GLIBC, version="2.41"), False),
        (GLIBC, replace(GLIBC, locale="de_DE.UTF-8"), False),
        (replace(GLIBC, version=None), replace(GLIBC, version=None), False),
        (Collation("c", "C", None), Collation("c", "POSIX", None), True),
        (Collation("c", "C.UTF-8", None), Collation("c", "C.UTF-8", None), True),
        (Collation("i", "und", "153.120"), Collation("i", "und", "153.120", "&a < b"), False),
    ],
)
def test_text_sorts_alike_only_when_that_is_known(ours: Collation, theirs: Collation, same: bool) -> None:
    order = choose_order(
        STOCK, SOURCE, TARGET, source_collations={"warehouse": ours}, target_collations={"place": theirs}
    )
    assert (order is not None) is same


def test_a_computed_key_is_compared_whole() -> None:
    text = """\
tables:
  catalog_stock:
    target: stock
    key: {place: warehouse, product_id: product_id}
    columns:
      place: {sql: upper(warehouse), inverse: {warehouse: lower(place)}}
      quantity: quantity
"""
    assert choose_order(shop_mapping(text).tables[0], SOURCE, TARGET, **SAME) is None


def test_the_rate_is_kept_by_pausing() -> None:
    assert pause_after(Limits(rate=1000), rows=500, took=0.1).seconds == pytest.approx(0.4)
    assert pause_after(Limits(rate=1000), rows=50, took=0.1).seconds == 0.0
    assert pause_after(Limits(), rows=10**9, took=0.1).seconds == 0.0


def test_a_source_that_becomes_slow_gets_room() -> None:
    calm = (0.5,) * 10
    assert slowness(calm) == 0.0
    assert slowness((*calm, 15.0)) == 0.0, "still quick enough for anybody"
    assert slowness((*calm, 50.0)) == pytest.approx(100.0)
    pause = pause_after(Limits(), rows=1000, took=0.2, answers_ms=(*calm, 50.0))
    assert pause.seconds == pytest.approx(1.8)
    assert "50 ms" in pause.why
    always = (60.0,) * 10
    assert slowness((*always, 70.0)) == 0.0, "far away is not slow"


def test_a_stream_that_lags_is_waited_for() -> None:
    assert must_wait(Limits(max_lag=5.0), None) == ""
    assert must_wait(Limits(max_lag=5.0), 5.0) == ""
    assert "7.0 s behind" in must_wait(Limits(max_lag=5.0), 7.0)


def test_stretches_grow_to_a_quarter_of_a_second_and_stay_within_the_rate() -> None:
    assert next_chunk(Limits(), rows=10_000, took=0.125) == 20_000
    assert next_chunk(Limits(), rows=10_000, took=0.001) == 40_000, "not more than fourfold at once"
    assert next_chunk(Limits(), rows=100_000, took=0.001) == 100_000
    assert next_chunk(Limits(), rows=2_000, took=60.0) == 1_000
    assert next_chunk(Limits(rate=5_000), rows=100_000, took=0.1) == 5_000


def look(*keys: str, looks: int = 1) -> Look:
    return Look(Stretch(), 1, (0,), tuple(WrongKey((key,), 1, 1) for key in keys), looks=looks)


def test_only_what_differs_at_two_positions_is_a_difference() -> None:
    proved, new, passed = sort_out(look("a", "b", "c"), look("b", "d", looks=2))
    assert [each.key for each in proved] == [("b",)]
    assert [each.key for each in new] == [("d",)]
    assert passed == 2


def test_a_stretch_that_is_never_equal_is_a_difference_in_the_end() -> None:
    proved, new, _ = sort_out(look("a", looks=4), look("b", looks=5))
    assert [each.key for each in proved] == [("b",)]
    assert new == ()


def test_rows_are_told_apart_by_key_and_hash_and_counted() -> None:
    ours = [(["1"], 10), (["2"], 20), (["3"], 30), (["3"], 30)]
    theirs: list[tuple[list[str | None], int]] = [(["1"], 10), (["2"], 21), (["3"], 30), ([None], 5)]
    found = wrong_keys(ours, theirs)
    assert found == [WrongKey(("2",), 1, 1), WrongKey(("3",), 1, 0), WrongKey((None,), 0, 1)]
    assert found[0].changed
    assert not found[1].changed


@pytest.mark.parametrize(("rows", "buckets"), [(0, 1), (999, 1), (3_000, 4), (5_000, 8), (10**9, 65_536)])
def test_buckets_are_a_power_of_two(rows: int, buckets: int) -> None:
    assert bucket_count(rows) == buckets
