"""URLs of the orders' API."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from monolith.orders.api import CheckoutView, OrderViewSet

_router = SimpleRouter()
_router.register("orders", OrderViewSet, basename="order")

urlpatterns = [path("checkout/", CheckoutView.as_view(), name="api-checkout"), *_router.urls]
