"""A list of products as a shopper wants it: narrowed, sorted, cut into pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import QueryDict

from monolith.catalog import selectors as catalogue
from monolith.catalog.filters import ordering
from monolith.catalog.models import Product
from monolith.storefront import selectors
from monolith.storefront.forms import BEST_MATCH, BrowseForm
from monolith.storefront.selectors import Card

PAGE_SIZE = 24

_ORDER: dict[str, tuple[str, ...]] = {
    "newest": ("-created_at",),
    "price": ("price",),
    "-price": ("-price",),
    "rating": ("-rating", "-review_count"),
    "name": ("name",),
}


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter in force; `query` is the address without it."""

    label: str
    query: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list with the form that narrowed it."""

    form: BrowseForm
    page: Page[Product]
    cards: tuple[Card, ...]
    chips: tuple[Chip, ...]
    everything: str
    """The address without any filter."""

    @property
    def total(self) -> int:
        """Products on all pages."""
        return self.page.paginator.count


def list_products(wishes: QueryDict, products: QuerySet[Product], *, words: str = "") -> Listing:
    """`products`, those matching `words` where given, as `wishes` (the query of the address) want them.

    A wish that makes no sense is shown as an error beside its field and otherwise left out.
    """
    if words:
        products = catalogue.search(products, words)
    form = BrowseForm(wishes, brands=selectors.brand_counts(products), searching=bool(words))
    form.is_valid()
    wanted = form.cleaned_data
    found = _sorted(_narrowed(products, wanted), wanted.get("sort") or "", searching=bool(words))
    page = Paginator(found, PAGE_SIZE).get_page(wishes.get("page"))
    return Listing(
        form=form,
        page=page,
        cards=selectors.cards(page.object_list),
        chips=tuple(_chips(wishes, wanted)),
        everything=_without(wishes, *_FILTERS),
    )


_FILTERS = ("brand", "min_price", "max_price", "rating", "in_stock")


def _narrowed(products: QuerySet[Product], wanted: dict[str, Any]) -> QuerySet[Product]:
    if brands := wanted.get("brand"):
        products = products.filter(brand__in=brands)
    if (low := wanted.get("min_price")) is not None:
        products = products.filter(price__gte=low)
    if (high := wanted.get("max_price")) is not None:
        products = products.filter(price__lte=high)
    if wanted.get("rating"):
        products = selectors.rated_at_least(products, wanted["rating"])
    if wanted.get("in_stock"):
        products = selectors.in_stock(products)
    return products


def _sorted(products: QuerySet[Product], sort: str, *, searching: bool) -> QuerySet[Product]:
    if sort == BEST_MATCH or (searching and not sort):
        return products  # by rank, as the search left them
    return products.order_by(*ordering(_ORDER.get(sort, _ORDER["newest"])))


def _chips(wishes: QueryDict, wanted: dict[str, Any]) -> Iterator[Chip]:
    for brand in wanted.get("brand") or ():
        yield Chip(brand, _without(wishes, "brand", value=brand))
    if (low := wanted.get("min_price")) is not None:
        yield Chip(f"from €{low}", _without(wishes, "min_price"))
    if (high := wanted.get("max_price")) is not None:
        yield Chip(f"up to €{high}", _without(wishes, "max_price"))
    if wanted.get("rating"):
        yield Chip(f"{wanted['rating']} stars & up", _without(wishes, "rating"))
    if wanted.get("in_stock"):
        yield Chip("in stock", _without(wishes, "in_stock"))


def _without(wishes: QueryDict, *names: str, value: str | None = None) -> str:
    left = wishes.copy()
    for name in ("page", *names):
        if name in names and value is not None:
            left.setlist(name, [other for other in left.getlist(name) if other != value])
        else:
            left.pop(name, None)
    return "?" + left.urlencode()
