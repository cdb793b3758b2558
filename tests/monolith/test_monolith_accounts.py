"""Registration, login and logout, addresses, and what happens to the cart on the way."""

from collections.abc import Callable
from types import MappingProxyType

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings
from rest_framework.test import APIClient

from monolith.accounts import services
from monolith.accounts.models import Address, User
from monolith.cart.models import Cart, CartItem
from monolith.catalog.models import Product
from tests.monolith.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def test_registration_logs_in(api: APIClient) -> None:
    answer = api.post(
        "/api/auth/register/", {"email": "New@Shop.test", "password": PASSWORD, "full_name": "Fern Vale"}
    )
    assert (answer.status_code, answer.json()["email"]) == (201, "new@shop.test")
    assert api.get("/api/me/").json()["full_name"] == "Fern Vale"
    assert User.objects.get().check_password(PASSWORD)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"email": "no"}, "email"), ({"password": "12345"}, "password"), ({"full_name": ""}, "full_name")],
)
def test_registration_refuses(api: APIClient, change: dict[str, str], field: str) -> None:
    good = {"email": "new@shop.test", "password": PASSWORD, "full_name": "Fern Vale"}
    answer = api.post("/api/auth/register/", {**good, **change})
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert not User.objects.exists()


def test_an_address_is_taken_in_any_case(api: APIClient, shopper: User) -> None:
    answer = api.post(
        "/api/auth/register/", {"email": shopper.email.upper(), "password": PASSWORD, "full_name": "X"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "email_taken")


def test_the_database_keeps_addresses_in_lower_case(db: None) -> None:
    with pytest.raises(IntegrityError, match="user_email_is_lower_case"), transaction.atomic():
        User.objects.create(email="Loud@shop.test", full_name="x")


def test_login_and_logout(api: APIClient, shopper: User) -> None:
    assert api.get("/api/me/").status_code == 403
    answer = api.post("/api/auth/login/", {"email": shopper.email.title(), "password": PASSWORD})
    assert (answer.status_code, answer.json()["id"]) == (200, shopper.pk)
    assert api.get("/api/me/").status_code == 200
    assert api.post("/api/auth/logout/").status_code == 204
    assert api.get("/api/me/").status_code == 403


def test_login_says_nothing_about_who_exists(api: APIClient, shopper: User) -> None:
    wrong = api.post("/api/auth/login/", {"email": shopper.email, "password": "x"})
    unknown = api.post("/api/auth/login/", {"email": "nobody@shop.test", "password": "x"})
    assert (wrong.status_code, wrong.content) == (unknown.status_code, unknown.content)
    assert wrong.json()["code"] == "bad_credentials"


def test_login_is_throttled(api: APIClient, shopper: User, settings: Settings) -> None:
    rates = {**settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], "login": "2/min"}
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": rates}
    wrong = {"email": shopper.email, "password": "x"}
    codes = [
        api.post("/api/auth/login/", wrong, headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code
        for n in range(3)
    ]
    assert codes == [400, 400, 429]


def test_login_needs_a_csrf_token_though_nobody_is_logged_in_yet(shopper: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    credentials = {"email": shopper.email, "password": PASSWORD}
    assert client.post("/api/auth/login/", credentials).status_code == 403
    token = client.get("/api/auth/csrf/").json()["csrf_token"]
    assert client.post("/api/auth/login/", credentials, HTTP_X_CSRFTOKEN=token).status_code == 200


def test_the_anonymous_cart_joins_the_users_own_at_login(
    api: APIClient, shopper: User, make_product: Callable[..., Product], fill_cart: Callable[..., None]
) -> None:
    both, mine, theirs = (make_product() for _ in range(3))
    fill_cart(shopper, both, 60)
    fill_cart(shopper, mine)
    api.post("/api/cart/items/", {"sku": both.sku, "quantity": 50})
    api.post("/api/cart/items/", {"sku": theirs.sku, "quantity": 2})
    api.post("/api/auth/login/", {"email": shopper.email, "password": PASSWORD})
    quantities = {item["product"]["sku"]: item["quantity"] for item in api.get("/api/cart/").json()["items"]}
    assert quantities == {both.sku: 99, mine.sku: 1, theirs.sku: 2}
    assert Cart.objects.get().user == shopper
    api.post("/api/auth/logout/")
    assert api.get("/api/cart/").json()["items"] == []
    assert CartItem.objects.count() == 3


def test_login_changes_the_session_key(
    api: APIClient, shopper: User, make_product: Callable[..., Product]
) -> None:
    api.post("/api/cart/items/", {"sku": make_product().sku})
    before = api.cookies["sessionid"].value
    api.post("/api/auth/login/", {"email": shopper.email, "password": PASSWORD})
    assert api.cookies["sessionid"].value != before


class TestAddresses:
    FIELDS = MappingProxyType(
        {"recipient": "Hazel", "line1": "Mill Hill 1", "postcode": "10115", "city": "Berlin"}
    )

    def test_the_first_is_the_default_and_only_one_is(self, api: APIClient, shopper: User) -> None:
        api.force_login(shopper)
        first = api.post("/api/me/addresses/", dict(self.FIELDS)).json()
        second = api.post("/api/me/addresses/", {**self.FIELDS, "city": "Kiel"}).json()
        assert (first["is_default"], second["is_default"]) == (True, False)
        api.patch(f"/api/me/addresses/{second['id']}/", {"is_default": True})
        defaults = [
            (address["city"], address["is_default"]) for address in api.get("/api/me/addresses/").json()
        ]
        assert defaults == [("Kiel", True), ("Berlin", False)]
        api.patch(f"/api/me/addresses/{second['id']}/", {"is_default": False})
        assert Address.objects.filter(is_default=True).count() == 1

    def test_another_takes_the_place_of_a_deleted_default(self, shopper: User) -> None:
        first, second = (services.add_address(shopper, self.FIELDS) for _ in range(2))
        services.delete_address(first)
        second.refresh_from_db()
        assert second.is_default

    def test_others_addresses_do_not_exist(
        self, api: APIClient, shopper: User, make_user: Callable[..., User]
    ) -> None:
        foreign = services.add_address(make_user(), self.FIELDS)
        api.force_login(shopper)
        assert api.get("/api/me/addresses/").json() == []
        for answer in (
            api.get(f"/api/me/addresses/{foreign.pk}/"),
            api.patch(f"/api/me/addresses/{foreign.pk}/", {"city": "x"}),
            api.delete(f"/api/me/addresses/{foreign.pk}/"),
        ):
            assert answer.status_code == 404

    def test_nobody_is_nobody(self, api: APIClient) -> None:
        assert api.get("/api/me/addresses/").status_code == 403


def test_me_can_change_the_name_and_nothing_that_matters(api: APIClient, shopper: User) -> None:
    api.force_login(shopper)
    body = api.patch("/api/me/", {"full_name": "Fern", "is_staff": True, "email": "x@shop.test"}).json()
    assert (body["full_name"], body["is_staff"], body["email"]) == ("Fern", False, shopper.email)


@pytest.mark.parametrize(
    ("full_name", "shown"), [("Hazel Brook Fen", "Hazel B."), ("Hazel", "Hazel"), ("", "someone")]
)
def test_public_name(full_name: str, shown: str) -> None:
    assert User(full_name=full_name, email="someone@shop.test").public_name == shown
