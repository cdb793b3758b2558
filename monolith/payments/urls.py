"""URLs of the payments' API."""

from django.urls import path

from monolith.payments.api import ProviderEventsView

urlpatterns = [path("payments/events/", ProviderEventsView.as_view(), name="api-payment-events")]
