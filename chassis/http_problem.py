"""Faults a service answers in its own name: `application/problem+json` (RFC 9457)."""

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


def problem_response(
    status: HTTPStatus,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Response:
    """A problem of type `about:blank`: `status` gives code and title, `detail` says what to do next.

    `members` are added to the document (extension members of RFC 9457 §3.2).
    """
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        **members,
    }
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status.value, headers, MEDIA_TYPE)
