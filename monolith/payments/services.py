"""Writes of payments. What an answer means for the order is `monolith.orders.checkout`'s business."""

from typing import ClassVar
from uuid import UUID

from monolith.errors import ShopError
from monolith.orders.models import Order
from monolith.payments.models import Payment, PaymentEvent
from monolith.payments.provider import Outcome, ProviderAnswer


class UnknownPaymentError(ShopError):
    """The provider speaks of a payment the shop does not know."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "unknown_payment"


_NEXT: dict[tuple[str, Outcome], Payment.Status] = {
    (Payment.Status.PROCESSING, Outcome.CAPTURED): Payment.Status.CAPTURED,
    (Payment.Status.PROCESSING, Outcome.DECLINED): Payment.Status.DECLINED,
    (Payment.Status.UNKNOWN, Outcome.CAPTURED): Payment.Status.CAPTURED,
    (Payment.Status.UNKNOWN, Outcome.DECLINED): Payment.Status.DECLINED,
    (Payment.Status.REFUNDING, Outcome.REFUNDED): Payment.Status.REFUNDED,
}


def open_payment(order: Order, *, token: str) -> Payment:
    """Note that the provider is about to be asked. Part of the checkout's transaction."""
    return Payment.objects.create(order=order, token=token, amount=order.total, currency=order.currency)


def locked_payment(key: UUID) -> Payment:
    """The payment, locked. Raises UnknownPaymentError."""
    payment = Payment.objects.select_for_update(of=("self",)).filter(key=key).first()
    if payment is None:
        raise UnknownPaymentError("The shop knows no such payment.")
    return payment


def record(payment: Payment, answer: ProviderAnswer) -> bool:
    """Note the answer for a locked payment; whether it changed anything.

    An answer that was noted before changes nothing, nor does one that does not fit the payment's status: both
    are what a provider sends when it repeats itself.
    """
    wanted = _NEXT.get((payment.status, answer.outcome))
    _, new = PaymentEvent.objects.get_or_create(
        event_id=answer.event_id,
        defaults={"payment": payment, "outcome": answer.outcome.value, "applied": wanted is not None},
    )
    if not new or wanted is None:
        return False
    payment.status = wanted
    payment.reference = answer.reference or payment.reference
    payment.decline_code = answer.decline_code
    payment.save(update_fields=["status", "reference", "decline_code", "updated_at"])
    return True


def mark_unknown(key: UUID) -> None:
    """The provider did not answer. An answer that came by another way meanwhile stays."""
    Payment.objects.filter(key=key, status=Payment.Status.PROCESSING).update(status=Payment.Status.UNKNOWN)


def mark_refunding(payment: Payment) -> None:
    """Note that the provider is about to be asked for a refund of a locked, captured payment."""
    payment.status = Payment.Status.REFUNDING
    payment.save(update_fields=["status", "updated_at"])
