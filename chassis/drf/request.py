"""What an answer depends on, taken out of the ASGI scope once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis.drf.urls import full_path, iri_to_uri

_HOST = re.compile(r"([a-z0-9.-]+|\[[a-f0-9]*:[a-f0-9.:]+\])(?::[0-9]+)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """`path` is decoded, `query_string` is not; `accept` is None when the header was not sent."""

    method: str
    scheme: str
    host: str
    path: str
    query_string: str
    accept: str | None

    @property
    def url(self) -> str:
        """The absolute URL of this request, as `build_absolute_uri()` writes it."""
        return self.absolute(full_path(self.path, self.query_string))

    def absolute(self, location: str) -> str:
        """`build_absolute_uri(location)`: an absolute path is put on this host, a URL with a host is kept."""
        return iri_to_uri(f"{self.scheme}://{self.host}{location}" if location.startswith("/") else location)


def read_request(scope: Any) -> ApiRequest:
    """The facts in an ASGI HTTP scope. Raises UnicodeDecodeError when the query string is not UTF-8.

    The scheme is the server's: uvicorn takes it from X-Forwarded-Proto when it trusts the sender.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers[name] = headers[name] + b"," + value if name in headers else value
    accept = headers.get(b"accept")
    scheme = scope.get("scheme", "http")
    host = headers.get(b"host")
    return ApiRequest(
        method=scope["method"].upper(),
        scheme=scheme,
        host=host.decode("latin-1") if host is not None else _server_name(scope, scheme),
        path=scope["path"],
        query_string=scope["query_string"].decode(),
        accept=None if accept is None else accept.decode("latin-1"),
    )


def host_allowed(host: str, allowed: Sequence[str]) -> bool:
    """`HttpRequest.get_host`'s check: `host` is well-formed and matches a pattern.

    Patterns: an exact name, `.example.com` for a domain and all below it, `*` for any. The port is ignored.
    """
    match = _HOST.fullmatch(host.lower())
    if match is None:
        return False
    domain = match[1].removesuffix(".")
    return bool(domain) and any(_same_domain(domain, pattern.lower()) for pattern in allowed)


def _same_domain(domain: str, pattern: str) -> bool:
    if pattern.startswith("."):
        return domain.endswith(pattern) or domain == pattern[1:]
    return pattern in {"*", domain}


def _server_name(scope: Any, scheme: str) -> str:
    name, port = scope.get("server") or ("unknown", 0)
    return name if port == _DEFAULT_PORTS.get(scheme) else f"{name}:{port}"
