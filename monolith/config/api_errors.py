"""What the API says when it refuses: the services' refusals as JSON, and 404 below `/api/` as JSON."""

from typing import Any

from django.urls import re_path
from django.urls.resolvers import URLPattern
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, exception_handler

from monolith.errors import ShopError


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's handler, plus the services' refusals: `{"detail", "code", ...details}`."""
    if isinstance(error, ShopError):
        body = {"detail": error.message, "code": error.code, **error.details}
        return Response(body, status=error.status)
    return exception_handler(error, context)


class UnknownResource(APIView):
    """Whatever below `/api/` has no view: 404 as JSON, not as a page."""

    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse before anything else is looked at."""
        raise NotFound


def unknown_resource() -> URLPattern:
    """Catch-all for the end of the API's URLs. Paths without a final slash are left to APPEND_SLASH."""
    return re_path(r"^(?:.*/)?$", UnknownResource.as_view(), name="unknown-resource")
