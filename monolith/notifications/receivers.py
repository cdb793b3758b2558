"""Listens to orders. The signal comes after the commit, outside any transaction."""

from typing import Any

from monolith.notifications import services


def on_order_status(*, order_id: int, to_status: str, **_details: Any) -> None:
    """Queue the e-mail and try to send it at once; `send_notifications` takes care of what failed."""
    notification = services.notify(order_id=order_id, status=to_status)
    if notification is not None:
        services.send_queued(limit=1, only=notification.pk)
