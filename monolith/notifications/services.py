"""Writes of notifications: into the table, and out of it by e-mail."""

import logging

from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone

from monolith.notifications.messages import OrderFacts, message_for
from monolith.notifications.models import Notification
from monolith.orders.models import Order

MOST_ATTEMPTS = 5
_log = logging.getLogger(__name__)


def notify(*, order_id: int, status: str) -> Notification | None:
    """Queue the e-mail about an order that has become `status`, once; None where there is nothing to tell."""
    order = Order.objects.select_related("user").get(pk=order_id)
    lines = order.lines.values_list("quantity", "name", "line_total")
    message = message_for(
        status,
        OrderFacts(
            number=order.number,
            name=order.user.full_name or order.recipient,
            total=order.total,
            currency=order.currency,
            lines=tuple(lines),
        ),
    )
    if message is None:
        return None
    notification, _ = Notification.objects.get_or_create(
        order=order,
        kind=f"order_{status}",
        defaults={
            "user": order.user,
            "recipient": order.user.email,
            "subject": message.subject,
            "body": message.body,
        },
    )
    return notification


def send_queued(*, limit: int = 100, only: int | None = None) -> int:
    """Send what is queued, oldest first (or `only` the one of that id); the number sent.

    Each e-mail is one transaction that holds its row, so two senders never send the same one; a sender that
    dies after the server took the mail and before the commit sends it again, which is the lesser evil.
    Failures are counted in the row and tried again, MOST_ATTEMPTS times.
    """
    sent = 0
    for _ in range(limit):
        with transaction.atomic():
            queue = Notification.objects.select_for_update(skip_locked=True, of=("self",)).filter(
                status=Notification.Status.QUEUED
            )
            if only is not None:
                queue = queue.filter(pk=only)
            notification = queue.order_by("attempts", "created_at", "pk").first()
            if notification is None:
                break
            sent += _send(notification)
            if notification.attempts and notification.status == Notification.Status.QUEUED:
                break  # it failed now: the next run tries again, after those that were not tried yet
    return sent


def _send(notification: Notification) -> bool:
    notification.attempts += 1
    try:
        EmailMessage(notification.subject, notification.body, to=[notification.recipient]).send()
    except OSError as error:  # what sockets, files and smtplib raise
        _log.warning("e-mail not sent", extra={"notification": notification.pk}, exc_info=True)
        notification.last_error = f"{type(error).__name__}: {error}"
        if notification.attempts >= MOST_ATTEMPTS:
            notification.status = Notification.Status.FAILED
    else:
        notification.status = Notification.Status.SENT
        notification.sent_at = timezone.now()
        notification.last_error = ""
    notification.save(update_fields=["attempts", "status", "sent_at", "last_error"])
    return notification.status == Notification.Status.SENT
