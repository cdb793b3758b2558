"""What an order costs. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

FREE_SHIPPING_FROM = Decimal("50.00")
SHIPPING = Decimal("4.90")


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums in the currency of the lines, two places."""

    items: Decimal
    shipping: Decimal

    @property
    def total(self) -> Decimal:
        """What is charged."""
        return self.items + self.shipping


def total_up(line_totals: Iterable[Decimal]) -> Totals:
    """Sum of the lines, and shipping: a flat rate, free from FREE_SHIPPING_FROM on and for nothing at all."""
    items = sum(line_totals, Decimal("0.00"))
    free = items == 0 or items >= FREE_SHIPPING_FROM
    return Totals(items=items, shipping=Decimal("0.00") if free else SHIPPING)
