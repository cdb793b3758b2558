"""Content negotiation with one renderer, JSON: what the client accepts, and how much indent it wants.

Sources: `rest_framework.negotiation.DefaultContentNegotiation`, `rest_framework.utils.mediatypes` and
`JSONRenderer.get_indent` (3.18), `django.utils.http.parse_header_parameters` (5.2).

Where DRF meets two equally specific media types it takes either (it keeps them in a set); here the first
wins.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any

from chassis.drf.answers import ApiError, not_found

_MAX_HEADER = 8192
_MAX_TOKENS = 64
_MAX_TOKEN = 256
_MAX_INDENT = 8


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media range of an Accept header."""

    main: str
    sub: str
    parameters: Mapping[str, str]

    @property
    def precedence(self) -> int:
        """How specific it is: 0 for `*/*`, 1 for `type/*`, 2 for `type/subtype`, 3 with parameters."""
        if self.main == "*":
            return 0
        if self.sub == "*":
            return 1
        return 3 if self.parameters and list(self.parameters) != ["q"] else 2

    @property
    def accepts_json(self) -> bool:
        """Whether `application/json` is within this range."""
        return self.sub in {"*", "json"} and self.main in {"*", "application"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """How to render; `indent` None means compact."""

    indent: int | None = None


def negotiate(accept: str | None, wanted_format: str | None) -> Accepted:
    """Decide how to render. `accept` is the header (None when absent), `wanted_format` the `?format=`.

    Raises ApiError: 404 for a format other than `json`, 406 when JSON is not acceptable.
    """
    if wanted_format and wanted_format != "json":
        raise not_found()
    ranges = [parse_media_type(token) for token in _tokens("*/*" if accept is None else accept)]
    acceptable = [media_range for media_range in ranges if media_range.accepts_json]
    if not acceptable:
        raise ApiError(406, {"detail": "Could not satisfy the request Accept header."})
    return Accepted(_indent(max(acceptable, key=lambda media_range: media_range.precedence)))


def parse_media_type(text: str) -> MediaType:
    """Read one media range. What cannot be read matches nothing."""
    try:
        full, parameters = _header_parameters(text)
    except ValueError:
        full, parameters = "", {}
    main, _, sub = full.partition("/")
    return MediaType(main, sub, parameters)


def _tokens(header: str) -> list[str]:
    if len(header) > _MAX_HEADER:
        header = header[: header.rfind(",", 0, _MAX_HEADER) + 1]
    tokens = (token.strip() for token in header.split(","))
    return [token for token in tokens if token and len(token) <= _MAX_TOKEN][:_MAX_TOKENS]


def _header_parameters(line: str) -> tuple[str, dict[str, str]]:
    if ";" not in line:
        return line.strip().lower(), {}
    message = Message()
    message["content-type"] = line
    # typeshed calls every value a string; an RFC 2231 value is a tuple
    found: list[tuple[str, Any]] = message.get_params() or [("", "")]
    (full, _), *rest = found
    parameters: dict[str, str] = {}
    for name, value in rest:
        if not name:
            continue
        if isinstance(value, tuple):  # RFC 2231: (charset, language, value)
            if charset := value[0]:
                try:
                    codecs.lookup(charset)
                except LookupError as error:
                    raise ValueError(f"unknown charset {charset!r}") from error
            value = collapse_rfc2231_value(value)  # noqa: PLW2901  (the decoded form of the same value)
        parameters[name] = value
    return full.lower(), parameters


def _indent(media_range: MediaType) -> int | None:
    try:
        wanted = int(media_range.parameters["indent"])
    except (KeyError, ValueError):
        return None
    return max(min(wanted, _MAX_INDENT), 0) or None
