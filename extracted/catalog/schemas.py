"""The catalogue's JSON as pydantic models: documentation for OpenAPI, and a check in the tests.

Answers are written by `representation`; a test validates them against these models, so neither can drift.
"""

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

DecimalText = Annotated[str, Field(pattern=r"^-?\d+\.\d+$", examples=["12.50"])]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CategoryReference(_Shape):
    """Enough of a category to link to it."""

    id: int
    slug: str
    name: str


class CategorySummary(CategoryReference):
    """A category; `product_count` includes everything below it."""

    product_count: int


class CategoryTree(CategorySummary):
    """A category and everything below it."""

    children: list["CategoryTree"]


class CategoryDetail(CategorySummary):
    """A category, the way to it and the categories right below."""

    breadcrumbs: list[CategorySummary]
    children: list[CategorySummary]


class Product(_Shape):
    """A product in a list."""

    id: int
    sku: str
    slug: str
    url: str
    name: str
    brand: str
    price: DecimalText
    currency: str
    category: CategoryReference
    image: str | None
    rating: DecimalText | None
    review_count: int
    released_on: date | None
    created_at: datetime
    updated_at: datetime


class Image(_Shape):
    """A picture of a product."""

    image: str | None
    alt: str
    position: int


class ProductDetail(Product):
    """A product's own page."""

    description: str
    attributes: Any
    weight_kg: DecimalText | None
    images: list[Image]


class Review(_Shape):
    """An approved review."""

    id: int
    author_name: str
    rating: Annotated[int, Field(ge=1, le=5)]
    title: str
    body: str
    created_at: datetime


class _Page(_Shape):
    count: int
    next: str | None
    previous: str | None


class ProductPage(_Page):
    """One page of products."""

    results: list[Product]


class ReviewPage(_Page):
    """One page of reviews, newest first."""

    results: list[Review]
