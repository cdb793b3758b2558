"""Payments and the provider's answers."""

import uuid

from django.db import models
from django.utils import timezone


class Payment(models.Model):
    """The one payment of an order.

    `key` goes to the provider with every request about this payment, so that asking twice never charges
    twice. `PROCESSING` is written before the provider is asked: whatever happens then, the row remembers that
    it was.
    """

    class Status(models.TextChoices):
        """Where the money is."""

        PROCESSING = "processing", "asked, no answer yet"
        UNKNOWN = "unknown", "asked, the answer was lost"
        CAPTURED = "captured", "paid"
        DECLINED = "declined"
        REFUNDING = "refunding", "refund asked for"
        REFUNDED = "refunded"

    order = models.OneToOneField("orders.Order", on_delete=models.PROTECT, related_name="payment")
    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    token = models.CharField(max_length=64, help_text="Stands for the card; the shop never sees its number.")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=12, choices=Status, default=Status.PROCESSING)
    reference = models.CharField(max_length=40, blank=True, help_text="The provider's name for the charge.")
    decline_code = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="payment_of_something"),
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=models.Q(status__in=["processing", "unknown", "refunding"]),
                name="payment_unsettled",
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} ({self.status})"

    @property
    def in_flight(self) -> bool:
        """Whether the provider may have taken the money without our knowing."""
        return self.status in {Payment.Status.PROCESSING, Payment.Status.UNKNOWN}


class PaymentEvent(models.Model):
    """An answer of the provider, kept once however often it arrives."""

    event_id = models.CharField(max_length=64, unique=True)
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="events")
    outcome = models.CharField(max_length=12)
    applied = models.BooleanField(help_text="False: it came too late or contradicts an earlier answer.")
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["received_at", "pk"]

    def __str__(self) -> str:
        return f"{self.outcome} ({self.event_id})"
