"""Reads of the catalogue. Everything here touches the tables of this app only."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib.postgres.search import SearchQuery, SearchRank
from django.db.models import Avg, Count, DecimalField, F, IntegerField, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce, Round

from monolith.catalog.models import SEARCH_CONFIG, Category, Product, ProductImage, Review


@dataclass(frozen=True, slots=True)
class CategoryNode:
    """A category in its tree; `product_count` includes the active products of all categories below."""

    id: int
    slug: str
    name: str
    position: int
    product_count: int
    parent_id: int | None
    children: tuple["CategoryNode", ...]

    def walk(self) -> Iterator["CategoryNode"]:
        """This node and all below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class CategoryPlace:
    """A category with the way to it: `breadcrumbs` from the root to the parent."""

    node: CategoryNode
    breadcrumbs: tuple[CategoryNode, ...]


def all_products() -> QuerySet[Product]:
    """Products with `rating` (mean of the approved reviews, two places, or None), `review_count` and images.

    The description, the attributes and the search vector are left out: lists do not show them. Order: newest
    first.
    """
    approved = Review.objects.filter(product=OuterRef("pk"), is_approved=True).order_by().values("product")
    mean = Round(Avg("rating", output_field=DecimalField(max_digits=3, decimal_places=2)), precision=2)
    return (
        Product.objects.select_related("category")
        .defer("description", "attributes", "search")
        .annotate(
            rating=Subquery(
                approved.annotate(value=mean).values("value"),
                output_field=DecimalField(max_digits=3, decimal_places=2),
            ),
            review_count=Coalesce(
                Subquery(approved.annotate(value=Count("pk")).values("value"), output_field=IntegerField()), 0
            ),
        )
        .prefetch_related(Prefetch("images", ProductImage.objects.order_by("position", "pk")))
        .order_by("-created_at", "pk")
    )


def active_products() -> QuerySet[Product]:
    """`all_products` that shoppers may see."""
    return all_products().filter(is_active=True)


def reviewable_products() -> QuerySet[Product]:
    """Active products without anything that a page of reviews does not need."""
    return Product.objects.filter(is_active=True).only("pk", "slug").order_by("pk")


def with_details(products: QuerySet[Product]) -> QuerySet[Product]:
    """Load description and attributes too, for a product's own page."""
    return products.defer(None).defer("search")


def search(products: QuerySet[Product], words: str) -> QuerySet[Product]:
    """Those that match `words` (web search syntax: quotes, `or`, `-`), each with its `rank`; best first."""
    query = SearchQuery(words, config=SEARCH_CONFIG, search_type="websearch")
    return (
        products.filter(search=query)
        .annotate(rank=SearchRank(F("search"), query))
        .order_by(F("rank").desc(), "pk")
    )


def in_category(products: QuerySet[Product], category: Category) -> QuerySet[Product]:
    """Those of the category and of all below it."""
    return products.filter(category__in=descendant_ids(category.pk))


def descendant_ids(category_id: int) -> list[int]:
    """The category and everything below it, in one query."""
    children: defaultdict[int | None, list[int]] = defaultdict(list)
    for pk, parent in Category.objects.order_by().values_list("pk", "parent_id"):
        children[parent].append(pk)
    found = [category_id]
    for pk in found:  # grows while it is read
        found.extend(children[pk])
    return found


def category_tree() -> tuple[CategoryNode, ...]:
    """The roots with everything below them, in two queries."""
    counts = dict(
        Product.objects.filter(is_active=True)
        .order_by()
        .values_list("category_id")
        .annotate(count=Count("pk"))
        .values_list("category_id", "count")
    )
    children: defaultdict[int | None, list[Category]] = defaultdict(list)
    for category in Category.objects.order_by("position", "pk"):
        children[category.parent_id].append(category)

    def build(category: Category) -> CategoryNode:
        below = tuple(build(child) for child in children[category.pk])
        return CategoryNode(
            id=category.pk,
            slug=category.slug,
            name=category.name,
            position=category.position,
            product_count=counts.get(category.pk, 0) + sum(node.product_count for node in below),
            parent_id=category.parent_id,
            children=below,
        )

    return tuple(build(root) for root in children[None])


def category_place(slug: str) -> CategoryPlace | None:
    """The category of that slug with its breadcrumbs and children, or None."""

    def look(nodes: tuple[CategoryNode, ...], way: tuple[CategoryNode, ...]) -> CategoryPlace | None:
        for node in nodes:
            if node.slug == slug:
                return CategoryPlace(node=node, breadcrumbs=way)
            if found := look(node.children, (*way, node)):
                return found
        return None

    return look(category_tree(), ())


def breadcrumbs(category: Category) -> tuple[CategoryNode, ...]:
    """The way from the root to `category`, which is the last one."""
    place = category_place(category.slug)
    return (*place.breadcrumbs, place.node) if place else ()


def brands(products: QuerySet[Product]) -> list[str]:
    """The brands among them, in alphabetical order."""
    return list(products.order_by("brand").values_list("brand", flat=True).distinct())


def approved_reviews(product: Product) -> QuerySet[Review]:
    """What readers see, newest first."""
    return Review.objects.filter(product=product, is_approved=True).order_by("-created_at", "-pk")
