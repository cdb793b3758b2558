"""Whole answers as values: JSON as `JSONRenderer` writes it, errors as DRF words them, Django's own pages.

An `Answer` is everything that goes over the wire; `endpoint.py` sends it. Headers are those of Django's
security and clickjacking middleware with their default settings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
_FRAME = ("X-Frame-Options", "DENY")
_HTML = "text/html; charset=utf-8"
_PAGE = """
<!doctype html>
<html lang="en">
<head>
  <title>{title}</title>
</head>
<body>
  <h1>{title}</h1><p>{details}</p>
</body>
</html>
"""


class ApiError(Exception):
    """A refusal with its body, DRF's `APIException`: raised anywhere below an endpoint, answered by it."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers in order, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def not_found(detail: str = "Not found.") -> ApiError:
    """DRF's 404. (A view's `get_object_or_404` words it `No Product matches the given query.`)"""
    return ApiError(404, {"detail": detail})


def method_not_allowed(method: str) -> ApiError:
    """DRF's 405."""
    return ApiError(405, {"detail": f'Method "{method}" not allowed.'})


def invalid(faults: Mapping[str, list[str]]) -> ApiError:
    """DRF's 400: for each parameter what is wrong with it."""
    return ApiError(400, dict(faults))


def render_json(data: Any, indent: int | None) -> bytes:
    """The bytes `JSONRenderer` writes. Raises ValueError for NaN and infinities (DRF: STRICT_JSON)."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    # JavaScript before 2019 takes these two for line ends inside string literals
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode()


def json_answer(data: Any, *, status: int, allow: str, indent: int | None, looked_at_session: bool) -> Answer:
    """A DRF response. `looked_at_session`: authentication ran, so the answer varies by cookie."""
    body = render_json(data, indent)
    vary = (("Vary", "Cookie"),) if looked_at_session else ()
    headers = (
        ("Content-Type", "application/json"),
        ("Allow", allow),
        *vary,
        _FRAME,
        ("Content-Length", str(len(body))),
        *_SECURITY,
    )
    return Answer(status, headers, body)


def redirect(location: str) -> Answer:
    """Django's permanent redirect to `location` (already escaped).

    `CommonMiddleware` answers before the inner middleware runs, so neither X-Frame-Options nor Content-Length
    is set.
    """
    return Answer(301, (("Content-Type", _HTML), ("Location", location), *_SECURITY), b"")


def bad_request_page() -> Answer:
    """Django's page for a request it does not want to look at (`SuspiciousOperation` inside a view)."""
    body = _PAGE.format(title="Bad Request (400)", details="").encode()
    headers = (("Content-Type", _HTML), _FRAME, ("Content-Length", str(len(body))), *_SECURITY)
    return Answer(400, headers, body)


def bad_host_page() -> Answer:
    """The same for a Host that is not ours, refused as early as a redirect is given (see there)."""
    body = _PAGE.format(title="Bad Request (400)", details="").encode()
    return Answer(400, (("Content-Type", _HTML), *_SECURITY), body)


def undecodable_request() -> Answer:
    """A query string that is not UTF-8: Django gives up before any middleware, with an empty body."""
    return Answer(400, (("Content-Type", _HTML),), b"")
