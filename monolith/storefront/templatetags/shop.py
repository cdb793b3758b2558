"""Template tags of the storefront: amounts, stars, statuses."""

from decimal import Decimal
from typing import Any

from django import template
from django.core.paginator import Page

from monolith.orders.models import Order
from monolith.payments.models import Payment
from monolith.storefront import wording

register = template.Library()


@register.filter
def money(amount: Decimal, currency: str = "EUR") -> str:
    """`{{ product.price|money:product.currency }}`."""
    return wording.money(amount, currency)


@register.filter
def country(code: str) -> str:
    """`{{ address.country|country }}`."""
    return wording.country_name(code)


@register.filter
def stock(available: int) -> str:
    """`{{ card.available|stock }}`."""
    return wording.pieces(available)


@register.filter
def status_label(order: Order) -> str:
    """`{{ order|status_label }}`, for an order with its payment loaded."""
    return wording.status_label(order.state, Payment.Status(order.payment.status))


@register.inclusion_tag("storefront/parts/stars.html")
def stars(rating: Decimal | int | str | None, *, label: bool = True) -> dict[str, Any]:
    """`{% stars product.rating %}`: five stars, filled to `rating`; without `label` it is decoration only."""
    value = Decimal(rating or 0)
    return {"value": value, "percent": round(value * 20), "label": label}


@register.inclusion_tag("storefront/parts/pages.html", takes_context=True)
def pages(context: dict[str, Any], page: Page[Any], *, anchor: str = "", label: str = "") -> dict[str, Any]:
    """`{% pages listing.page %}`: links to the other pages; the rest of the address stays as it is."""
    numbers = page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1)
    return {
        "request": context["request"],
        "page": page,
        "page_range": list(numbers),
        "anchor": anchor,
        "label": label,
    }
