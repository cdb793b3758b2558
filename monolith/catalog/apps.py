"""The app `catalog`."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Registers the app."""

    name = "monolith.catalog"
    label = "catalog"
    verbose_name = "Catalogue"
