"""Kinds of value that several sections of the routes file share, each with the fault it names.

A section is one feature's part of the file: a strict pydantic model in its own module here, whose `value()`
gives the frozen value the data path uses. Only the parent process imports this package.
"""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from strangler_proxy.cluster.several import Address

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_PATH = re.compile(r"/[!-~]*")
HOST = re.compile(
    r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?"
)


class Strict(BaseModel):
    """Unknown keys and values of another type are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name is a letter followed by letters, digits, _ or -")
    return value


def _path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError("a path begins with / and holds visible ASCII characters (percent-encode others)")
    if "?" in value or "#" in value:
        raise ValueError("a path has no ? or #; the query is not looked at")
    if "*" in value.removesuffix("/*"):
        raise ValueError("* may only stand for everything below a path: /api/products/*")
    return value


def checked_url(value: str) -> str:
    """`value` when it is the URL of a server, `http://` or `https://`. Raises ValueError."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.hostname and not HOST.fullmatch(parts.hostname):
        raise ValueError("the URL's host is a name of letters, digits, - and dots, or an address")
    if parts.scheme not in ("http", "https"):
        raise ValueError("the URL must begin with http:// or https://")
    if not parts.hostname or port == 0:
        raise ValueError(
            "the URL needs a host and, unless it is 80 (https: 443), a port: http://127.0.0.1:8001"
        )
    if parts.username or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("the URL names host and port alone; paths are forwarded as they come")
    return value


def address_of(url: str) -> Address:
    """Where a checked `url` points to."""
    parts = urlsplit(url)
    return Address(parts.hostname or "", parts.port or (443 if is_tls(url) else 80))


def is_tls(url: str) -> bool:
    """Does a checked `url` begin with https?"""
    return urlsplit(url).scheme == "https"


def _token(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError("not a legal header or cookie name")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise ValueError(f"not an address or network in CIDR notation: {error}") from error
    return value


Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
Name = Annotated[str, AfterValidator(_name)]
Token = Annotated[str, AfterValidator(_token)]
Path = Annotated[str, AfterValidator(_path)]
Network = Annotated[str, AfterValidator(_network)]
Url = Annotated[str, AfterValidator(checked_url)]
