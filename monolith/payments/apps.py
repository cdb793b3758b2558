"""The app `payments`."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Registers the app."""

    name = "monolith.payments"
    label = "payments"
    verbose_name = "Payments"
