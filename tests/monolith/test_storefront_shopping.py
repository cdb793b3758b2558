"""From the shelf to the order, through the pages' own forms."""

import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from monolith.accounts.models import Address, User
from monolith.cart import selectors as carts
from monolith.cart.session import CartOwner
from monolith.catalog.models import Product, Review
from monolith.inventory.models import StockItem
from monolith.orders.models import Order
from monolith.orders.services import ship
from monolith.payments.models import Payment
from tests.monolith.conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Product]


class Forms(HTMLParser):
    """The forms of a page: method, action, and what a browser would send unless the shopper typed more."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, dict[str, str]]] = []
        self._select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects what counts."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("method", "get"), given.get("action", ""), {}))
        if not self.found:
            return
        fields = self.found[-1][2]
        name = given.get("name", "")
        match tag:
            case "input" if given.get("type") in {"radio", "checkbox"}:
                if "checked" in given:
                    fields[name] = given.get("value", "on")
            case "input" | "textarea" if name:
                fields[name] = given.get("value", "")
            case "select":
                self._select = name
            case "option" if "selected" in given:
                fields[self._select] = given.get("value", "")


@pytest.fixture
def browser() -> Client:
    """A client whose forms need their CSRF tokens, as with any browser."""
    return Client(enforce_csrf_checks=True)


def filled(browser: Client, url: str, action: str, **typed: object) -> dict[str, str]:
    """What the form of the page at `url` that posts to `action` sends, with `typed` typed into it."""
    answer = browser.get(url)
    assert answer.status_code == 200, f"{url}: {answer.status_code}"
    forms = Forms(answer.content.decode()).found
    for method, target, fields in forms:
        if method == "post" and target.partition("#")[0] == action and typed.keys() <= {*fields, "rating"}:
            return {**fields, **{name: str(value) for name, value in typed.items()}}
    raise AssertionError(f"{url} has no form for {action} with {sorted(typed)}: {forms}")


def submit(browser: Client, url: str, action: str, **typed: object) -> tuple[str, str]:
    """Fill in the form, send it, follow where it leads: the path and text of that page."""
    return send(browser, action, filled(browser, url, action, **typed))


def send(browser: Client, action: str, fields: Mapping[str, str]) -> tuple[str, str]:
    """Post, follow: the path and text of the page one ends on."""
    answer: Any = browser.post(action, fields, follow=True)
    return answer.request["PATH_INFO"], unescape(answer.content.decode())


def logged_in(browser: Client, user: User, url: str = "/account/login/") -> str:
    """Log in through the page; the path one ends on."""
    return submit(browser, url, "/account/login/", email=user.email, password=PASSWORD)[0]


class TestTheWholeWay:
    def test_browse_cart_login_checkout_order(
        self, browser: Client, make_product: Make, shopper: User
    ) -> None:
        product = make_product(price=Decimal("20.00"), stock=5)
        at, text = submit(browser, "/product/thing-1/", "/cart/", quantity=2)
        assert at == "/cart/"
        assert "Added to your cart" in text
        assert "€44.90" in text  # 40 and delivery

        login = browser.get("/checkout/")
        assert login.status_code == 302
        at = logged_in(browser, shopper, login["Location"])
        assert at == "/account/addresses/new/"  # to checkout, and there is no address yet
        assert carts.contents(CartOwner(user_id=shopper.pk)).count == 2, "the anonymous cart came along"

        at, text = submit(
            browser, "/account/addresses/new/?next=/checkout/", "/account/addresses/new/",
            recipient="Hazel Brook", line1="Mill Hill 1", postcode="10115", city="Berlin", country="DE",
        )  # fmt: skip
        assert at == "/checkout/"
        assert "Mill Hill 1" in text

        at, text = submit(browser, "/checkout/", "/checkout/")
        order = Order.objects.get(user=shopper)
        assert at == f"/orders/{order.number}/"
        assert "Thank you for your order" in text
        assert (order.status, order.total) == ("paid", Decimal("44.90"))
        assert StockItem.objects.get(product=product).on_hand == 3
        assert carts.contents(CartOwner(user_id=shopper.pk)).count == 0
        assert order.number in browser.get("/orders/").content.decode()

    def test_registration_logs_in_and_goes_back(self, browser: Client) -> None:
        at, text = submit(
            browser, "/account/register/?next=/cart/", "/account/register/",
            full_name="Hazel Brook", email="New@shop.test", password=PASSWORD,
        )  # fmt: skip
        assert at == "/cart/"
        assert "Hazel B." in text
        assert User.objects.get(email="new@shop.test").full_name == "Hazel Brook"

    def test_registration_says_what_is_wrong(self, browser: Client, shopper: User) -> None:
        form = filled(browser, "/account/register/", "/account/register/", full_name="X", email="a@shop.test")
        _, text = send(browser, "/account/register/", {**form, "password": "1234"})
        assert "too short" in text
        _, text = send(browser, "/account/register/", {**form, "email": shopper.email, "password": PASSWORD})
        assert "exists already" in text
        assert PASSWORD not in text
        assert User.objects.count() == 1


class TestLogin:
    def test_a_wrong_password_says_no_more_than_that(self, browser: Client, shopper: User) -> None:
        for email in (shopper.email, "nobody@shop.test"):
            at, text = submit(
                browser, "/account/login/", "/account/login/", email=email, password="wrong guess"
            )
            assert at == "/account/login/"
            assert "E-mail address or password is wrong." in text
            assert "wrong guess" not in text

    @pytest.mark.parametrize(
        "elsewhere", ["https://evil.test/", "//evil.test/", "/\\evil.test", "javascript:alert(1)", "\tx"]
    )
    def test_nobody_is_led_out_of_the_shop(self, browser: Client, shopper: User, elsewhere: str) -> None:
        form = filled(browser, "/account/login/", "/account/login/", email=shopper.email, password=PASSWORD)
        answer = browser.post("/account/login/", {**form, "next": elsewhere})
        assert (answer.status_code, answer["Location"]) == (302, "/account/")

    def test_guessing_is_limited_together_with_the_api(self, client: Client, settings: Any) -> None:
        from rest_framework.settings import api_settings

        rates = dict(api_settings.DEFAULT_THROTTLE_RATES)
        settings.REST_FRAMEWORK = {
            **settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {**rates, "login": "3/min"},
        }  # fmt: skip
        wrong = {"email": "a@shop.test", "password": "guess"}
        statuses = [client.post("/account/login/", wrong).status_code for _ in range(2)]
        assert client.post("/api/auth/login/", wrong, content_type="application/json").status_code == 400
        refused = client.post("/account/login/", wrong)
        assert (*statuses, refused.status_code) == (422, 422, 429)
        assert 0 < int(refused["Retry-After"]) <= 60
        assert client.get("/account/login/").status_code == 200

    def test_logging_out_takes_a_form(self, browser: Client, shopper: User) -> None:
        logged_in(browser, shopper)
        assert browser.get("/account/logout/").status_code == 405
        at, _ = submit(browser, "/account/", "/account/logout/")
        assert at == "/"
        assert browser.get("/account/").status_code == 302

    def test_forms_of_other_sites_do_nothing(
        self, browser: Client, make_product: Make, shopper: User
    ) -> None:
        product = make_product()
        answer = browser.post("/cart/", {"sku": product.sku, "quantity": 1})
        assert answer.status_code == 403
        assert b"Please try again" in answer.content
        assert browser.get("/cart/").status_code == 200
        assert b"thing-1" not in browser.get("/cart/").content


class TestCart:
    @pytest.fixture
    def item(self, browser: Client, make_product: Make) -> str:
        """Two things in the cart; the path of their line."""
        make_product(price=Decimal("10.00"), stock=5)
        _, text = submit(browser, "/product/thing-1/", "/cart/", quantity=2)
        found = re.search(r"/cart/items/\d+/", text)
        assert found
        return found[0]

    def test_quantities_change(self, browser: Client, item: str) -> None:
        _, text = submit(browser, "/cart/", item, quantity=3)
        assert "€34.90" in text

    def test_a_line_is_removed(self, browser: Client, item: str) -> None:
        _, text = submit(browser, "/cart/", item, quantity=0)
        assert "There is nothing in it yet" in text

    def test_more_than_there_is_stops_before_checkout(
        self, browser: Client, item: str, shopper: User
    ) -> None:
        _, text = submit(browser, "/cart/", item, quantity=9)
        assert "Only 5 left" in text
        assert 'href="/checkout/"' not in text
        logged_in(browser, shopper)
        assert browser.get("/checkout/")["Location"] == "/cart/"

    @pytest.mark.parametrize("quantity", ["-1", "100", "many", "", "1e9", "99999999999999999999"])
    def test_nonsense_changes_nothing(self, browser: Client, item: str, quantity: str) -> None:
        _, text = submit(browser, "/cart/", item, quantity=quantity)
        assert "whole number" in text
        assert "€24.90" in text

    def test_somebody_elses_line_does_not_exist(
        self, browser: Client, item: str, client: Client, make_product: Make
    ) -> None:
        client.post(item, {"quantity": 0})
        assert "€24.90" in browser.get("/cart/").content.decode()

    def test_what_cannot_be_bought_is_refused(self, client: Client) -> None:
        answer = client.post("/cart/", {"sku": "NO-1", "quantity": 1}, follow=True)
        assert b"This product is not for sale." in answer.content


class TestCheckout:
    @pytest.fixture
    def ready(
        self,
        browser: Client,
        shopper: User,
        make_product: Make,
        make_address: Callable[[User], Address],
        fill_cart: Callable[..., None],
    ) -> Product:
        """A shopper at the checkout with two things for 60 together, and an address."""
        product = make_product(price=Decimal("30.00"), stock=5)
        make_address(shopper)
        fill_cart(shopper, product, 2)
        logged_in(browser, shopper)
        return product

    def test_the_same_page_sent_twice_is_one_order(self, browser: Client, ready: Product) -> None:
        form = filled(browser, "/checkout/", "/checkout/")
        first, _ = send(browser, "/checkout/", form)
        second, _ = send(browser, "/checkout/", form)
        order = Order.objects.get()
        assert first == second == f"/orders/{order.number}/"
        assert StockItem.objects.get(product=ready).on_hand == 3

    def test_two_clicks_at_the_same_moment_are_one_order(
        self, browser: Client, ready: Product, shopper: User
    ) -> None:
        form = filled(browser, "/checkout/", "/checkout/")
        clicks = 4
        barrier = threading.Barrier(clicks)

        def click(_number: int) -> str:
            hand = Client(enforce_csrf_checks=True)  # of the same browser: the same cookies
            hand.cookies = browser.cookies
            try:
                barrier.wait(timeout=30)
                return str(hand.post("/checkout/", form)["Location"])
            finally:
                connections.close_all()

        with ThreadPoolExecutor(clicks) as pool:
            ways = {way.partition("?")[0] for way in pool.map(click, range(clicks))}
        order = Order.objects.get()
        assert ways == {f"/orders/{order.number}/"}
        assert StockItem.objects.get(product=ready).on_hand == 3

    @pytest.mark.parametrize(
        ("token", "words"), [("tok_declined", "declined the card"), ("tok_no_funds", "not enough money")]
    )
    def test_a_declined_card_keeps_the_cart_and_another_card_works(
        self, browser: Client, ready: Product, shopper: User, token: str, words: str
    ) -> None:
        form = filled(browser, "/checkout/", "/checkout/", payment_token=token)
        answer = browser.post("/checkout/", form)
        text = unescape(answer.content.decode())
        assert answer.status_code == 402
        assert words in text
        assert "Nothing was charged" in text
        assert carts.contents(CartOwner(user_id=shopper.pk)).count == 2
        assert StockItem.objects.get(product=ready).reserved == 0

        (again,) = [fields for _, action, fields in Forms(text).found if action == "/checkout/"]
        assert again["key"] != form["key"]
        at, _ = send(browser, "/checkout/", {**again, "payment_token": "tok_visa"})
        assert at.startswith("/orders/")
        assert sorted(Order.objects.values_list("status", flat=True)) == ["cancelled", "paid"]

    def test_a_bank_that_does_not_answer_leaves_an_order_that_waits(
        self, browser: Client, ready: Product
    ) -> None:
        at, text = submit(browser, "/checkout/", "/checkout/", payment_token="tok_timeout")
        order = Order.objects.get()
        assert at == f"/orders/{order.number}/"
        assert "has not answered yet" in text
        assert "Payment being checked" in text
        assert order.payment.status == Payment.Status.UNKNOWN

    def test_nobody_pays_another_price_than_the_page_said(self, browser: Client, ready: Product) -> None:
        form = filled(browser, "/checkout/", "/checkout/")
        Product.objects.filter(pk=ready.pk).update(price=Decimal("31.00"))
        answer = browser.post("/checkout/", form)
        text = answer.content.decode()
        assert answer.status_code == 409
        assert "A price has changed" in text
        assert "€62.00" in text
        assert not Order.objects.exists()

    def test_what_sold_out_meanwhile_leads_back_to_the_cart(self, browser: Client, ready: Product) -> None:
        form = filled(browser, "/checkout/", "/checkout/")
        StockItem.objects.filter(product=ready).update(on_hand=1)
        at, text = send(browser, "/checkout/", form)
        assert at == "/cart/"
        assert "Only 1 left" in text
        assert not Order.objects.exists()

    def test_another_purchase_under_a_used_key_buys_nothing(self, browser: Client, ready: Product) -> None:
        form = filled(browser, "/checkout/", "/checkout/", payment_token="tok_declined")
        browser.post("/checkout/", form)
        answer = browser.post("/checkout/", {**form, "payment_token": "tok_visa"})
        assert answer.status_code == 409
        assert b"had been sent before" in answer.content
        assert Order.objects.get().status == "cancelled"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"address_id": "999"},
            {"payment_token": "tok_free"},
            {"expected_total": "free"},
            {"key": "x" * 129},
        ],
    )
    def test_what_the_page_did_not_offer_is_refused(
        self, browser: Client, ready: Product, wrong: dict[str, str]
    ) -> None:
        answer = browser.post("/checkout/", filled(browser, "/checkout/", "/checkout/") | wrong)
        assert answer.status_code == 422
        assert not Order.objects.exists()

    def test_somebody_elses_address_is_not_an_address(
        self,
        browser: Client,
        ready: Product,
        make_user: Callable[..., User],
        make_address: Callable[[User], Address],
    ) -> None:
        foreign = make_address(make_user())
        form = filled(browser, "/checkout/", "/checkout/", address_id=foreign.pk)
        assert browser.post("/checkout/", form).status_code == 422
        assert not Order.objects.exists()


class TestOrders:
    @pytest.fixture
    def order(
        self,
        client: Client,
        shopper: User,
        make_product: Make,
        make_address: Callable[[User], Address],
        fill_cart: Callable[..., None],
    ) -> Order:
        """A paid order, bought through the page."""
        make_address(shopper)
        fill_cart(shopper, make_product(stock=5))
        client.force_login(shopper)
        submit(client, "/checkout/", "/checkout/")
        return Order.objects.get()

    def test_it_is_cancelled_once(self, client: Client, order: Order) -> None:
        url = reverse("storefront:order", args=[order.number])
        _, text = submit(client, url, url)
        assert "the money is on its way back" in text
        assert "Yes, cancel it" not in text
        order.refresh_from_db()
        assert order.status == "refunded"
        again = client.post(url, follow=True)
        assert b"only a paid one can be refunded" in again.content

    def test_it_cannot_be_cancelled_when_it_left(self, client: Client, order: Order) -> None:
        ship(order.pk)
        text = client.get(f"/orders/{order.number}/").content.decode()
        assert "On its way" in text
        assert "Yes, cancel it" not in text

    def test_others_neither_see_nor_cancel_it(
        self, client: Client, order: Order, make_user: Callable[..., User]
    ) -> None:
        client.force_login(make_user())
        answers: list[HttpResponse] = [
            client.get(f"/orders/{order.number}/"),  # type: ignore[list-item]  # the test client's own class
            client.post(f"/orders/{order.number}/"),  # type: ignore[list-item]  # as above
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        order.refresh_from_db()
        assert order.status == "paid"

    @pytest.mark.parametrize("url", ["/orders/", "/orders/X1/", "/account/", "/checkout/"])
    def test_visitors_are_asked_to_log_in(self, client: Client, url: str) -> None:
        answer = client.get(url)
        assert answer.status_code == 302
        assert answer["Location"] == f"/account/login/?next={url}"


class TestReviews:
    def test_written_once_and_shown(self, browser: Client, make_product: Make, shopper: User) -> None:
        make_product()
        logged_in(browser, shopper)
        review = {"rating": 4, "title": "Firm & fair", "body": "Holds what it says."}
        _, text = submit(browser, "/product/thing-1/", "/product/thing-1/", **review)
        assert "Firm & fair" in text
        assert "You reviewed this" in text
        assert Review.objects.get().author_name == "Hazel B."

    def test_a_second_one_is_refused(self, client: Client, make_product: Make, shopper: User) -> None:
        make_product()
        client.force_login(shopper)
        for _ in range(2):
            answer = client.post("/product/thing-1/", {"rating": 4, "title": "So"}, follow=True)
        assert b"already reviewed" in answer.content
        assert Review.objects.count() == 1

    @pytest.mark.parametrize("wrong", [{"rating": 6}, {"rating": 0}, {"rating": ""}, {"title": ""}])
    def test_incomplete_ones_come_back(
        self, client: Client, make_product: Make, shopper: User, wrong: dict[str, Any]
    ) -> None:
        make_product()
        client.force_login(shopper)
        answer = client.post("/product/thing-1/", {"rating": 4, "title": "So", "body": "Kept text"} | wrong)
        assert answer.status_code == 422
        assert b"errorlist" in answer.content
        assert b"Kept text" in answer.content
        assert not Review.objects.exists()

    def test_visitors_log_in_first(self, client: Client, make_product: Make) -> None:
        make_product()
        answer = client.post("/product/thing-1/", {"rating": 4, "title": "So"})
        assert answer["Location"] == "/account/login/?next=/product/thing-1/"


class TestAddresses:
    def test_kept_changed_deleted(self, client: Client, shopper: User) -> None:
        client.force_login(shopper)
        new = "/account/addresses/new/"
        fields = {"recipient": "Hazel", "line1": "Mill Hill 1", "postcode": "1", "city": "Berlin"}
        form = filled(client, new, new, **fields)
        for _ in range(2):  # a double click keeps one
            send(client, new, form)
        address = shopper.addresses.get()
        assert address.is_default
        url = f"/account/addresses/{address.pk}/"
        submit(client, url, url, city="Köln")
        assert shopper.addresses.get().city == "Köln"
        _, text = submit(client, url, url, delete="yes")
        assert "You have no address here yet" in text

    def test_others_are_out_of_reach(
        self,
        client: Client,
        shopper: User,
        make_user: Callable[..., User],
        make_address: Callable[[User], Address],
    ) -> None:
        foreign = make_address(make_user())
        client.force_login(shopper)
        url = f"/account/addresses/{foreign.pk}/"
        assert client.get(url).status_code == 404
        assert client.post(url, {"delete": "yes"}).status_code == 404
        assert Address.objects.filter(pk=foreign.pk).exists()
