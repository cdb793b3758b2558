"""Values → JSON, in the shop's names, key order and number formats.

Decimals are strings with their full scale, times are UTC with `Z`, days are ISO 8601, URLs are absolute.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urljoin

from chassis.drf.request import ApiRequest
from chassis.drf.urls import replace_parameter
from extracted.catalog.rules import (
    CategoryNode,
    CategoryPlace,
    Picture,
    Product,
    ProductDetail,
    Review,
    decimal_text,
)


@dataclass(frozen=True, slots=True)
class Links:
    """Absolute URLs for one request.

    `media` is where pictures are served: a path, or a URL of its own. `format` is the request's `?format=`,
    which REST framework keeps in the links it makes (`preserve_builtin_query_params`).
    """

    request: ApiRequest
    media: str
    format: str | None

    def product(self, slug: str) -> str:
        """The product's own page of the API."""
        url = self.request.absolute(f"/api/products/{slug}/")
        return url if self.format is None else replace_parameter(url, "format", self.format)

    def picture(self, file: str) -> str:
        """The picture, escaped as Django's `filepath_to_uri` does."""
        name = quote(file.replace("\\", "/"), safe="/~!*()'").lstrip("/")
        return self.request.absolute(urljoin(self.media, name))


def product(item: Product, links: Links) -> dict[str, Any]:
    """A product in a list."""
    return {
        "id": item.id,
        "sku": item.sku,
        "slug": item.slug,
        "url": links.product(item.slug),
        "name": item.title,
        "brand": item.brand,
        "price": decimal_text(item.price_cents, 2),
        "currency": item.currency,
        "category": {"id": item.category_id, "slug": item.category_slug, "name": item.category_title},
        "image": None if item.first_picture is None else links.picture(item.first_picture),
        "rating": None if item.rating is None else f"{item.rating:.2f}",
        "review_count": item.review_count,
        "released_on": None if item.released_on is None else item.released_on.isoformat(),
        "created_at": timestamp(item.created_at),
        "updated_at": timestamp(item.changed_at),
    }


def product_detail(item: ProductDetail, links: Links) -> dict[str, Any]:
    """A product's own page."""
    return {
        **product(item.product, links),
        "description": item.description,
        "attributes": item.attributes,
        "weight_kg": None if item.weight_grams is None else decimal_text(item.weight_grams, 3),
        "images": [_picture(picture, links) for picture in item.pictures],
    }


def review(item: Review) -> dict[str, Any]:
    """A review as readers see it."""
    return {
        "id": item.id,
        "author_name": item.byline,
        "rating": item.rating,
        "title": item.title,
        "body": item.body,
        "created_at": timestamp(item.written_at),
    }


def category_tree(node: CategoryNode) -> dict[str, Any]:
    """A category and everything below it."""
    return {**_category(node), "children": [category_tree(child) for child in node.children]}


def category_place(place: CategoryPlace) -> dict[str, Any]:
    """A category, the way to it and the categories right below."""
    return {
        **_category(place.node),
        "breadcrumbs": [_category(node) for node in place.breadcrumbs],
        "children": [_category(node) for node in place.node.children],
    }


def timestamp(moment: datetime) -> str:
    """ISO 8601; microseconds only when there are some, `Z` for UTC. `moment` is in UTC."""
    return moment.isoformat().removesuffix("+00:00") + "Z"


def _category(node: CategoryNode) -> dict[str, Any]:
    return {"id": node.id, "slug": node.slug, "name": node.title, "product_count": node.product_count}


def _picture(picture: Picture, links: Links) -> dict[str, Any]:
    return {
        "image": links.picture(picture.file) if picture.file else None,
        "alt": picture.alt,
        "position": picture.sort_key,
    }
