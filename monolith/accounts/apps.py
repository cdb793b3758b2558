"""The app `accounts`."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Registers the app."""

    name = "monolith.accounts"
    label = "accounts"
    verbose_name = "Accounts"
