"""What the catalogue knows and how it counts, without a database or a request.

The values here are what `store` reads and `representation` writes. The rules: products not listed do not
exist for shoppers, a category counts the products of everything below it, and a list has one order only,
whatever ties there are.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import Enum
from typing import Any

_NO_PRICE = Decimal(10) ** 15


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category; `listed_products` counts its own, not those below."""

    id: int
    parent_id: int | None
    slug: str
    title: str
    listed_products: int


@dataclass(frozen=True, slots=True)
class CategoryNode:
    """A category in its tree; `product_count` includes everything below."""

    id: int
    slug: str
    title: str
    product_count: int
    children: tuple["CategoryNode", ...]


@dataclass(frozen=True, slots=True)
class CategoryPlace:
    """A category and the way to it, root first."""

    node: CategoryNode
    breadcrumbs: tuple[CategoryNode, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """`file` is a path below the media root."""

    file: str
    alt: str
    sort_key: int


@dataclass(frozen=True, slots=True)
class Product:
    """What a list shows of a product. `rating`: mean of its approved reviews, two places, or None."""

    id: int
    sku: str
    slug: str
    title: str
    brand: str
    price_cents: int
    currency: str
    category_id: int
    category_slug: str
    category_title: str
    first_picture: str | None
    rating: Decimal | None
    review_count: int
    released_on: date | None
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class ProductDetail:
    """A product's own page."""

    product: Product
    description: str
    attributes: Any
    weight_grams: int | None
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """An approved review."""

    id: int
    byline: str
    rating: int
    title: str
    body: str
    written_at: datetime


class SortField(Enum):
    """What a client may sort products by; the value is its name in `?ordering=`."""

    PRICE = "price"
    NAME = "name"
    CREATED_AT = "created_at"
    RATING = "rating"


@dataclass(frozen=True, slots=True)
class SortTerm:
    """One step of an order. What has no value comes last either way."""

    field: SortField
    descending: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which products, and in which order.

    Without `ordering` it is best match first when `words` are given, else newest first. Ties always go by
    id, lowest first. Prices are whole cents, bounds included; `category` is a slug and includes everything
    below it.
    """

    category: str | None = None
    brand: str | None = None
    min_cents: int | None = None
    max_cents: int | None = None
    released_after: date | None = None
    words: str | None = None
    ordering: tuple[SortTerm, ...] = ()


def build_tree(rows: Iterable[CategoryRow]) -> tuple[CategoryNode, ...]:
    """The roots with everything below them; siblings keep the order of `rows`."""
    children: defaultdict[int | None, list[CategoryRow]] = defaultdict(list)
    for row in rows:
        children[row.parent_id].append(row)
    return tuple(_build(root, children) for root in children[None])


def find_place(tree: Iterable[CategoryNode], slug: str) -> CategoryPlace | None:
    """Where the category `slug` stands in `tree`, None when it is not there."""
    for place in _walk(tree, ()):
        if place.node.slug == slug:
            return place
    return None


def decimal_text(units: int, places: int) -> str:
    """`units` of 10^-`places` as a decimal with exactly that many places: 1050 and 2 give `10.50`."""
    sign = "-" if units < 0 else ""
    whole, fraction = divmod(abs(units), 10**places)
    return f"{sign}{whole}.{fraction:0{places}}"


def least_cents(price: Decimal) -> int:
    """The least whole number of cents that is not below `price`."""
    return _cents(price, ROUND_CEILING)


def most_cents(price: Decimal) -> int:
    """The greatest whole number of cents that is not above `price`."""
    return _cents(price, ROUND_FLOOR)


def _cents(price: Decimal, rounding: str) -> int:
    # No price comes near the bound, so nothing is lost; without it `1e400000` would fill the memory. Sixty digits
    # hold every number within it to far below a cent, and rounding twice in one direction is rounding once.
    bounded = max(min(price, _NO_PRICE), -_NO_PRICE)
    context = Context(prec=60, rounding=rounding)
    return int(bounded.scaleb(2, context).to_integral_value(rounding))


def _build(row: CategoryRow, children: Mapping[int | None, list[CategoryRow]]) -> CategoryNode:
    below = tuple(_build(child, children) for child in children.get(row.id, ()))
    count = row.listed_products + sum(node.product_count for node in below)
    return CategoryNode(row.id, row.slug, row.title, count, below)


def _walk(nodes: Iterable[CategoryNode], way: tuple[CategoryNode, ...]) -> Iterator[CategoryPlace]:
    for node in nodes:
        yield CategoryPlace(node, way)
        yield from _walk(node.children, (*way, node))
