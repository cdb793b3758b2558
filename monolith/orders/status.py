"""What may become of an order: a table. Pure.

pending ──► paid ──► shipped ──► delivered
   │          │                      │
   ▼          ▼                      ▼
cancelled  refunded ◄────────────────┘
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from monolith.errors import ShopError


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PENDING: frozenset({OrderStatus.PAID, OrderStatus.CANCELLED}),
    OrderStatus.PAID: frozenset({OrderStatus.SHIPPED, OrderStatus.REFUNDED}),
    OrderStatus.SHIPPED: frozenset({OrderStatus.DELIVERED}),
    OrderStatus.DELIVERED: frozenset({OrderStatus.REFUNDED}),
    OrderStatus.CANCELLED: frozenset(),
    OrderStatus.REFUNDED: frozenset(),
}


class IllegalTransitionError(ShopError):
    """The table has no such step."""

    code: ClassVar[str] = "illegal_transition"


def check_transition(current: OrderStatus, wanted: OrderStatus) -> None:
    """Raises IllegalTransitionError unless the table has the step."""
    if wanted not in TRANSITIONS[current]:
        possible = ", ".join(sorted(TRANSITIONS[current])) or "nothing else"
        raise IllegalTransitionError(
            f"A {current} order cannot become {wanted}; it can become {possible}.",
            status=current,
            possible=sorted(TRANSITIONS[current]),
        )
