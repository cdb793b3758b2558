"""The seam's middleware: correlation id in, who and how far out.

* `X-Request-ID` of the request goes into the logging context.
* `X-Strangler-User` of the response: primary key of the logged-in user, empty when nobody is logged in,
  absent when this request did not find out.
* `X-Strangler-LSN` after an unsafe request, and where `X-Strangler-Position: wanted` asks for it: the position
  of the write-ahead log once everything is committed and read. Who reads a copy that has applied this position
  reads what was written, or read, here.
"""

import logging
from collections.abc import Callable

from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.utils.functional import LazyObject, empty

from strangler_seam import headers, logs

_log = logging.getLogger(__name__)


class SeamMiddleware:
    """First in MIDDLEWARE: it speaks when the session has been saved, and its own reading harms nothing."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request and add what is known."""
        logs.request_id.set(headers.sane_request_id(request.headers.get(headers.REQUEST_ID)))
        response = self._get_response(request)
        user = headers.user_header(_login_facts(request))
        if user is not None:
            response[headers.USER] = user
        asked = request.headers.get(headers.POSITION)
        if headers.wants_lsn(request.method, asked) and (position := _log_position()) is not None:
            response[headers.LSN] = position
        return response


def _login_facts(request: HttpRequest) -> headers.LoginFacts:
    session = getattr(request, "session", None)
    if session is None or not session.accessed:
        return headers.LoginFacts(session_read=False, session_user="", request_user="")
    user = vars(request).get("user")
    # Django's lazy user; touching it would load it, there is no public way to ask whether it is loaded
    asked = user is not None and not (isinstance(user, LazyObject) and user._wrapped is empty)  # noqa: SLF001
    return headers.LoginFacts(
        session_read=True,
        session_user=str(session.get(SESSION_KEY, "")),
        request_user=str(user.pk) if asked and user is not None and user.is_authenticated else "",
    )


def _log_position() -> str | None:
    # Inside a transaction the position would lie before its commit, and so promise too much.
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn()")
            position: str = str(cursor.fetchone()[0])
    except DatabaseError:
        # The request itself is done and must not fail now. Without the header the proxy must assume the
        # worst.
        _log.warning("position of the write-ahead log unknown", exc_info=True)
        return None
    return position
