"""Reads that only pages need; everything else comes from the selectors of the other apps."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Avg, Count, Exists, F, OuterRef, QuerySet, Subquery

from monolith.accounts.models import User
from monolith.catalog import selectors as catalogue
from monolith.catalog.models import Category, Product, ProductImage, Review
from monolith.catalog.selectors import CategoryNode
from monolith.inventory import selectors as inventory

LEAST_REVIEWS = 4
"""A product with fewer is not called one of the best rated, however good they are."""


@dataclass(frozen=True, slots=True)
class Card:
    """A product in a list: with its first picture and what can be sold now."""

    product: Product
    image: ProductImage | None
    available: int


@dataclass(frozen=True, slots=True)
class Department:
    """A root category and a picture that stands for it."""

    node: CategoryNode
    image: ProductImage | None


@dataclass(frozen=True, slots=True)
class RatingShare:
    """How many of a product's reviews gave `stars`."""

    stars: int
    count: int
    percent: int


def cards(products: Iterable[Product]) -> tuple[Card, ...]:
    """Cards for products that have their images prefetched; one query for the stock of all."""
    shown = list(products)
    available = inventory.available(product.pk for product in shown) if shown else {}
    return tuple(
        Card(product=product, image=_first_image(product), available=available.get(product.pk, 0))
        for product in shown
    )


def newest(count: int) -> QuerySet[Product]:
    """The latest additions."""
    return catalogue.active_products()[:count]


def best_rated(count: int) -> list[Product]:
    """Those with the best mean among products with LEAST_REVIEWS or more.

    The means are taken once over all reviews, and only the winners are loaded: sorting all products by their
    rating would work it out for each of them.
    """
    winners = list(
        Review.objects.filter(is_approved=True, product__is_active=True)
        .order_by()
        .values("product_id")
        .annotate(mean=Avg("rating"), reviews=Count("pk"))
        .filter(reviews__gte=LEAST_REVIEWS)
        .order_by("-mean", "-reviews", "product_id")
        .values_list("product_id", flat=True)[:count]
    )
    found = catalogue.active_products().in_bulk(winners)
    return [found[pk] for pk in winners if pk in found]


def alike(product: Product, count: int) -> QuerySet[Product]:
    """Others of the same category."""
    return catalogue.active_products().filter(category=product.category_id).exclude(pk=product.pk)[:count]


def departments(tree: Sequence[CategoryNode]) -> tuple[Department, ...]:
    """The roots that sell something, each with a picture from its first category that has products of its own.

    Two queries. Asking for one category a root, not for all, keeps the front page quick in a large shop.
    """
    chosen = {root.id: _first_with_products(root) for root in tree if root.product_count}
    first = (
        Product.objects.filter(category=OuterRef("pk"), is_active=True)
        .filter(Exists(ProductImage.objects.filter(product=OuterRef("pk"))))
        .order_by("pk")
        .values("pk")[:1]
    )
    products = dict(
        Category.objects.filter(pk__in=chosen.values())
        .order_by()
        .annotate(first_product=Subquery(first))
        .values_list("pk", "first_product")
    )
    # from the last to the first, so that the first picture of each product stays
    images = {
        image.product_id: image
        for image in ProductImage.objects.filter(product__in=products.values()).order_by("-position", "-pk")
    }
    return tuple(
        Department(node=root, image=images.get(products.get(chosen[root.id]) or 0))
        for root in tree
        if root.id in chosen
    )


def _first_with_products(root: CategoryNode) -> int:
    """The id of the first category from `root` down whose products are not all in the categories below it."""
    return next(
        node.id
        for node in root.walk()
        if node.product_count > sum(child.product_count for child in node.children)
    )


def brand_counts(products: QuerySet[Product]) -> list[tuple[str, int]]:
    """The brands among them and how many products each has, in alphabetical order."""
    rows = products.order_by("brand").values("brand").annotate(products=Count("pk"))
    return [(row["brand"], row["products"]) for row in rows.values("brand", "products")]


def in_stock(products: QuerySet[Product]) -> QuerySet[Product]:
    """Those of which at least one piece can be sold now."""
    return products.filter(stock__on_hand__gt=F("stock__reserved"))


def rated_at_least(products: QuerySet[Product], stars: Decimal) -> QuerySet[Product]:
    """Those of `catalogue.active_products` whose mean is `stars` or better."""
    annotated: QuerySet[Any] = products  # `rating` is no column of the model
    return annotated.filter(rating__gte=stars)


def rating_spread(product: Product) -> tuple[RatingShare, ...]:
    """Five rows, best first, also for stars nobody gave."""
    counts = dict(
        catalogue.approved_reviews(product).order_by().values_list("rating").annotate(reviews=Count("pk"))
    )
    total = sum(counts.values())
    return tuple(
        RatingShare(
            stars=stars,
            count=counts.get(stars, 0),
            percent=round(100 * counts.get(stars, 0) / total) if total else 0,
        )
        for stars in range(5, 0, -1)
    )


def review_by(product: Product, user: User) -> Review | None:
    """What this user wrote about it, approved or not."""
    return Review.objects.filter(product=product, author=user).first()


def pictured(product_ids: Collection[int]) -> dict[int, Product]:
    """Products by id with their pictures, sold any more or not: for orders of long ago. Two queries."""
    return catalogue.all_products().in_bulk(list(product_ids))


def _first_image(product: Product) -> ProductImage | None:
    return next(iter(product.images.all()), None)
