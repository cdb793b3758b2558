"""URLs of the carts' API."""

from django.urls import path

from monolith.cart.api import CartItemsView, CartItemView, CartView

urlpatterns = [
    path("cart/", CartView.as_view(), name="api-cart"),
    path("cart/items/", CartItemsView.as_view(), name="api-cart-items"),
    path("cart/items/<int:item_id>/", CartItemView.as_view(), name="api-cart-item"),
]
