"""HTTP of payments: `/api/payments/events/`, where the provider delivers answers, at least once."""

import hashlib
import hmac

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from monolith.config.rest import django_request
from monolith.orders.checkout import settle
from monolith.payments.provider import Outcome, ProviderAnswer
from monolith.payments.serializers import ProviderEventSerializer


def signature(body: bytes, secret: str) -> str:
    """What the provider puts into `X-Signature`: the hexadecimal HMAC-SHA256 of the body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class SignedByProvider(BasePermission):
    """Lets through what carries the provider's signature; nothing as long as the shop has no secret."""

    message = "The signature is missing or wrong."

    def has_permission(self, request: Request, _view: APIView) -> bool:
        """Whether the request may go on."""
        secret = settings.PAYMENT_WEBHOOK_SECRET
        given = request.headers.get("X-Signature", "").encode()
        return bool(secret) and hmac.compare_digest(
            given, signature(django_request(request).body, secret).encode()
        )


class ProviderEventsView(APIView):
    """Answers of the payment provider."""

    # A server has no session and no CSRF token; its signature stands for both.
    authentication_classes: list[type[BaseAuthentication]] = []
    permission_classes = [SignedByProvider]

    @extend_schema(request=ProviderEventSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """204, for the first delivery and for every repetition."""
        given = ProviderEventSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        settle(
            ProviderAnswer(**{**given.validated_data, "outcome": Outcome(given.validated_data["outcome"])})
        )
        return Response(status=status.HTTP_204_NO_CONTENT)
