"""Carts in the admin."""

from django.contrib import admin

from monolith.cart.models import Cart, CartItem


class CartItemInline(admin.TabularInline[CartItem, Cart]):
    """What lies in the cart."""

    model = CartItem
    extra = 0
    autocomplete_fields = ["product"]


@admin.register(Cart)
class CartAdmin(admin.ModelAdmin[Cart]):
    """Carts, the most recently touched first."""

    list_display = ["id", "user", "token", "updated_at"]
    list_select_related = ["user"]
    search_fields = ["user__email", "token"]
    ordering = ["-updated_at"]
    autocomplete_fields = ["user"]
    readonly_fields = ["token", "created_at", "updated_at"]
    inlines = [CartItemInline]


@admin.register(CartItem)
class CartItemAdmin(admin.ModelAdmin[CartItem]):
    """Items of all carts."""

    list_display = ["product", "quantity", "cart", "added_at"]
    list_select_related = ["product", "cart"]
    search_fields = ["product__sku", "cart__user__email"]
    autocomplete_fields = ["product", "cart"]
    readonly_fields = ["added_at"]
