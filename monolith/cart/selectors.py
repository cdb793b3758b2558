"""Reads of carts."""

from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Prefetch, QuerySet, Sum

from monolith.cart.models import CartItem
from monolith.cart.session import CartOwner
from monolith.catalog.models import Product, ProductImage
from monolith.inventory import selectors as inventory
from monolith.orders.pricing import Totals, total_up


@dataclass(frozen=True, slots=True)
class CartLine:
    """One item with today's price. `buyable`: active and enough in stock."""

    id: int
    product: Product
    quantity: int
    line_total: Decimal
    available: int

    @property
    def buyable(self) -> bool:
        """Whether this line would pass the checkout now."""
        return self.product.is_active and self.quantity <= self.available


@dataclass(frozen=True, slots=True)
class CartContents:
    """A cart as shown to its owner."""

    items: tuple[CartLine, ...]
    totals: Totals

    @property
    def count(self) -> int:
        """Pieces in the cart."""
        return sum(line.quantity for line in self.items)

    @property
    def buyable(self) -> bool:
        """Whether the cart would pass the checkout now."""
        return bool(self.items) and all(line.buyable for line in self.items)


def contents(owner: CartOwner) -> CartContents:
    """What lies in the owner's cart, in three queries."""
    items = [] if owner == CartOwner() else list(_items(owner))
    available = inventory.available(item.product_id for item in items) if items else {}
    lines = tuple(
        CartLine(
            id=item.pk,
            product=item.product,
            quantity=item.quantity,
            line_total=item.product.price * item.quantity,
            available=available.get(item.product_id, 0),
        )
        for item in items
    )
    return CartContents(items=lines, totals=total_up(line.line_total for line in lines))


def count(owner: CartOwner) -> int:
    """Pieces in the owner's cart, for the badge in the page's head."""
    if owner == CartOwner():
        return 0
    return _of(owner).aggregate(pieces=Sum("quantity"))["pieces"] or 0


def _of(owner: CartOwner) -> QuerySet[CartItem]:
    if owner.user_id is not None:
        return CartItem.objects.filter(cart__user=owner.user_id)
    return CartItem.objects.filter(cart__token=owner.token)


def _items(owner: CartOwner) -> QuerySet[CartItem]:
    return (
        _of(owner)
        .select_related("product")
        .defer("product__search", "product__description", "product__attributes")
        .prefetch_related(Prefetch("product__images", ProductImage.objects.order_by("position", "pk")))
        .order_by("added_at", "pk")
    )
