"""JSON of accounts."""

from typing import Any

from rest_framework import serializers

from monolith.accounts.models import Address, User


class UserSerializer(serializers.ModelSerializer[User]):
    """The logged-in user as seen by that user."""

    class Meta:
        model = User
        fields = ["id", "email", "full_name", "is_staff", "date_joined"]
        read_only_fields = ["email", "is_staff", "date_joined"]


class CredentialsSerializer(serializers.Serializer[Any]):
    """What a login needs."""

    email = serializers.EmailField()
    password = serializers.CharField(trim_whitespace=False, max_length=128)


class RegistrationSerializer(CredentialsSerializer):
    """What a registration needs."""

    full_name = serializers.CharField(max_length=120)


class CsrfTokenSerializer(serializers.Serializer[Any]):
    """The token that unsafe requests send as `X-CSRFToken`."""

    csrf_token = serializers.CharField()


class AddressSerializer(serializers.ModelSerializer[Address]):
    """An address of the logged-in user."""

    class Meta:
        model = Address
        fields = ["id", "label", "recipient", "line1", "line2", "postcode", "city", "country", "is_default"]
        extra_kwargs = {"country": {"min_length": 2}}
