"""Typed reading of environment variables; a bad value is refused with the variable's name and the remedy."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


def text(name: str, default: str = "") -> str:
    """The variable's value without surrounding blanks, or `default` when it is unset or empty."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, *, default: bool = False) -> bool:
    """A yes/no variable: 1, true, yes, on or 0, false, no, off."""
    value = os.environ.get(name)
    if value is None:
        return default
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither yes nor no: set it to 1 or 0")


def number(name: str, default: int, *, least: int = 0) -> int:
    """A whole number not below `least`."""
    value = text(name)
    if not value:
        return default
    try:
        result = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number") from None
    if result < least:
        raise ImproperlyConfigured(f"{name}={value!r} is too small: {least} is the least")
    return result


def words(name: str, default: list[str]) -> list[str]:
    """A comma-separated list."""
    value = text(name)
    return [word.strip() for word in value.split(",") if word.strip()] if value else default


def path(name: str, default: Path) -> Path:
    """A file system path, made absolute."""
    value = text(name)
    return Path(value).expanduser().resolve() if value else default


def database(name: str, default: str) -> dict[str, Any]:
    """Django's NAME, USER, PASSWORD, HOST, PORT and OPTIONS of a `postgresql://` URL.

    The query part may name `host` and `port` (a Unix socket) and any libpq parameter, which goes to OPTIONS.
    """
    url = text(name, default)
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ImproperlyConfigured(
            f"{name} must look like postgresql://user:password@host:port/database, not {url.split('@')[-1]!r}"
        )
    try:
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    return {
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or query.pop("user", "")),
        "PASSWORD": unquote(parts.password or query.pop("password", "")),
        "HOST": query.pop("host", "") or parts.hostname or "",
        "PORT": query.pop("port", "") or str(port or ""),
        "OPTIONS": query,
    }
