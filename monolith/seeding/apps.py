"""The app `seeding`: no models, one command."""

from django.apps import AppConfig


class SeedingConfig(AppConfig):
    """Registers the app."""

    name = "monolith.seeding"
    label = "seeding"
    verbose_name = "Demo data"
