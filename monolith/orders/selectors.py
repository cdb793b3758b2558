"""Reads of orders."""

from django.db.models import Count, QuerySet

from monolith.accounts.models import User
from monolith.orders.models import Order


def orders_of(user: User) -> QuerySet[Order]:
    """The user's orders with payment and `line_count`, newest first."""
    return (
        Order.objects.filter(user=user)
        .select_related("payment")
        .annotate(line_count=Count("lines"))
        .order_by("-placed_at", "-pk")
    )


def order_of(user: User, number: str) -> Order | None:
    """One order with lines and events; None for somebody else's."""
    return orders_of(user).prefetch_related("lines", "events").filter(number=number).first()
