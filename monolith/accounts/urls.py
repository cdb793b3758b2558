"""URLs of the accounts' API."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from monolith.accounts import api

_router = SimpleRouter()
_router.register("me/addresses", api.AddressViewSet, basename="address")

urlpatterns = [
    path("auth/csrf/", api.CsrfView.as_view(), name="api-csrf"),
    path("auth/register/", api.RegisterView.as_view(), name="api-register"),
    path("auth/login/", api.LoginView.as_view(), name="api-login"),
    path("auth/logout/", api.LogoutView.as_view(), name="api-logout"),
    path("me/", api.MeView.as_view(), name="api-me"),
    *_router.urls,
]
