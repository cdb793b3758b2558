"""One log line and one id for every request.

The id comes from `X-Request-ID` when a balancer in front has made a sane one, else it is made here. It is
returned in the same header, so that a shopper's complaint leads to the log.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from monolith.config import logs

_SANE = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_log = logging.getLogger(__name__)


class RequestLogMiddleware:
    """Outermost middleware: sees the final answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request, log method, path, status and milliseconds."""
        given = request.headers.get("X-Request-ID", "")
        identifier = given if _SANE.fullmatch(given) else uuid.uuid4().hex
        # Not reset at the end: Django logs the request's error after the outermost middleware has returned.
        logs.request_id.set(identifier)
        started = time.perf_counter()
        response = self._get_response(request)
        response["X-Request-ID"] = identifier
        _log.info(
            "request",
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "ms": round((time.perf_counter() - started) * 1000, 1),
            },
        )
        return response
