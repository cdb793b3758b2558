"""URLs of the inventory's API."""

from django.urls import path

from monolith.inventory.api import StockView

urlpatterns = [path("stock/<slug:sku>/", StockView.as_view(), name="stock")]
