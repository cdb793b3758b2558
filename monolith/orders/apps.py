"""The app `orders`."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Registers the app."""

    name = "monolith.orders"
    label = "orders"
    verbose_name = "Orders"
