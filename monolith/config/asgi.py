"""Entry point: `uvicorn monolith.config.asgi:application`."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monolith.config.settings")
os.environ.setdefault("SHOP_DATABASE_POOL", "16")  # commands use one connection, a server shares some


def _check_secret() -> None:
    # Django would find out at the first login; a server must not start like that.
    if not os.environ.get("SHOP_SECRET_KEY") and not settings.DEBUG:
        raise ImproperlyConfigured(
            "SHOP_SECRET_KEY is not set: give the shop a long random value that stays the same between "
            "restarts (python -c 'import secrets; print(secrets.token_urlsafe(50))') "
            "or SHOP_DEBUG=1 for development"
        )


_check_secret()
application = get_asgi_application()
