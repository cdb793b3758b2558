"""URLs of the catalogue's API."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from monolith.catalog.api import CategoryViewSet, ProductViewSet, ReviewListView

_router = SimpleRouter()
_router.register("products", ProductViewSet, basename="product")
_router.register("categories", CategoryViewSet, basename="category")

urlpatterns = [
    *_router.urls,
    path("products/<slug:slug>/reviews/", ReviewListView.as_view(), name="product-reviews"),
]
