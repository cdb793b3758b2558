"""A small shop for tests, on the session's PostgreSQL."""

import itertools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from pytest_django import Settings
from rest_framework.test import APIClient

from monolith.accounts import services as accounts
from monolith.accounts.models import Address, User
from monolith.cart import services as carts
from monolith.cart.session import CartOwner
from monolith.catalog.models import Category, Product
from monolith.inventory import services as inventory
from monolith.seeding import pictures

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session", autouse=True)
def secret_key() -> None:
    """The settings have none on purpose. (An override per test cannot be undone: Django refuses to read none.)"""
    django_settings.SECRET_KEY = "only-for-tests-0123456789-0123456789-0123456789-0123456789"


@pytest.fixture(autouse=True)
def shop_settings(settings: Settings, tmp_path: Path) -> Settings:
    """Cheap password hashes, pictures below tmp_path, no memory of earlier throttling."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.MEDIA_ROOT = tmp_path / "media"
    cache.clear()
    return settings


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MEDIA_ROOT with all product pictures, drawn once."""
    folder = tmp_path_factory.mktemp("media")
    pictures.draw_all(folder / "products")
    return folder


@pytest.fixture
def api() -> APIClient:
    """An anonymous client."""
    return APIClient()


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """Call it for a new shopper."""
    numbers = itertools.count(1)

    def make(full_name: str = "Hazel Brook", **fields: Any) -> User:
        return User.objects.create_user(
            f"someone{next(numbers)}@shop.test", PASSWORD, full_name=full_name, **fields
        )

    return make


@pytest.fixture
def shopper(make_user: Callable[..., User]) -> User:
    """A shopper."""
    return make_user()


@pytest.fixture
def staff(make_user: Callable[..., User]) -> User:
    """A member of staff."""
    return make_user(full_name="Staff Member", is_staff=True, is_superuser=True)


@pytest.fixture
def make_product(db: None) -> Callable[..., Product]:
    """Call it for a new product with stock; fields may be given."""
    numbers = itertools.count(1)
    category, _ = Category.objects.get_or_create(slug="things", defaults={"name": "Things"})

    def make(*, stock: int = 10, **fields: Any) -> Product:
        number = next(numbers)
        given = {
            "sku": f"THI-{number:03d}",
            "slug": f"thing-{number}",
            "name": f"Thing {number}",
            "brand": "Alderwick",
            "price": Decimal("10.00"),
            "category": category,
        }
        product = Product.objects.create(**{**given, **fields})
        if stock:
            inventory.receive(product_id=product.pk, quantity=stock)
        return product

    return make


@pytest.fixture
def make_address() -> Callable[[User], Address]:
    """Call it for a new address of a user."""

    def make(user: User) -> Address:
        return accounts.add_address(
            user,
            {"recipient": user.full_name, "line1": "Mill Hill 1", "postcode": "10115", "city": "Berlin"},
        )

    return make


@pytest.fixture
def fill_cart() -> Callable[..., None]:
    """`fill_cart(user, product, quantity)` puts pieces into the user's cart."""

    def fill(user: User, product: Product, quantity: int = 1) -> None:
        carts.add_item(CartOwner(user_id=user.pk), sku=product.sku, quantity=quantity)

    return fill
