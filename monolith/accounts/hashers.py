"""Password hashing with a work factor from the settings."""

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher


class ConfiguredPBKDF2Hasher(PBKDF2PasswordHasher):
    """Django's PBKDF2; `PASSWORD_ITERATIONS` of the settings, where it is not 0, replaces the work factor.

    Stored hashes name their own factor, so a change of the setting locks nobody out: Django hashes anew at
    the next login.
    """

    iterations = settings.PASSWORD_ITERATIONS or PBKDF2PasswordHasher.iterations
