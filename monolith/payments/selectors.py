"""Reads of payments."""

from django.db.models import QuerySet

from monolith.payments.models import Payment


def unsettled() -> QuerySet[Payment]:
    """Payments that wait for an answer of the provider, oldest first."""
    waiting = [Payment.Status.PROCESSING, Payment.Status.UNKNOWN, Payment.Status.REFUNDING]
    return Payment.objects.filter(status__in=waiting).select_related("order").order_by("created_at", "pk")
