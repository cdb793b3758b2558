"""URLs of the shop: the API below `/api/`, the admin, pictures, what operators ask, and the pages."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView

from monolith.config import api_docs, files, health
from monolith.config.api_errors import unknown_resource

_api: list[URLPattern | URLResolver] = [
    path("", include("monolith.accounts.urls")),
    path("", include("monolith.catalog.urls")),
    path("", include("monolith.inventory.urls")),
    path("", include("monolith.cart.urls")),
    path("", include("monolith.orders.urls")),
    path("", include("monolith.payments.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", api_docs.docs, name="api-docs"),
    unknown_resource(),
]

urlpatterns = [
    path("health", health.health, name="health"),
    path("ready", health.ready, name="ready"),
    path("api/", include(_api)),
    path("admin/", admin.site.urls),
    path("media/<path:path>", files.media, name="media"),
    path("", include("monolith.storefront.urls")),
]

handler403 = "monolith.storefront.views.failures.forbidden"
handler404 = "monolith.storefront.views.failures.not_found"
handler500 = "monolith.storefront.views.failures.broken"
