"""Writes of the inventory. All of them lock the stock rows they touch, in the order of product ids.

The functions for orders run inside the caller's transaction: stock and order change together or not at all.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import ClassVar

from django.db import transaction

from monolith.errors import ShopError
from monolith.inventory.models import Reservation, StockItem, StockMovement
from monolith.orders.models import Order


class OutOfStockError(ShopError):
    """Somebody else was faster. `items` in the details: sku, wanted and available pieces."""

    code: ClassVar[str] = "out_of_stock"


def receive(*, product_id: int, quantity: int, reference: str = "") -> StockItem:
    """Goods arrived. Raises ValueError for less than one piece."""
    if quantity < 1:
        raise ValueError(f"a delivery of {quantity} pieces is none")
    with transaction.atomic():
        StockItem.objects.get_or_create(product_id=product_id)
        item = StockItem.objects.select_for_update().get(product_id=product_id)
        item.on_hand += quantity
        item.save(update_fields=["on_hand", "updated_at"])
        _record([item], StockMovement.Kind.RECEIPT, {item.pk: quantity}, reference=reference)
    return item


def correct(*, product_id: int, on_hand: int, reference: str = "") -> StockItem:
    """Stock was counted. Raises ShopError when fewer pieces were counted than are promised to orders."""
    with transaction.atomic():
        item = StockItem.objects.select_for_update().get(product_id=product_id)
        if on_hand < item.reserved:
            raise ShopError(
                f"{item.reserved} pieces are promised to orders, {on_hand} cannot be all there is"
            )
        difference, item.on_hand = on_hand - item.on_hand, on_hand
        if difference:
            item.save(update_fields=["on_hand", "updated_at"])
            _record([item], StockMovement.Kind.CORRECTION, {item.pk: difference}, reference=reference)
    return item


def reserve(order: Order, quantities: Mapping[int, int], *, until: datetime) -> None:
    """Promise `quantities` (by product id) to the order. Raises OutOfStockError and then promises nothing."""
    items = {item.product_id: item for item in _locked(quantities)}
    short = [
        product_id
        for product_id, wanted in sorted(quantities.items())
        if product_id not in items or items[product_id].available < wanted
    ]
    if short:
        raise OutOfStockError(
            "Some products are not available in that number any more.",
            items=[
                {
                    "product": product_id,
                    "wanted": quantities[product_id],
                    "available": items[product_id].available if product_id in items else 0,
                }
                for product_id in short
            ],
        )
    for product_id, wanted in quantities.items():
        items[product_id].reserved += wanted
        items[product_id].save(update_fields=["reserved", "updated_at"])
    Reservation.objects.bulk_create(
        Reservation(stock_item=items[product_id], order=order, quantity=wanted, expires_at=until)
        for product_id, wanted in quantities.items()
    )


def consume(order: Order) -> None:
    """The order is paid: what was promised leaves the warehouse."""
    sold = {}
    items = _active_items(order)
    for item, quantity in items:
        item.on_hand -= quantity
        item.reserved -= quantity
        item.save(update_fields=["on_hand", "reserved", "updated_at"])
        sold[item.pk] = -quantity
    _record([item for item, _ in items], StockMovement.Kind.SALE, sold, reference=order.number)
    _close(order, Reservation.Status.CONSUMED)


def release(order: Order) -> None:
    """The order came to nothing: what was promised can be sold again."""
    for item, quantity in _active_items(order):
        item.reserved -= quantity
        item.save(update_fields=["reserved", "updated_at"])
    _close(order, Reservation.Status.RELEASED)


def take_back(order: Order) -> None:
    """The order was refunded before it left: its pieces return to the shelf."""
    quantities = dict(order.lines.values_list("product_id", "quantity"))
    items = _locked(quantities)
    returned = {}
    for item in items:
        item.on_hand += quantities[item.product_id]
        item.save(update_fields=["on_hand", "updated_at"])
        returned[item.pk] = quantities[item.product_id]
    _record(items, StockMovement.Kind.RETURN, returned, reference=order.number)


def _locked(product_ids: Iterable[int]) -> list[StockItem]:
    return list(
        StockItem.objects.select_for_update().filter(product__in=list(product_ids)).order_by("product_id")
    )


def _active_items(order: Order) -> list[tuple[StockItem, int]]:
    # The order's own row is locked by the caller, so its reservations cannot change under us.
    promised = dict(
        Reservation.objects.filter(order=order, status=Reservation.Status.ACTIVE)
        .order_by()
        .values_list("stock_item__product_id", "quantity")
    )
    return [(item, promised[item.product_id]) for item in _locked(promised)]


def _close(order: Order, status: Reservation.Status) -> None:
    Reservation.objects.filter(order=order, status=Reservation.Status.ACTIVE).update(status=status)


def _record(
    items: Iterable[StockItem], kind: StockMovement.Kind, quantities: Mapping[int, int], *, reference: str
) -> None:
    StockMovement.objects.bulk_create(
        StockMovement(stock_item=item, kind=kind, quantity=quantities[item.pk], reference=reference)
        for item in items
    )
