"""Addresses of the storefront."""

from django.urls import path

from monolith.storefront.views import account, browsing, cart, checkout, orders, product

app_name = "storefront"

urlpatterns = [
    path("", browsing.home, name="home"),
    path("products/", browsing.everything, name="products"),
    path("category/<slug:slug>/", browsing.category, name="category"),
    path("search/", browsing.search, name="search"),
    path("product/<slug:slug>/", product.product, name="product"),
    path("cart/", cart.cart, name="cart"),
    path("cart/items/<int:item_id>/", cart.cart_item, name="cart-item"),
    path("checkout/", checkout.check_out, name="checkout"),
    path("orders/", orders.orders, name="orders"),
    path("orders/<slug:number>/", orders.order, name="order"),
    path("account/", account.account, name="account"),
    path("account/login/", account.log_in, name="login"),
    path("account/logout/", account.log_out, name="logout"),
    path("account/register/", account.register, name="register"),
    path("account/addresses/new/", account.new_address, name="new-address"),
    path("account/addresses/<int:address_id>/", account.address, name="address"),
]
