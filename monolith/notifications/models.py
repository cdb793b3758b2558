"""E-mails to send and e-mails sent."""

from django.conf import settings
from django.db import models
from django.utils import timezone


class Notification(models.Model):
    """One e-mail. An order causes each kind once, however often its signal arrives."""

    class Status(models.TextChoices):
        """How far it got."""

        QUEUED = "queued"
        SENT = "sent"
        FAILED = "failed", "given up"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications")
    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=40)
    recipient = models.EmailField()
    subject = models.CharField(max_length=200)
    body = models.TextField()
    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["order", "kind"], name="notification_once_per_order_and_kind"),
        ]
        indexes = [
            models.Index(
                fields=["created_at"], condition=models.Q(status="queued"), name="notification_queue"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.recipient} ({self.status})"
