"""The app."""

from django.apps import AppConfig


class StorefrontConfig(AppConfig):
    """Pages; no models."""

    name = "monolith.storefront"
    label = "storefront"
