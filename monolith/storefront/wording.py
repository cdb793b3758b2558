"""How the shop's values read to a shopper. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from monolith.orders.status import OrderStatus
from monolith.payments.models import Payment

SHOP_NAME = "The Shop"

_SYMBOLS: Mapping[str, str] = {"EUR": "€", "GBP": "£", "USD": "$"}

COUNTRIES: Mapping[str, str] = {
    "AT": "Austria", "BE": "Belgium", "CH": "Switzerland", "CZ": "Czechia", "DE": "Germany", "DK": "Denmark",
    "ES": "Spain", "FI": "Finland", "FR": "France", "GB": "United Kingdom", "IE": "Ireland", "IT": "Italy",
    "LU": "Luxembourg", "NL": "Netherlands", "NO": "Norway", "PL": "Poland", "PT": "Portugal", "SE": "Sweden",
}  # fmt: skip
"""ISO 3166 codes the address form offers."""

_DECLINED: Mapping[str, str] = {
    "card_declined": "Your bank declined the card.",
    "insufficient_funds": "There is not enough money on the card.",
    "unknown_card": "The payment provider does not know this card.",
    "never_arrived": "The payment did not reach the provider.",
}

_JOURNEY = (OrderStatus.PENDING, OrderStatus.PAID, OrderStatus.SHIPPED, OrderStatus.DELIVERED)


def money(amount: Decimal, currency: str) -> str:
    """`1290` EUR → `€1,290.00`; a currency without a sign of its own keeps its code: `CHF 12.00`."""
    sign = _SYMBOLS.get(currency)
    return f"{sign}{amount:,.2f}" if sign else f"{currency} {amount:,.2f}"


def country_name(code: str) -> str:
    """The country's English name, or the code itself."""
    return COUNTRIES.get(code, code)


def decline_reason(code: str) -> str:
    """Why the provider took no money, as a sentence."""
    return _DECLINED.get(code, "The payment provider declined the payment.")


def status_label(status: OrderStatus, payment: Payment.Status) -> str:
    """Where an order stands, in a few words."""
    match status, payment:
        case _, Payment.Status.REFUNDING:
            return "Refund on its way"
        case OrderStatus.PENDING, Payment.Status.PROCESSING | Payment.Status.UNKNOWN:
            return "Payment being checked"
        case OrderStatus.CANCELLED, Payment.Status.DECLINED:
            return "Payment declined"
        case _:
            return step_label(status)


def step_label(status: OrderStatus) -> str:
    """A status as a step of an order's journey."""
    match status:
        case OrderStatus.PENDING:
            return "Ordered"
        case OrderStatus.PAID:
            return "Paid"
        case OrderStatus.SHIPPED:
            return "On its way"
        case OrderStatus.DELIVERED:
            return "Delivered"
        case OrderStatus.CANCELLED:
            return "Cancelled"
        case OrderStatus.REFUNDED:
            return "Refunded"


@dataclass(frozen=True, slots=True)
class Step:
    """A station of an order's journey; `at` is None for those still ahead."""

    label: str
    at: datetime | None
    current: bool


def journey(status: OrderStatus, reached: Mapping[OrderStatus, datetime]) -> tuple[Step, ...]:
    """The stations of an order that stands at `status`; `reached` says when it came to which.

    An order that ended early shows the stations it came to and its end, and nothing ahead.
    """
    ended = status not in _JOURNEY
    stations = [step for step in _JOURNEY if not ended or step in reached]
    if ended:
        stations.append(status)
    return tuple(
        Step(label=step_label(step), at=reached.get(step), current=step is status) for step in stations
    )


def attribute_rows(attributes: object) -> Iterator[tuple[str, str]]:
    """What the JSON column says, as a table; nothing when it holds something else than an object.

    `{"dimensions_cm": {"width": 3, "height": 4}}` → `("Dimensions (cm)", "width 3, height 4")`.
    """
    if not isinstance(attributes, Mapping):
        return
    for name, value in attributes.items():
        if text := _attribute(value):
            yield _attribute_name(name), text


def _attribute_name(name: str) -> str:
    words = name.replace("_", " ").strip().split(" ")
    if len(words) > 1 and words[-1] in {"cm", "mm", "m", "kg", "g", "l", "ml", "w", "years"}:
        words[-1] = f"({words[-1]})"
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _attribute(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_attribute(part)}" for name, part in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(_attribute(part) for part in value)
    return "" if value is None else str(value)


def pieces(available: int) -> str:
    """What a shopper learns about the stock: not how much there is, unless it is nearly gone."""
    if available <= 0:
        return "Sold out"
    return f"Only {available} left" if available <= 5 else "In stock"
