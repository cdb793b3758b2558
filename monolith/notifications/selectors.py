"""Reads of notifications."""

from django.db.models import QuerySet

from monolith.notifications.models import Notification


def queued() -> QuerySet[Notification]:
    """What waits to be sent, oldest first."""
    return Notification.objects.filter(status=Notification.Status.QUEUED).order_by("created_at", "pk")
