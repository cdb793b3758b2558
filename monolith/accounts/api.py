"""HTTP of accounts: `/api/auth/…` and `/api/me/…`."""

from typing import Any, cast

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import QuerySet
from django.middleware.csrf import get_token
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status, viewsets
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from monolith.accounts import selectors, services
from monolith.accounts.models import Address, User
from monolith.accounts.serializers import (
    AddressSerializer,
    CredentialsSerializer,
    CsrfTokenSerializer,
    RegistrationSerializer,
    UserSerializer,
)
from monolith.config.rest import django_request


class CsrfView(APIView):
    """The token that unsafe requests must send."""

    permission_classes = [AllowAny]

    @extend_schema(responses=CsrfTokenSerializer)
    def get(self, request: Request) -> Response:
        """Sets the cookie and answers with the token for the header `X-CSRFToken`."""
        return Response({"csrf_token": get_token(django_request(request))})


class RegisterView(APIView):
    """Makes an account and logs in."""

    permission_classes = [AllowAny]
    throttle_scope = "register"

    @extend_schema(request=RegistrationSerializer, responses={201: UserSerializer})
    def post(self, request: Request) -> Response:
        """201 with the new user; 400 for a taken address or a weak password."""
        given = RegistrationSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            user = services.register(**given.validated_data)
        except DjangoValidationError as error:
            raise serializers.ValidationError({"password": error.messages}) from error
        services.start_session(django_request(request), user)
        return Response(UserSerializer(user).data, status=status.HTTP_201_CREATED)


class LoginView(APIView):
    """Starts a session."""

    permission_classes = [AllowAny]
    throttle_scope = "login"

    @extend_schema(request=CredentialsSerializer, responses=UserSerializer)
    def post(self, request: Request) -> Response:
        """200 with the user; 400 when e-mail and password do not belong together."""
        given = CredentialsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = services.log_in(django_request(request), **given.validated_data)
        return Response(UserSerializer(user).data)


class LogoutView(APIView):
    """Ends the session."""

    permission_classes = [AllowAny]

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """204, also for those who are not logged in."""
        services.log_out(django_request(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class MeView(generics.RetrieveUpdateAPIView[User]):
    """The logged-in user."""

    permission_classes = [IsAuthenticated]
    serializer_class = UserSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> User:
        """The caller."""
        return cast("User", self.request.user)  # the permission let nobody else through


class AddressViewSet(viewsets.ModelViewSet[Address]):
    """Addresses of the logged-in user."""

    permission_classes = [IsAuthenticated]
    serializer_class = AddressSerializer
    pagination_class = None
    queryset = Address.objects.none()  # names the model for the schema
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Address]:
        """The caller's own; others' do not exist as far as the caller can tell."""
        return selectors.addresses_of(cast("User", self.request.user))

    def perform_create(self, serializer: serializers.BaseSerializer[Address]) -> None:
        """Through the service, which looks after the default."""
        serializer.instance = services.add_address(cast("User", self.request.user), _validated(serializer))

    def perform_update(self, serializer: serializers.BaseSerializer[Address]) -> None:
        """Through the service, which looks after the default."""
        serializer.instance = services.update_address(self.get_object(), _validated(serializer))

    def perform_destroy(self, instance: Address) -> None:
        """Through the service, which looks after the default."""
        services.delete_address(instance)


def _validated(serializer: serializers.BaseSerializer[Any]) -> dict[str, Any]:
    return dict(cast("serializers.Serializer[Any]", serializer).validated_data)
