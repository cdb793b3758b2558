"""Stock, reservations and movements.

Invariant, held by CHECK constraints: 0 ≤ reserved ≤ on_hand. What can be sold is `on_hand - reserved`.
"""

from django.db import models
from django.utils import timezone


class StockItem(models.Model):
    """The stock of one product."""

    product = models.OneToOneField("catalog.Product", on_delete=models.CASCADE, related_name="stock")
    on_hand = models.PositiveIntegerField(default=0, help_text="Pieces in the warehouse.")
    reserved = models.PositiveIntegerField(default=0, help_text="Of these, promised to orders not yet paid.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["product_id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(reserved__lte=models.F("on_hand")), name="stock_reserved_within_on_hand"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.available} of product {self.product_id}"

    @property
    def available(self) -> int:
        """Pieces that can be sold now."""
        return self.on_hand - self.reserved


class Reservation(models.Model):
    """Pieces promised to an order until it is paid, refused, or `expires_at` has passed."""

    class Status(models.TextChoices):
        """What became of the promise."""

        ACTIVE = "active"
        CONSUMED = "consumed", "sold"
        RELEASED = "released"

    stock_item = models.ForeignKey(StockItem, on_delete=models.CASCADE, related_name="reservations")
    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE, related_name="reservations")
    quantity = models.PositiveIntegerField()
    status = models.CharField(max_length=12, choices=Status, default=Status.ACTIVE)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["order", "stock_item"], name="reservation_one_per_order_and_item"
            ),
            models.CheckConstraint(condition=models.Q(quantity__gt=0), name="reservation_of_something"),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"], condition=models.Q(status="active"), name="reservation_active_expiry"
            )
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x item {self.stock_item_id} for order {self.order_id} ({self.status})"


class StockMovement(models.Model):
    """The ledger: why `on_hand` changed. The sum of an item's movements is its `on_hand`."""

    class Kind(models.TextChoices):
        """Reasons."""

        RECEIPT = "receipt"
        SALE = "sale"
        RETURN = "return"
        CORRECTION = "correction"

    stock_item = models.ForeignKey(StockItem, on_delete=models.CASCADE, related_name="movements")
    kind = models.CharField(max_length=12, choices=Kind)
    quantity = models.IntegerField(help_text="Positive when stock grew.")
    reference = models.CharField(max_length=40, blank=True, help_text="Order number or delivery note.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(quantity=0), name="movement_moves_something"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity:+d} {self.kind} {self.reference}".strip()
