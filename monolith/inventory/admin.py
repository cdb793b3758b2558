"""The inventory in the admin: numbers are corrected by services, so that the ledger stays complete."""

from django.contrib import admin
from django.http import HttpRequest

from monolith.config.admin import ReadOnlyAdmin
from monolith.inventory.models import Reservation, StockItem, StockMovement


@admin.register(StockItem)
class StockItemAdmin(admin.ModelAdmin[StockItem]):
    """Stock of all products."""

    list_display = ["product", "on_hand", "reserved", "available", "updated_at"]
    list_select_related = ["product"]
    search_fields = ["product__sku", "product__name"]
    readonly_fields = ["product", "on_hand", "reserved", "updated_at"]
    show_full_result_count = False

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Stock begins with a delivery."""
        return False


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin, admin.ModelAdmin[Reservation]):
    """Promises to orders."""

    list_display = ["order", "stock_item", "quantity", "status", "expires_at"]
    list_filter = ["status"]
    list_select_related = ["order", "stock_item__product"]
    search_fields = ["order__number", "stock_item__product__sku"]


@admin.register(StockMovement)
class StockMovementAdmin(ReadOnlyAdmin, admin.ModelAdmin[StockMovement]):
    """Why stock changed."""

    list_display = ["created_at", "stock_item", "kind", "quantity", "reference"]
    list_filter = ["kind"]
    list_select_related = ["stock_item__product"]
    search_fields = ["reference", "stock_item__product__sku"]
    date_hierarchy = "created_at"
