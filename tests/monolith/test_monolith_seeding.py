"""seed_shop: the same seed, the same shop."""

import hashlib
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from monolith.accounts.models import User
from monolith.catalog.models import Category, Product, ProductImage, Review
from monolith.inventory.models import StockItem
from monolith.orders.models import Order
from monolith.payments.models import Payment
from monolith.seeding import catalogue, pictures

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings: Settings, drawings: Path) -> None:
    settings.MEDIA_ROOT = drawings


def seed(
    *, products: int = 120, users: int = 30, orders: int = 60, seed: int = 7, replace: bool = False
) -> str:
    out = StringIO()
    call_command(
        "seed_shop", products=products, users=users, orders=orders, seed=seed, password="pw", replace=replace,
        stdout=out,
    )  # fmt: skip
    return out.getvalue()


def digest() -> dict[str, str]:
    """A hash of every row of every seeded table."""
    result = {}
    for model in apps.get_models():
        table = model._meta.db_table
        if model._meta.app_label in {"accounts", "catalog", "inventory", "orders", "payments"}:
            with connection.cursor() as cursor:
                cursor.execute(f'SELECT t::text FROM "{table}" t ORDER BY t::text')
                result[table] = hashlib.sha256(repr(cursor.fetchall()).encode()).hexdigest()
    return result


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    seed()
    first = digest()
    seed(replace=True)
    assert digest() == first
    seed(seed=8, replace=True)
    second = digest()
    empty = {table for table in first if first[table] == second[table]}
    # categories and permissions do not depend on the seed
    assert empty <= {
        "catalog_category",
        "accounts_user_groups",
        "accounts_user_user_permissions",
        "inventory_reservation",
    }


def test_more_users_do_not_change_the_products() -> None:
    seed()
    before = digest()["catalog_product"]
    seed(users=31, replace=True)
    assert digest()["catalog_product"] == before


def test_the_numbers_are_as_asked_and_the_parts_fit() -> None:
    report = seed(products=300, users=40, orders=100)
    assert "300 products" in report
    assert (Product.objects.count(), User.objects.count(), Order.objects.count()) == (300, 41, 100)
    assert Category.objects.filter(parent__parent__parent=None, parent__parent__isnull=False).exists()
    assert set(Product.objects.values_list("category__children", flat=True)) == {None}
    for item in StockItem.objects.annotate(moved=Sum("movements__quantity")):
        assert item.on_hand == (item.moved or 0)
    for payment in Payment.objects.select_related("order"):
        expected = {"cancelled": "declined", "refunded": "refunded"}.get(payment.order.status, "captured")
        assert (payment.status, payment.amount) == (expected, payment.order.total)
    assert not Product.objects.filter(updated_at__gt=catalogue.ANCHOR).exists()
    assert timezone.now() > catalogue.ANCHOR


def test_reviews_look_like_life() -> None:
    seed(products=600, users=100, orders=0)
    ratings = Counter(Review.objects.values_list("rating", flat=True))
    assert set(ratings) == {1, 2, 3, 4, 5}
    assert ratings[5] + ratings[4] > ratings[1] + ratings[2]
    counts = Counter(Review.objects.values_list("product", flat=True))
    assert max(counts.values()) > 20
    assert len(counts) < 600


def test_the_shop_goes_on_after_seeding(drawings: Path) -> None:
    seed()
    newest = Product.objects.latest("pk")
    category = Category.objects.create(slug="new", name="New")
    product = Product.objects.create(
        sku="NEW-1", slug="new-1", name="New", brand="New", price=1, category=category
    )
    assert product.pk == newest.pk + 1
    client = APIClient()
    assert (
        client.post("/api/auth/login/", {"email": "shopper0001@shop.test", "password": "pw"}).status_code
        == 200
    )
    assert client.get("/api/products/?search=oak").json()["count"] > 0
    image = ProductImage.objects.all()[0]
    picture = client.get(image.image.url)
    assert (picture.status_code, picture["Content-Type"]) == (200, "image/webp")
    assert picture.content == (drawings / image.image.name).read_bytes()


def test_staff_can_log_in() -> None:
    seed(products=0, users=0, orders=5)
    staff = authenticate(username="staff@shop.test", password="pw")
    assert staff is not None
    assert staff.is_superuser
    assert (Product.objects.count(), Order.objects.count()) == (0, 0)


def test_a_shop_with_something_in_it_is_not_touched() -> None:
    Category.objects.create(slug="mine", name="Mine")
    with pytest.raises(CommandError, match="--replace"):
        seed()
    assert Category.objects.count() == 1


@pytest.mark.parametrize("change", [{"products": -1}, {"orders": -5}])
def test_nonsense_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(CommandError, match="below zero"):
        seed(**change)


def test_a_password_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_DEMO_PASSWORD", raising=False)
    with pytest.raises(CommandError, match="SHOP_DEMO_PASSWORD"):
        call_command("seed_shop", products=1, users=1, orders=0)


def test_drawings_are_the_same_every_time_and_drawn_once(tmp_path: Path, drawings: Path) -> None:
    assert pictures.draw_all(drawings / "products") == 0
    (drawings / "products" / "mug-1.webp").rename(tmp_path / "old.webp")
    assert pictures.draw_all(drawings / "products") == 1
    assert (drawings / "products" / "mug-1.webp").read_bytes() == (tmp_path / "old.webp").read_bytes()
    assert len(list((drawings / "products").iterdir())) == len(pictures.MOTIFS) * pictures.VARIANTS
