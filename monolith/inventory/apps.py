"""The app `inventory`."""

from django.apps import AppConfig


class InventoryConfig(AppConfig):
    """Registers the app."""

    name = "monolith.inventory"
    label = "inventory"
    verbose_name = "Inventory"
