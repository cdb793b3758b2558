"""Writes of the catalogue."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db import IntegrityError, transaction

from monolith.accounts.models import User
from monolith.catalog.models import Product, Review
from monolith.errors import ShopError

CHANGEABLE = frozenset(
    {
        "name", "brand", "description", "price", "currency", "attributes", "weight_kg", "category",
        "is_active", "released_on",
    }
)  # fmt: skip


class AlreadyReviewedError(ShopError):
    """The author has reviewed this product before."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "already_reviewed"


def update_product(product_id: int, changes: Mapping[str, Any]) -> Product:
    """Set the fields named in `changes`. Raises ValueError for a field that is not CHANGEABLE."""
    if unknown := changes.keys() - CHANGEABLE:
        raise ValueError(f"these fields of a product cannot be changed: {', '.join(sorted(unknown))}")
    with transaction.atomic():
        product = Product.objects.select_for_update(of=("self",)).defer("search").get(pk=product_id)
        for name, value in changes.items():
            setattr(product, name, value)
        product.save(update_fields=[*changes, "updated_at"])
    return product


def write_review(*, product: Product, author: User, rating: int, title: str, body: str = "") -> Review:
    """Publish a review. Raises AlreadyReviewedError for a second one by the same author."""
    try:
        with transaction.atomic():
            return Review.objects.create(
                product=product,
                author=author,
                author_name=author.public_name,
                rating=rating,
                title=title,
                body=body,
            )
    except IntegrityError as error:
        if "review_one_per_author" in str(error):
            raise AlreadyReviewedError("You have already reviewed this product.") from error
        raise
