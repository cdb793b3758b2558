"""Orders in the admin: looked at, and moved on by actions that go through the services."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from monolith.config.admin import ReadOnlyAdmin
from monolith.errors import ShopError
from monolith.orders import checkout, services
from monolith.orders.models import Order, OrderEvent, OrderLine
from monolith.payments.provider import configured_provider


class OrderLineInline(ReadOnlyAdmin, admin.TabularInline[OrderLine, Order]):
    """What was bought."""

    model = OrderLine
    extra = 0
    fields = ["sku", "name", "unit_price", "quantity", "line_total"]


class OrderEventInline(ReadOnlyAdmin, admin.TabularInline[OrderEvent, Order]):
    """The order's history."""

    model = OrderEvent
    extra = 0


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin, admin.ModelAdmin[Order]):
    """All orders, newest first."""

    list_display = ["number", "user", "status", "total", "currency", "placed_at"]
    list_filter = ["status"]
    list_select_related = ["user"]
    search_fields = ["number", "user__email"]
    date_hierarchy = "placed_at"
    show_full_result_count = False
    inlines = [OrderLineInline, OrderEventInline]
    actions = ["mark_shipped", "mark_delivered", "refund"]

    @admin.action(description="Mark as shipped", permissions=["process"])
    def mark_shipped(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        """The parcels left."""
        self._each(request, orders, services.ship)

    @admin.action(description="Mark as delivered", permissions=["process"])
    def mark_delivered(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        """The parcels arrived."""
        self._each(request, orders, services.deliver)

    @admin.action(description="Refund orders that came back", permissions=["process"])
    def refund(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        """The parcels came back."""
        self._each(request, orders, lambda pk: checkout.refund_returned(pk, provider=configured_provider()))

    def has_process_permission(self, request: HttpRequest) -> bool:
        """Who may move orders on: those with the right to change them, though the form stays closed."""
        return request.user.has_perm("orders.change_order")

    def _each(self, request: HttpRequest, orders: QuerySet[Order], act: Callable[[int], Order]) -> None:
        for order in orders:
            try:
                act(order.pk)
            except ShopError as error:
                self.message_user(request, f"{order.number}: {error.message}", messages.WARNING)
            else:
                self.message_user(request, f"{order.number}: done", messages.SUCCESS)


@admin.register(OrderLine)
class OrderLineAdmin(ReadOnlyAdmin, admin.ModelAdmin[OrderLine]):
    """What was bought, over all orders."""

    list_display = ["order", "sku", "name", "unit_price", "quantity", "line_total"]
    list_select_related = ["order"]
    search_fields = ["order__number", "sku", "name"]
    show_full_result_count = False


@admin.register(OrderEvent)
class OrderEventAdmin(ReadOnlyAdmin, admin.ModelAdmin[OrderEvent]):
    """Steps of all orders."""

    list_display = ["at", "order", "from_status", "to_status", "note"]
    list_filter = ["to_status"]
    list_select_related = ["order"]
    search_fields = ["order__number"]
    date_hierarchy = "at"
