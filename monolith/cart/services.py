"""Writes of carts. Each locks the cart's row first: the changes of one cart happen one after the other."""

import uuid
from collections.abc import Mapping
from typing import ClassVar

from django.db import transaction

from monolith.cart.models import MOST_OF_ONE, Cart, CartItem
from monolith.cart.session import CartOwner
from monolith.catalog.models import Product
from monolith.errors import ShopError


class NotForSaleError(ShopError):
    """The product does not exist or is not active."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "not_for_sale"


class NoSuchItemError(ShopError):
    """The cart has no such item."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "not_in_cart"


class TooManyError(ShopError):
    """More pieces of one product than a cart may hold."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "too_many"


def add_item(owner: CartOwner, *, sku: str, quantity: int = 1) -> Cart:
    """Put `quantity` more pieces into the cart. Raises NotForSaleError or TooManyError."""
    product_id = Product.objects.filter(sku=sku, is_active=True).values_list("pk", flat=True).first()
    if product_id is None:
        raise NotForSaleError("This product is not for sale.", sku=sku)
    with transaction.atomic():
        cart = _locked_cart(owner, create=True)
        assert cart is not None
        item = CartItem.objects.filter(cart=cart, product=product_id).first()
        item = item or CartItem(cart=cart, product_id=product_id, quantity=0)
        item.quantity = _allowed(item.quantity + quantity)
        item.save()
        cart.save(update_fields=["updated_at"])
    return cart


def set_quantity(owner: CartOwner, *, item_id: int, quantity: int) -> Cart:
    """Change an item to exactly `quantity` pieces; 0 removes it. Raises NoSuchItemError or TooManyError."""
    with transaction.atomic():
        cart = _locked_cart(owner)
        item = CartItem.objects.filter(cart=cart, pk=item_id).first() if cart else None
        if cart is None or item is None:
            raise NoSuchItemError("There is no such item in the cart.")
        if quantity == 0:
            item.delete()
        else:
            item.quantity = _allowed(quantity)
            item.save(update_fields=["quantity"])
        cart.save(update_fields=["updated_at"])
    return cart


def remove_item(owner: CartOwner, *, item_id: int) -> Cart:
    """Take an item out. Raises NoSuchItemError."""
    return set_quantity(owner, item_id=item_id, quantity=0)


def merge_into_user(*, token: uuid.UUID, user_id: int) -> None:
    """At login: what lies in the anonymous cart joins the user's own, up to the most a cart may hold."""
    with transaction.atomic():
        # the user's cart before the anonymous one, as everywhere
        cart = _locked_cart(CartOwner(user_id=user_id), create=True)
        anonymous = _locked_cart(CartOwner(token=token))
        if cart is None or anonymous is None:
            return
        own = {item.product_id: item for item in cart.items.all()}
        for found in anonymous.items.all():
            item = own.get(found.product_id) or CartItem(cart=cart, product_id=found.product_id, quantity=0)
            item.quantity = min(item.quantity + found.quantity, MOST_OF_ONE)
            item.save()
        anonymous.delete()
        cart.save(update_fields=["updated_at"])


def lock_cart_of(user_id: int) -> Cart | None:
    """The user's cart, locked until the caller's transaction ends. First of the checkout's locks."""
    return _locked_cart(CartOwner(user_id=user_id))


def remove_bought(cart: Cart, quantities: Mapping[int, int]) -> None:
    """Take what was bought (by product id) out of a locked cart; what was added meanwhile stays."""
    for item in cart.items.filter(product__in=list(quantities)):
        left = item.quantity - quantities[item.product_id]
        if left > 0:
            item.quantity = left
            item.save(update_fields=["quantity"])
        else:
            item.delete()


def _locked_cart(owner: CartOwner, *, create: bool = False) -> Cart | None:
    if owner == CartOwner():
        return None
    key = {"user_id": owner.user_id} if owner.user_id is not None else {"token": owner.token}
    if create:
        Cart.objects.get_or_create(**key)
    return Cart.objects.select_for_update().filter(**key).first()


def _allowed(quantity: int) -> int:
    if quantity > MOST_OF_ONE:
        raise TooManyError(f"A cart holds at most {MOST_OF_ONE} pieces of one product.", most=MOST_OF_ONE)
    if quantity < 1:
        raise ValueError(f"a quantity of {quantity} cannot be put into a cart")
    return quantity
