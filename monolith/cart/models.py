"""Carts and what lies in them."""

from django.conf import settings
from django.db import models
from django.utils import timezone

MOST_OF_ONE = 99
"""Pieces of one product a cart may hold."""


class Cart(models.Model):
    """Belongs to a user, or to whoever knows `token` (kept in an anonymous session): one of the two."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="cart"
    )
    token = models.UUIDField(null=True, blank=True, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user__isnull=False, token__isnull=True)
                | models.Q(user__isnull=True, token__isnull=False),
                name="cart_has_one_owner",
            ),
        ]

    def __str__(self) -> str:
        return f"cart of user {self.user_id}" if self.user_id else f"anonymous cart {self.token}"


class CartItem(models.Model):
    """A product and how many of it; prices are the catalogue's until checkout."""

    cart = models.ForeignKey(Cart, on_delete=models.CASCADE, related_name="items")
    product = models.ForeignKey("catalog.Product", on_delete=models.CASCADE, related_name="+")
    quantity = models.PositiveIntegerField()
    added_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["added_at", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["cart", "product"], name="cart_item_one_per_product"),
            models.CheckConstraint(
                condition=models.Q(quantity__range=(1, MOST_OF_ONE)), name="cart_item_quantity_in_range"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x product {self.product_id}"
