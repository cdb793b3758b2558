"""JSON that the payment provider sends."""

from typing import Any

from rest_framework import serializers

from monolith.payments.provider import Outcome


class ProviderEventSerializer(serializers.Serializer[Any]):
    """One answer."""

    event_id = serializers.CharField(max_length=64)
    key = serializers.UUIDField()
    outcome = serializers.ChoiceField(choices=[outcome.value for outcome in Outcome])
    reference = serializers.CharField(max_length=40, allow_blank=True, default="")
    decline_code = serializers.CharField(max_length=40, allow_blank=True, default="")
