"""The app `cart`."""

from django.apps import AppConfig


class CartConfig(AppConfig):
    """Registers the app."""

    name = "monolith.cart"
    label = "cart"
    verbose_name = "Cart"
