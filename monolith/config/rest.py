"""The house rules of the API, named by REST_FRAMEWORK in the settings.

Sessions with CSRF tokens, page numbers, throttles on writes only, and an OPTIONS answer that does not depend
on who asks.
"""

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest
from rest_framework.authentication import SessionAuthentication
from rest_framework.metadata import BaseMetadata
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle

if TYPE_CHECKING:  # rest_framework.views itself imports this module
    from rest_framework.views import APIView


class CsrfSessionAuthentication(SessionAuthentication):
    """Django's session, with the CSRF check for everybody.

    DRF's own class checks only those who are logged in, which leaves the login itself and the carts of
    anonymous shoppers open to forged requests.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        """The session's user. Raises PermissionDenied (403) for an unsafe request without a valid token."""
        if request.method not in SAFE_METHODS:
            self.enforce_csrf(request)
        user = django_request(request).user
        return (user, None) if user.is_active else None


def django_request(request: Request) -> HttpRequest:
    """The request under DRF's wrapper: sessions, logins and CSRF tokens are Django's."""
    return request._request  # noqa: SLF001  (DRF has no public name for it)


class StaffOrReadOnly(BasePermission):
    """Everybody reads, staff writes."""

    def has_permission(self, request: Request, _view: "APIView") -> bool:
        """Whether the request may go on."""
        return request.method in SAFE_METHODS or request.user.is_staff


class ShopPagination(PageNumberPagination):
    """`?page=N&page_size=M`: 24 a page, 100 at most."""

    page_size = 24
    page_size_query_param = "page_size"
    max_page_size = 100


class WriteThrottle(ScopedRateThrottle):
    """Limits unsafe requests of views that have a `throttle_scope`; reading is never throttled."""

    def get_rate(self) -> str:
        """The rate of the scope, read when asked so that tests and settings can change it."""
        return str(api_settings.DEFAULT_THROTTLE_RATES[str(self.scope)])

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Whether the request may go on."""
        return request.method in SAFE_METHODS or super().allow_request(request, view)


class MinimalMetadata(BaseMetadata):
    """OPTIONS says what the resource is, the same to everybody (DRF's default lists the caller's fields)."""

    def determine_metadata(self, _request: Request, view: "APIView") -> dict[str, Any]:
        """Name, description and media types of the view."""
        return {
            "name": view.get_view_name(),
            "description": view.get_view_description(),
            "renders": [renderer.media_type for renderer in view.renderer_classes],
            "parses": [parser.media_type for parser in view.parser_classes],
        }
