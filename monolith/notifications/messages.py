"""What the e-mails say. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What a message may tell of an order."""

    number: str
    name: str
    total: Decimal
    currency: str
    lines: tuple[tuple[int, str, Decimal], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """Subject and plain text."""

    subject: str
    body: str


_TEXTS: Mapping[str, tuple[str, str]] = {
    "paid": (
        "Thank you for your order {number}",
        "We have received your payment and are packing your parcel.",
    ),
    "shipped": ("Your order {number} is on its way", "Your parcel left our warehouse today."),
    "delivered": ("Your order {number} has arrived", "We hope you like it. A review helps other shoppers."),
    "cancelled": ("Your order {number} was cancelled", "Nothing will be charged for it."),
    "refunded": ("Your order {number} was refunded", "The money is on its way back to you."),
}


def message_for(status: str, facts: OrderFacts) -> Message | None:
    """The e-mail about an order that has become `status`; None where there is nothing to tell."""
    texts = _TEXTS.get(status)
    if texts is None:
        return None
    subject, sentence = texts
    lines = "\n".join(
        f"  {quantity} x {name}: {total} {facts.currency}" for quantity, name, total in facts.lines
    )
    body = (
        f"Hello {facts.name},\n\n{sentence}\n\n{lines}\n\nTotal: {facts.total} {facts.currency}\n\nThe shop\n"
    )
    return Message(subject=subject.format(number=facts.number), body=body)
