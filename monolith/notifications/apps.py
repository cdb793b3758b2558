"""The app `notifications`."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """Registers the app and its receivers."""

    name = "monolith.notifications"
    label = "notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        """Listen to orders."""
        from monolith.notifications.receivers import on_order_status  # noqa: PLC0415  (models are ready only now)
        from monolith.orders.signals import order_status_changed  # noqa: PLC0415  (same)

        order_status_changed.connect(on_order_status, dispatch_uid="notifications.on_order_status")
