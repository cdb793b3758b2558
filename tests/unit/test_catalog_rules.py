"""The catalogue's rules without a database: tree, selection, JSON."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.drf.answers import ApiError
from chassis.drf.query import parse_query
from chassis.drf.request import ApiRequest
from extracted.catalog import filters, representation, rules
from extracted.catalog.rules import CategoryRow, Selection, SortField, SortTerm

_REQUEST = ApiRequest("GET", "https", "shop.test", "/api/products/", "", None)
_ROWS = [
    CategoryRow(2, None, "garden", "Garden", 0),
    CategoryRow(1, None, "home", "Home", 3),
    CategoryRow(3, 1, "kitchen", "Kitchen", 4),
    CategoryRow(4, 3, "pans", "Pans", 5),
]


def test_a_category_counts_everything_below_it() -> None:
    garden, home = rules.build_tree(_ROWS)
    assert (garden.slug, garden.product_count, garden.children) == ("garden", 0, ())
    assert home.product_count == 12
    assert home.children[0].product_count == 9


def test_a_place_has_the_way_to_it() -> None:
    tree = rules.build_tree(_ROWS)
    place = rules.find_place(tree, "pans")
    assert place is not None
    assert [node.slug for node in place.breadcrumbs] == ["home", "kitchen"]
    assert rules.find_place(tree, "nowhere") is None


@given(st.integers(-(10**12), 10**12), st.integers(1, 6))
def test_decimals_keep_their_scale(units: int, places: int) -> None:
    text = rules.decimal_text(units, places)
    assert Decimal(text) == Decimal(units).scaleb(-places)
    assert len(text.partition(".")[2]) == places


@given(st.decimals("-1e14", "1e14", allow_nan=False), st.integers(0, 10**10))
def test_price_bounds_are_exact_in_cents(bound: Decimal, cents: int) -> None:
    price = Fraction(cents, 100)
    assert (price >= Fraction(bound)) == (cents >= rules.least_cents(bound))
    assert (price <= Fraction(bound)) == (cents <= rules.most_cents(bound))


@pytest.mark.parametrize(
    ("bound", "least", "most"),
    [
        ("1e-400000", 1, 0),
        ("-1e-400000", 0, -1),
        ("1e400000", 10**17, 10**17),
        ("-1e400000", -(10**17), -(10**17)),
        ("19.9" + "0" * 5000 + "1", 1991, 1990),
    ],
)
def test_price_bounds_of_any_size_are_numbers_the_database_takes(bound: str, least: int, most: int) -> None:
    assert (rules.least_cents(Decimal(bound)), rules.most_cents(Decimal(bound))) == (least, most)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, ()),
        ("", ()),
        ("price", (SortTerm(SortField.PRICE, descending=False),)),
        (
            " -rating , name,nope,--price",
            (SortTerm(SortField.RATING, descending=True), SortTerm(SortField.NAME, descending=False)),
        ),
    ],
)
def test_orderings(raw: str | None, expected: tuple[SortTerm, ...]) -> None:
    assert filters.read_ordering(raw) == expected


def test_a_selection_takes_the_last_of_repeated_parameters() -> None:
    query = parse_query("min_price=1&min_price=2.50&brand=+x+&search=&category=home")
    selection = filters.read_selection(query, category_known=True)
    assert selection == Selection(category="home", brand="x", min_cents=250)


def test_all_faults_are_reported_together_in_the_shops_order() -> None:
    query = parse_query("search=%00&released_after=x&max_price=NaN&min_price=y&brand=%00&category=no")
    with pytest.raises(ApiError) as refused:
        filters.read_selection(query, category_known=False)
    assert refused.value.status == 400
    assert list(refused.value.body) == [
        "category", "brand", "min_price", "max_price", "released_after", "search",
    ]  # fmt: skip


def test_the_database_is_not_asked_for_what_it_cannot_hold() -> None:
    assert filters.wanted_category(parse_query("category=a%00b")) is None
    assert filters.wanted_category(parse_query("category=")) is None
    assert filters.wanted_category(parse_query("category=a")) == "a"


@pytest.mark.parametrize(
    ("media", "file", "expected"),
    [
        ("/media/", "products/a.png", "https://shop.test/media/products/a.png"),
        ("/media/", "a b/ü&'(1).png", "https://shop.test/media/a%20b/%C3%BC%26'(1).png"),
        ("https://cdn.test/m/", "products/a.png", "https://cdn.test/m/products/a.png"),
    ],
)
def test_pictures_have_absolute_urls(media: str, file: str, expected: str) -> None:
    assert representation.Links(_REQUEST, media, None).picture(file) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2024, 2, 29, 23, 59, 59, 1, tzinfo=UTC), "2024-02-29T23:59:59.000001Z"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00Z"),
        (datetime(999, 1, 1, tzinfo=UTC), "0999-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_rest_framework_does(moment: datetime, expected: str) -> None:
    assert representation.timestamp(moment) == expected
