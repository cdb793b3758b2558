"""Buying: from a cart to a paid order, and what becomes of the money afterwards.

A checkout is two transactions with the payment provider between them:

1. **Place**, one atomic act: stock is promised, the order and its payment are written, all or nothing.
2. **Ask** the provider, outside any transaction: no row is locked while a foreign server thinks.
3. **Settle**, one atomic act for each answer: payment, order, stock and cart change together. An answer that
   comes again, or through the webhook at the same time, finds the payment changed and does nothing.

The payment is written as `processing` *before* the provider is asked. If the process dies or the answer is
lost between 1 and 3, the row says so, the stock stays promised, and `reconcile` asks the provider what became
of it.

Locks are always taken in this order, so no two of these acts can wait for each other in a circle:
**cart → order → payment → stock (by product id).**
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from monolith.accounts import selectors as accounts
from monolith.accounts.models import Address, User
from monolith.cart import services as carts
from monolith.cart.models import Cart, CartItem
from monolith.errors import ShopError
from monolith.inventory import services as inventory
from monolith.orders.models import Order, OrderLine
from monolith.orders.pricing import total_up
from monolith.orders.services import announce_new, locked_order, move
from monolith.orders.status import OrderStatus
from monolith.payments import services as payments
from monolith.payments.models import Payment
from monolith.payments.provider import PaymentProvider, ProviderAnswer, ProviderTimeoutError
from monolith.payments.selectors import unsettled

_log = logging.getLogger(__name__)


class EmptyCartError(ShopError):
    """There is nothing to buy."""

    code: ClassVar[str] = "empty_cart"


class NotForSaleAnyMoreError(ShopError):
    """Something in the cart was taken out of the catalogue."""

    code: ClassVar[str] = "not_for_sale"


class PriceChangedError(ShopError):
    """The total is not what the shopper agreed to. `total` in the details is today's."""

    code: ClassVar[str] = "price_changed"


class UnknownAddressError(ShopError):
    """The address does not exist or is somebody else's."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "unknown_address"


class KeyReusedError(ShopError):
    """The idempotency key was used before, for something else."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "key_reused"


class PaymentPendingError(ShopError):
    """The provider may have taken the money; first that must be known."""

    code: ClassVar[str] = "payment_pending"


class TooLateError(ShopError):
    """The order has gone too far, or has come to its end."""

    code: ClassVar[str] = "too_late"


@dataclass(frozen=True, slots=True)
class CheckoutRequest:
    """What a shopper sends. `key`: the same for repetitions of one click, at most 128 characters.

    `expected_total`, where given, is the total the shopper saw.
    """

    user: User
    address_id: int
    payment_token: str
    key: str
    expected_total: Decimal | None = None

    @property
    def fingerprint(self) -> str:
        """Tells a repetition from another purchase under the same key."""
        content = [self.address_id, self.payment_token, str(self.expected_total)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CheckoutResult:
    """The order as it stands now, its payment, and whether the key had been seen before."""

    order: Order
    payment: Payment
    repeated: bool


def check_out(request: CheckoutRequest, *, provider: PaymentProvider) -> CheckoutResult:
    """Buy what lies in the user's cart.

    The result's payment is captured, declined (the order is cancelled, the cart kept), unknown (no answer
    yet), or processing (a repetition while the first request is still at it). Raises EmptyCartError,
    NotForSaleAnyMoreError, OutOfStockError, PriceChangedError, UnknownAddressError, KeyReusedError: nothing
    has changed then.
    """
    placed = place(request)
    if not placed.repeated:
        _ask_for_money(placed.payment, provider=provider)
    order = Order.objects.select_related("payment").get(pk=placed.order.pk)
    return CheckoutResult(order=order, payment=order.payment, repeated=placed.repeated)


def place(request: CheckoutRequest, *, now: datetime | None = None) -> CheckoutResult:
    """Step 1: promise the stock, write order and payment. One transaction; raises as `check_out` does."""
    now = now or timezone.now()
    with transaction.atomic():
        cart = carts.lock_cart_of(request.user.pk)
        # Under the cart's lock: a repetition waits here until the first request has written its order.
        if earlier := Order.objects.filter(user=request.user, checkout_key=request.key).first():
            if earlier.checkout_fingerprint != request.fingerprint:
                raise KeyReusedError("This Idempotency-Key was used for another checkout; make a new one.")
            return CheckoutResult(order=earlier, payment=earlier.payment, repeated=True)
        items = _items_to_buy(cart)
        address = accounts.address_of(request.user, request.address_id)
        if address is None:
            raise UnknownAddressError("There is no such address in your account.")
        order = _write_order(request, items=items, address=address, now=now)
        inventory.reserve(
            order,
            {item.product_id: item.quantity for item in items},
            until=now + timedelta(minutes=settings.STOCK_RESERVATION_MINUTES),
        )
        payment = payments.open_payment(order, token=request.payment_token)
        announce_new(order)
    return CheckoutResult(order=order, payment=payment, repeated=False)


def settle(answer: ProviderAnswer) -> Order:
    """Step 3: let one answer of the provider take effect, once. Raises UnknownPaymentError."""
    known = Payment.objects.filter(key=answer.key).values_list("order_id", "order__user_id").first()
    if known is None:
        raise payments.UnknownPaymentError("The shop knows no such payment.")
    order_id, user_id = known
    with transaction.atomic():
        cart = carts.lock_cart_of(user_id)
        order = locked_order(order_id)
        payment = payments.locked_payment(answer.key)
        if payments.record(payment, answer):
            _apply(order, payment, cart)
    return order


def cancel(order_id: int, *, provider: PaymentProvider) -> Order:
    """The shopper changed their mind before the parcel left: the money goes back, the pieces to the shelf.

    Raises PaymentPendingError while the provider's answer is missing, TooLateError when it is too late.
    """
    return _refund(order_id, provider=provider, allowed=OrderStatus.PAID)


def refund_returned(order_id: int, *, provider: PaymentProvider) -> Order:
    """The parcel came back: the money goes back. The pieces are looked at before `inventory.correct`.

    Raises as `cancel` does.
    """
    return _refund(order_id, provider=provider, allowed=OrderStatus.DELIVERED)


def reconcile(
    *, provider: PaymentProvider, older_than: timedelta, now: datetime | None = None
) -> Iterator[str]:
    """Find out what became of payments without an answer; one line of report for each.

    Payments younger than `older_than` are left alone: their request may still be at it. When the provider
    never heard of a payment the order is cancelled. When it cannot be reached, the order is cancelled once
    its promise of stock has expired; should the money have been taken after all, it is given back when that
    comes to light.
    """
    now = now or timezone.now()
    for payment in unsettled().filter(updated_at__lte=now - older_than):
        number = payment.order.number
        try:
            if payment.status == Payment.Status.REFUNDING:
                settle(provider.refund(key=payment.key, reference=payment.reference, amount=payment.amount))
                yield f"{number}: refunded"
            elif answer := provider.look_up(key=payment.key, token=payment.token):
                settle(answer)
                yield f"{number}: {answer.outcome}"
            else:
                _give_up(payment, note="the payment never reached the provider", lost=True)
                yield f"{number}: cancelled, the provider never heard of the payment"
        except ProviderTimeoutError:
            if _promise_expired(payment, now) and _give_up(
                payment, note="no answer about the payment", lost=False
            ):
                yield f"{number}: cancelled, the provider did not answer in time"
            else:
                yield f"{number}: still no answer"


def _items_to_buy(cart: Cart | None) -> list[CartItem]:
    items = list(cart.items.select_related("product").order_by("product_id")) if cart else []
    if not items:
        raise EmptyCartError("The cart is empty.")
    if gone := [item.product.sku for item in items if not item.product.is_active]:
        raise NotForSaleAnyMoreError("Some products in the cart are not for sale any more.", skus=gone)
    if len({item.product.currency for item in items}) > 1:
        raise ShopError("Products in different currencies cannot be bought together.")
    return items


def _write_order(
    request: CheckoutRequest, *, items: list[CartItem], address: Address, now: datetime
) -> Order:
    totals = total_up(item.product.price * item.quantity for item in items)
    if request.expected_total is not None and request.expected_total != totals.total:
        raise PriceChangedError(
            "A price has changed; please look at the cart again.", total=str(totals.total)
        )
    order = Order.objects.create(
        user=request.user,
        currency=items[0].product.currency,
        items_total=totals.items,
        shipping_total=totals.shipping,
        total=totals.total,
        recipient=address.recipient,
        line1=address.line1,
        line2=address.line2,
        postcode=address.postcode,
        city=address.city,
        country=address.country,
        checkout_key=request.key,
        checkout_fingerprint=request.fingerprint,
        placed_at=now,
    )
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            product=item.product,
            sku=item.product.sku,
            name=item.product.name,
            unit_price=item.product.price,
            quantity=item.quantity,
            line_total=item.product.price * item.quantity,
        )
        for item in items
    )
    return order


def _ask_for_money(payment: Payment, *, provider: PaymentProvider) -> None:
    try:
        answers = provider.charge(
            key=payment.key, amount=payment.amount, currency=payment.currency, token=payment.token
        )
    except ProviderTimeoutError:
        _log.warning("no answer of the payment provider", extra={"payment": str(payment.key)})
        payments.mark_unknown(payment.key)
        return
    for answer in answers:
        settle(answer)


def _refund(order_id: int, *, provider: PaymentProvider, allowed: OrderStatus) -> Order:
    with transaction.atomic():
        order = locked_order(order_id)
        payment = payments.locked_payment(order.payment.key)
        if payment.in_flight:
            raise PaymentPendingError("The payment is still being checked; try again in a few minutes.")
        if order.state is not allowed:
            raise TooLateError(
                f"The order is {order.status}; only a {allowed} one can be refunded like this."
            )
        if payment.status == Payment.Status.CAPTURED:
            payments.mark_refunding(payment)  # the intent first: reconcile carries on from here
    _ask_for_refund(payment, provider=provider)
    return Order.objects.select_related("payment").get(pk=order_id)


def _ask_for_refund(payment: Payment, *, provider: PaymentProvider) -> None:
    try:
        answer = provider.refund(key=payment.key, reference=payment.reference, amount=payment.amount)
    except ProviderTimeoutError:
        _log.warning("no answer about a refund", extra={"payment": str(payment.key)})  # reconcile asks again
        return
    settle(answer)


def _apply(order: Order, payment: Payment, cart: Cart | None) -> None:
    """What a changed payment means for the rest; everything is locked."""
    match Payment.Status(payment.status):
        case Payment.Status.CAPTURED if order.state is OrderStatus.PENDING:
            inventory.consume(order)
            move(order, OrderStatus.PAID)
            if cart is not None:
                carts.remove_bought(cart, dict(order.lines.values_list("product_id", "quantity")))
        case Payment.Status.CAPTURED:
            # We had given up on this payment. The money goes back; the intent is written before it is asked
            # for.
            _log.warning("late capture of a cancelled order", extra={"order": order.number})
            payments.mark_refunding(payment)
        case Payment.Status.DECLINED if order.state is OrderStatus.PENDING:
            inventory.release(order)
            move(order, OrderStatus.CANCELLED, note=f"payment declined: {payment.decline_code}")
        case Payment.Status.REFUNDED if order.state is OrderStatus.PAID:
            inventory.take_back(order)
            move(order, OrderStatus.REFUNDED)
        case Payment.Status.REFUNDED if order.state is OrderStatus.DELIVERED:
            move(order, OrderStatus.REFUNDED)
        case _:  # the order was cancelled before; only the payment's own row had to change
            pass


def _give_up(payment: Payment, *, note: str, lost: bool) -> bool:
    """Cancel the order of a payment without an answer; False when an answer came meanwhile."""
    with transaction.atomic():
        order = locked_order(payment.order_id)
        current = payments.locked_payment(payment.key)
        if not current.in_flight or order.state is not OrderStatus.PENDING:
            return False
        inventory.release(order)
        move(order, OrderStatus.CANCELLED, note=note)
        if lost:
            current.status = Payment.Status.DECLINED
            current.decline_code = "never_arrived"
            current.save(update_fields=["status", "decline_code", "updated_at"])
    return True


def _promise_expired(payment: Payment, now: datetime) -> bool:
    return payment.order.reservations.filter(status="active", expires_at__lte=now).exists()
