"""Writes of orders other than buying: steps through the table of statuses."""

from typing import ClassVar

from django.db import transaction

from monolith.errors import ShopError
from monolith.orders.models import Order, OrderEvent
from monolith.orders.signals import order_status_changed
from monolith.orders.status import OrderStatus, check_transition
from monolith.payments.models import Payment


class RefundAskedError(ShopError):
    """The order must not leave."""

    code: ClassVar[str] = "refund_asked"


def locked_order(order_id: int) -> Order:
    """The order, locked until the transaction ends."""
    return Order.objects.select_for_update(of=("self",)).get(pk=order_id)


def announce_new(order: Order) -> None:
    """First line of a new order's history."""
    OrderEvent.objects.create(order=order, to_status=order.status)
    _announce(order, "")


def move(order: Order, wanted: OrderStatus, *, note: str = "") -> None:
    """One step of a locked order. Raises IllegalTransitionError; listeners hear of it after the commit."""
    check_transition(order.state, wanted)
    before, order.status = order.status, wanted.value
    order.save(update_fields=["status", "updated_at"])
    OrderEvent.objects.create(order=order, from_status=before, to_status=wanted.value, note=note)
    _announce(order, before)


def ship(order_id: int) -> Order:
    """The parcel left. Raises RefundAskedError for an order whose money is on its way back."""
    with transaction.atomic():
        order = locked_order(order_id)  # a refund locks it too, so the payment cannot change under us
        if order.payment.status == Payment.Status.REFUNDING:
            raise RefundAskedError("The shopper has cancelled this order; its money is being returned.")
        move(order, OrderStatus.SHIPPED)
    return order


def deliver(order_id: int) -> Order:
    """The parcel arrived."""
    with transaction.atomic():
        order = locked_order(order_id)
        move(order, OrderStatus.DELIVERED)
    return order


def _announce(order: Order, before: str) -> None:
    order_id, after = order.pk, order.status  # as they are now: the order may move on before the commit

    def send() -> None:
        order_status_changed.send(Order, order_id=order_id, from_status=before, to_status=after)

    # robust: an e-mail that cannot be written must not turn a paid order into an error page; Django logs it
    # (by the function's name, so it cannot be a partial)
    transaction.on_commit(send, robust=True)
