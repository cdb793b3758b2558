"""Reads of the inventory."""

from collections.abc import Iterable

from monolith.inventory.models import StockItem


def available(product_ids: Iterable[int]) -> dict[int, int]:
    """Pieces that can be sold now, by product id; products without a stock row are left out: there are 0."""
    rows = StockItem.objects.filter(product__in=list(product_ids)).values_list(
        "product_id", "on_hand", "reserved"
    )
    return {product_id: on_hand - reserved for product_id, on_hand, reserved in rows}


def available_of(product_id: int) -> int:
    """Pieces of one product that can be sold now."""
    return available([product_id]).get(product_id, 0)
