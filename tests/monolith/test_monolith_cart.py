"""Carts of users and of anonymous sessions."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from monolith.accounts.models import User
from monolith.cart.models import Cart
from monolith.catalog.models import Product, ProductImage

pytestmark = pytest.mark.django_db


def test_looking_makes_no_cart_and_no_session(api: APIClient) -> None:
    assert api.get("/api/cart/").json() == {
        "items": [],
        "count": 0,
        "items_total": "0.00",
        "shipping_total": "0.00",
        "total": "0.00",
    }
    assert not Cart.objects.exists()
    assert "sessionid" not in api.cookies


def test_an_anonymous_cart_lives_in_its_session(api: APIClient, make_product: Callable[..., Product]) -> None:
    product = make_product(price="12.50", stock=5)
    created = api.post("/api/cart/items/", {"sku": product.sku, "quantity": 2})
    assert created.status_code == 201
    api.post("/api/cart/items/", {"sku": product.sku})
    body = api.get("/api/cart/").json()
    assert (body["count"], body["items_total"], body["shipping_total"], body["total"]) == (
        3, "37.50", "4.90", "42.40",
    )  # fmt: skip
    assert (body["items"][0]["line_total"], body["items"][0]["available"]) == ("37.50", 5)
    assert APIClient().get("/api/cart/").json()["count"] == 0


def test_quantities_can_be_changed_and_items_removed(
    api: APIClient, shopper: User, make_product: Callable[..., Product]
) -> None:
    api.force_login(shopper)
    first, second = (
        api.post("/api/cart/items/", {"sku": make_product().sku}).json()["items"][-1] for _ in range(2)
    )
    assert api.patch(f"/api/cart/items/{first['id']}/", {"quantity": 7}).json()["count"] == 8
    assert api.delete(f"/api/cart/items/{second['id']}/").status_code == 204
    assert api.patch(f"/api/cart/items/{first['id']}/", {"quantity": 0}).json()["items"] == []


def test_others_items_do_not_exist(
    api: APIClient, shopper: User, make_user: Callable[..., User], make_product: Callable[..., Product]
) -> None:
    api.force_login(make_user())
    item = api.post("/api/cart/items/", {"sku": make_product().sku}).json()["items"][0]
    api.force_login(shopper)
    assert api.patch(f"/api/cart/items/{item['id']}/", {"quantity": 9}).status_code == 404
    assert APIClient().delete(f"/api/cart/items/{item['id']}/").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"sku": "NO-1"}, 400, "not_for_sale"),
        ({"sku": "THI-002"}, 400, "not_for_sale"),
        ({"sku": "THI-001", "quantity": 0}, 400, None),
        ({"sku": "THI-001", "quantity": 100}, 400, None),
        ({"sku": "THI-001", "quantity": 99}, 400, "too_many"),
        ({}, 400, None),
    ],
)
def test_what_cannot_be_put_in(
    api: APIClient,
    make_product: Callable[..., Product],
    body: dict[str, object],
    status: int,
    code: str | None,
) -> None:
    make_product()
    make_product(is_active=False)
    api.post("/api/cart/items/", {"sku": "THI-001"})
    answer = api.post("/api/cart/items/", body)
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert api.get("/api/cart/").json()["count"] == 1


def test_the_number_of_queries_does_not_grow(
    api: APIClient, shopper: User, make_product: Callable[..., Product], fill_cart: Callable[..., None]
) -> None:
    api.force_login(shopper)
    counts = []
    for _ in range(2):
        for _ in range(4):
            product = make_product()
            ProductImage.objects.create(product=product, image="products/a.webp")
            fill_cart(shopper, product)
        with CaptureQueriesContext(connection) as queries:
            api.get("/api/cart/")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 5
