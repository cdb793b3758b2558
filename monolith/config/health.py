"""`/health`: the process lives. `/ready`: it can serve, that is, it reaches its database."""

import logging

from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

_log = logging.getLogger(__name__)


@never_cache
@require_safe
def health(_request: HttpRequest) -> JsonResponse:
    """Always 200."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(_request: HttpRequest) -> JsonResponse:
    """200, or 503 with the reason."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM django_migrations")
    except Error as error:
        _log.warning("not ready", exc_info=True)
        # the driver's message may name hosts and roles: it belongs in the log
        reason = f"the database does not answer ({type(error).__name__}); the log says more"
        return JsonResponse({"status": "unready", "checks": {"database": reason}}, status=503)
    return JsonResponse({"status": "ok", "checks": {"database": "ok"}})
