"""The app `notifications`."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """Registers the app."""

    name = "monolith.notifications"
    label = "notifications"
    verbose_name = "Notifications"
