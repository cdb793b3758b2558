"""URLs of the shop: the API below `/api/`, the admin, pictures, and what operators ask."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from monolith.config import files, health
from monolith.config.api_errors import unknown_resource

_api = [
    path("", include("monolith.catalog.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    unknown_resource(),
]

urlpatterns = [
    path("health", health.health, name="health"),
    path("ready", health.ready, name="ready"),
    path("api/", include(_api)),
    path("admin/", admin.site.urls),
    path("media/<path:path>", files.media, name="media"),
]
