"""What a product list can be narrowed to and sorted by."""

from collections.abc import Iterable
from typing import Any

import django_filters
from django.db.models import F, OrderBy, QuerySet
from django.http import HttpRequest
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.views import APIView

from monolith.catalog import selectors
from monolith.catalog.models import Category, Product


def _categories(_request: HttpRequest | None) -> QuerySet[Category]:
    return Category.objects.all()


class ProductFilter(django_filters.FilterSet):  # type: ignore[misc]  # its base is untyped
    """`?category=&brand=&min_price=&max_price=&released_after=&search=`; a bad value is answered with 400."""

    category = django_filters.ModelChoiceFilter(
        queryset=_categories,
        to_field_name="slug",
        method="filter_category",
        help_text="Slug of a category; the ones below it are included.",
    )
    brand = django_filters.CharFilter(help_text="Exact name of the brand.")
    min_price = django_filters.NumberFilter(field_name="price", lookup_expr="gte")
    max_price = django_filters.NumberFilter(field_name="price", lookup_expr="lte")
    released_after = django_filters.DateFilter(
        field_name="released_on", lookup_expr="gte", help_text="Released on that day or later."
    )
    search = django_filters.CharFilter(
        method="filter_search", help_text="Words of name, brand and description; quotes, `or` and `-` work."
    )

    class Meta:
        model = Product
        fields: list[str] = []

    def filter_category(self, queryset: QuerySet[Product], _name: str, value: Category) -> QuerySet[Product]:
        """The category and all below."""
        return selectors.in_category(queryset, value)

    def filter_search(self, queryset: QuerySet[Product], _name: str, value: str) -> QuerySet[Product]:
        """Full text, best match first."""
        return selectors.search(queryset, value)


class ProductOrdering(OrderingFilter):
    """`?ordering=price,-rating`; unknown names are ignored, those without a rating come last, ties go by id.

    Without `ordering` the order of the list or the rank of the search stays.
    """

    ordering_fields = ("price", "name", "created_at", "rating")

    def get_valid_fields(self, *_args: Any, **_kwargs: Any) -> list[tuple[str, str]]:
        """Names a client may use."""
        return [(name, name) for name in self.ordering_fields]

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        """Sort, with the primary key as tiebreak so that pages never overlap."""
        names = self.get_ordering(request, queryset, view)
        return queryset.order_by(*ordering(names)) if names else queryset


def ordering(names: Iterable[str]) -> list[OrderBy]:
    """Sort expressions of names like `-price`, with the primary key at the end."""
    terms = [
        F(name.removeprefix("-")).desc(nulls_last=True)
        if name.startswith("-")
        else F(name).asc(nulls_last=True)
        for name in names
    ]
    return [*terms, F("pk").asc()]
