"""Orders, their lines and their history."""

import secrets

from django.conf import settings
from django.db import models
from django.utils import timezone

from monolith.orders.status import OrderStatus

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing to misread on the telephone
STATUS_CHOICES = [(status.value, status.value) for status in OrderStatus]


def new_order_number() -> str:
    """Ten random characters: says nothing about how much the shop sells, and cannot be guessed."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(10))


class Order(models.Model):
    """A purchase. Prices and the address are copies: later changes elsewhere do not reach them.

    `checkout_key` is the shopper's idempotency key, `checkout_fingerprint` a digest of what came with it.
    """

    number = models.CharField(max_length=12, unique=True, default=new_order_number, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders")
    status = models.CharField(max_length=12, choices=STATUS_CHOICES, default=OrderStatus.PENDING.value)
    currency = models.CharField(max_length=3)
    items_total = models.DecimalField(max_digits=12, decimal_places=2)
    shipping_total = models.DecimalField(max_digits=12, decimal_places=2)
    total = models.DecimalField(max_digits=12, decimal_places=2)
    recipient = models.CharField(max_length=120)
    line1 = models.CharField(max_length=120)
    line2 = models.CharField(max_length=120, blank=True)
    postcode = models.CharField(max_length=16)
    city = models.CharField(max_length=80)
    country = models.CharField(max_length=2)
    checkout_key = models.CharField(max_length=128)
    checkout_fingerprint = models.CharField(max_length=64)
    placed_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-placed_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["user", "checkout_key"], name="order_one_per_checkout_key"),
            models.CheckConstraint(
                condition=models.Q(total=models.F("items_total") + models.F("shipping_total")),
                name="order_total_adds_up",
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=[status.value for status in OrderStatus]),
                name="order_status_is_known",
            ),
        ]
        indexes = [
            models.Index(fields=["user", "-placed_at", "-id"], name="order_newest_of_user"),
            models.Index(fields=["status", "placed_at"], name="order_by_status"),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def state(self) -> OrderStatus:
        """The status as a member of the table."""
        return OrderStatus(self.status)


class OrderLine(models.Model):
    """A product as it was bought."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey("catalog.Product", on_delete=models.PROTECT, related_name="order_lines")
    sku = models.CharField(max_length=32)
    name = models.CharField(max_length=200)
    unit_price = models.DecimalField(max_digits=10, decimal_places=2)
    quantity = models.PositiveIntegerField()
    line_total = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["order", "product"], name="order_line_one_per_product"),
            models.CheckConstraint(condition=models.Q(quantity__gt=0), name="order_line_of_something"),
            models.CheckConstraint(
                condition=models.Q(line_total=models.F("unit_price") * models.F("quantity")),
                name="order_line_adds_up",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.name}"


class OrderEvent(models.Model):
    """A step of an order through the table of statuses; never changed, never deleted."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="events")
    from_status = models.CharField(max_length=12, blank=True)
    to_status = models.CharField(max_length=12)
    note = models.CharField(max_length=200, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return f"{self.from_status or 'new'} → {self.to_status}"
