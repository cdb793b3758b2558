"""Buying, one request at a time: what changes together, and what a bad answer of the provider does."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Sum
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from monolith.accounts.models import Address, User
from monolith.cart.models import CartItem
from monolith.catalog.models import Product
from monolith.inventory.models import Reservation, StockItem, StockMovement
from monolith.orders import checkout, services
from monolith.orders.models import Order, OrderEvent
from monolith.payments.api import signature
from monolith.payments.models import Payment, PaymentEvent
from monolith.payments.provider import (
    PaymentProvider,
    ProviderAnswer,
    ProviderTimeoutError,
    SimulatedProvider,
)

pytestmark = pytest.mark.django_db

Buy = Callable[..., Any]


def stock(product: Product) -> tuple[int, int]:
    item = StockItem.objects.get(product=product)
    moved = StockMovement.objects.filter(stock_item=item).aggregate(Sum("quantity"))["quantity__sum"]
    assert moved == item.on_hand, "the ledger must add up"
    return item.on_hand, item.reserved


def in_cart() -> dict[str, int]:
    return {item.product.sku: item.quantity for item in CartItem.objects.select_related("product")}


@pytest.fixture
def product(make_product: Callable[..., Product]) -> Product:
    return make_product(price="20.00", stock=10)


@pytest.fixture
def address(shopper: User, make_address: Callable[[User], Address]) -> Address:
    return make_address(shopper)


@pytest.fixture
def buy(api: APIClient, shopper: User, address: Address) -> Buy:
    api.force_login(shopper)

    def post(token: str = "tok_visa", key: str | None = "k1", **more: object) -> Any:
        headers = {"HTTP_IDEMPOTENCY_KEY": key} if key is not None else {}
        return api.post(
            "/api/checkout/", {"address_id": address.pk, "payment_token": token, **more}, **headers
        )

    return post


@pytest.fixture
def filled(shopper: User, product: Product, fill_cart: Callable[..., None]) -> Product:
    fill_cart(shopper, product, 3)
    return product


class TestSuccess:
    def test_everything_changes_together(self, buy: Buy, filled: Product) -> None:
        answer = buy()
        assert answer.status_code == 201
        body = answer.json()
        assert (body["status"], body["payment"]["status"]) == ("paid", "captured")
        assert (body["items_total"], body["shipping_total"], body["total"]) == ("60.00", "0.00", "60.00")
        assert [event["to_status"] for event in body["events"]] == ["pending", "paid"]
        assert stock(filled) == (7, 0)
        assert in_cart() == {}
        assert Reservation.objects.get().status == "consumed"

    def test_prices_and_address_are_copies(
        self, buy: Buy, filled: Product, address: Address, api: APIClient
    ) -> None:
        number = buy().json()["number"]
        Product.objects.update(price=Decimal("99.00"), name="Other")
        address.delete()
        body = api.get(f"/api/orders/{number}/").json()
        assert (body["lines"][0]["unit_price"], body["lines"][0]["name"]) == ("20.00", "Thing 1")
        assert body["shipping_address"]["city"] == "Berlin"

    def test_what_was_added_meanwhile_stays_in_the_cart(
        self, shopper: User, address: Address, filled: Product, fill_cart: Callable[..., None]
    ) -> None:
        request = checkout.CheckoutRequest(shopper, address.pk, "tok_visa", "k")
        placed = checkout.place(request)
        fill_cart(shopper, filled, 2)
        (answer,) = SimulatedProvider().charge(
            key=placed.payment.key, amount=placed.payment.amount, currency="EUR", token="tok_visa"
        )
        checkout.settle(answer)
        assert in_cart() == {filled.sku: 2}


class TestRefusals:
    @pytest.mark.parametrize("key", [None, "", "x" * 129, "bell\a"])
    def test_a_key_is_needed(self, buy: Buy, filled: Product, key: str | None) -> None:
        answer = buy(key=key)
        assert (answer.status_code, list(answer.json())) == (400, ["Idempotency-Key"])

    def test_an_empty_cart(self, buy: Buy) -> None:
        answer = buy()
        assert (answer.status_code, answer.json()["code"]) == (409, "empty_cart")

    def test_not_enough_stock_changes_nothing(self, buy: Buy, filled: Product) -> None:
        StockItem.objects.update(on_hand=2)
        StockMovement.objects.update(quantity=2)
        answer = buy()
        assert (answer.status_code, answer.json()["code"]) == (409, "out_of_stock")
        assert answer.json()["items"] == [{"product": filled.pk, "wanted": 3, "available": 2}]
        assert stock(filled) == (2, 0)
        assert not Order.objects.exists()
        assert not Payment.objects.exists()
        assert in_cart() == {filled.sku: 3}

    def test_one_short_product_holds_back_all(
        self, buy: Buy, filled: Product, shopper: User, make_product: Callable[..., Product],
        fill_cart: Callable[..., None],
    ) -> None:  # fmt: skip
        fill_cart(shopper, make_product(stock=0), 1)
        assert buy().status_code == 409
        assert stock(filled) == (10, 0)
        assert not Reservation.objects.exists()

    def test_a_product_that_left_the_catalogue(self, buy: Buy, filled: Product) -> None:
        Product.objects.update(is_active=False)
        assert buy().json()["code"] == "not_for_sale"

    def test_a_price_that_has_changed(self, buy: Buy, filled: Product) -> None:
        Product.objects.update(price=Decimal("21.00"))
        answer = buy(expected_total="60.00")
        assert (answer.status_code, answer.json()["code"], answer.json()["total"]) == (
            409, "price_changed", "63.00",
        )  # fmt: skip
        assert buy(expected_total="63.00").status_code == 201

    def test_somebody_elses_address(
        self,
        buy: Buy,
        filled: Product,
        make_user: Callable[..., User],
        make_address: Callable[[User], Address],
    ) -> None:
        answer = buy(address_id=make_address(make_user()).pk)
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_address")

    def test_strangers_cannot_buy(self, api: APIClient) -> None:
        assert api.post("/api/checkout/", {}, HTTP_IDEMPOTENCY_KEY="k").status_code == 403

    def test_checkouts_are_throttled(self, buy: Buy, settings: Settings) -> None:
        rates = {**settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], "checkout": "1/min"}
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": rates}
        assert [buy().status_code for _ in range(2)] == [409, 429]


class TestRepetition:
    def test_the_same_key_buys_once(self, buy: Buy, filled: Product) -> None:
        first, second = buy(), buy()
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert (Order.objects.count(), Payment.objects.count(), stock(filled)) == (1, 1, (7, 0))

    def test_a_declined_payment_stays_declined_under_its_key(self, buy: Buy, filled: Product) -> None:
        assert [buy("tok_declined").status_code for _ in range(2)] == [402, 402]
        assert buy("tok_visa", key="k2").status_code == 201

    def test_one_key_for_two_purchases_is_refused(self, buy: Buy, filled: Product) -> None:
        buy()
        answer = buy("tok_mastercard")
        assert (answer.status_code, answer.json()["code"]) == (422, "key_reused")

    def test_two_shoppers_may_use_the_same_key(
        self, buy: Buy, filled: Product, make_user: Callable[..., User], make_address: Callable[[User], Address],
        fill_cart: Callable[..., None],
    ) -> None:  # fmt: skip
        buy()
        other = make_user()
        fill_cart(other, filled, 1)
        client = APIClient()
        client.force_login(other)
        body = {"address_id": make_address(other).pk, "payment_token": "tok_visa"}
        assert client.post("/api/checkout/", body, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


class TestProviderAnswers:
    @pytest.mark.parametrize(
        ("token", "code"),
        [("tok_declined", "card_declined"), ("tok_no_funds", "insufficient_funds"), ("x", "unknown_card")],
    )
    def test_declined_keeps_the_cart_and_frees_the_stock(
        self, buy: Buy, filled: Product, token: str, code: str
    ) -> None:
        answer = buy(token)
        assert (answer.status_code, answer.json()["code"]) == (402, code)
        assert answer.json()["order"]["status"] == "cancelled"
        assert stock(filled) == (10, 0)
        assert in_cart() == {filled.sku: 3}

    def test_the_same_answer_twice_counts_once(self, buy: Buy, filled: Product) -> None:
        assert buy("tok_twice").status_code == 201
        assert (stock(filled), PaymentEvent.objects.count(), OrderEvent.objects.count()) == ((7, 0), 1, 2)

    @pytest.mark.parametrize(
        ("token", "order", "payment", "left"),
        [
            ("tok_timeout", "paid", "captured", (7, 0)),
            ("tok_timeout_declined", "cancelled", "declined", (10, 0)),
            ("tok_timeout_lost", "cancelled", "declined", (10, 0)),
            ("tok_unreachable", "pending", "unknown", (10, 3)),
        ],
    )
    def test_a_lost_answer_is_found_out_later(  # noqa: PLR0917  (fixtures)
        self, buy: Buy, filled: Product, token: str, order: str, payment: str, left: tuple[int, int]
    ) -> None:
        answer = buy(token)
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert (Payment.objects.get().status, stock(filled)) == ("unknown", (10, 3))
        report = list(checkout.reconcile(provider=SimulatedProvider(), older_than=timedelta(0)))
        assert len(report) == 1
        assert (Order.objects.get().status, Payment.objects.get().status) == (order, payment)
        assert stock(filled) == left
        assert in_cart() == ({} if order == "paid" else {filled.sku: 3})

    def test_young_payments_are_left_alone(self, buy: Buy, filled: Product) -> None:
        buy("tok_timeout")
        assert list(checkout.reconcile(provider=SimulatedProvider(), older_than=timedelta(minutes=2))) == []

    def test_a_process_that_dies_while_asking_leaves_a_trace(
        self, shopper: User, address: Address, filled: Product
    ) -> None:
        request = checkout.CheckoutRequest(shopper, address.pk, "tok_visa", "k")
        with pytest.raises(RuntimeError):
            checkout.check_out(request, provider=DyingProvider())
        assert Payment.objects.get().status == "processing"
        list(checkout.reconcile(provider=SimulatedProvider(), older_than=timedelta(0)))
        assert (Order.objects.get().status, stock(filled)) == ("paid", (7, 0))

    def test_money_of_an_order_given_up_goes_back(self, buy: Buy, filled: Product) -> None:
        buy("tok_unreachable")
        later = timezone.now() + timedelta(hours=1)
        silent = UnreachableProvider()
        assert "cancelled" in next(checkout.reconcile(provider=silent, older_than=timedelta(0), now=later))
        assert (Order.objects.get().status, stock(filled)) == ("cancelled", (10, 0))
        assert "still no answer" in next(
            checkout.reconcile(provider=silent, older_than=timedelta(0), now=later)
        )
        # the provider wakes up: it had taken the money
        awake = SimulatedProvider()
        Payment.objects.update(token="tok_timeout")
        for _ in range(2):
            list(checkout.reconcile(provider=awake, older_than=timedelta(0), now=later))
        assert (Order.objects.get().status, Payment.objects.get().status) == ("cancelled", "refunded")
        assert stock(filled) == (10, 0)


class TestCancelling:
    def test_a_paid_order_is_refunded_and_returns_to_the_shelf(
        self, buy: Buy, filled: Product, api: APIClient
    ) -> None:
        number = buy().json()["number"]
        body = api.post(f"/api/orders/{number}/cancel/").json()
        assert (body["status"], body["payment"]["status"]) == ("refunded", "refunded")
        assert stock(filled) == (10, 0)
        again = api.post(f"/api/orders/{number}/cancel/")
        assert (again.status_code, again.json()["code"]) == (409, "too_late")

    def test_not_before_the_answer_is_known(self, buy: Buy, filled: Product, api: APIClient) -> None:
        number = buy("tok_timeout").json()["number"]
        answer = api.post(f"/api/orders/{number}/cancel/")
        assert (answer.status_code, answer.json()["code"]) == (409, "payment_pending")

    def test_not_after_it_left(self, buy: Buy, filled: Product, api: APIClient) -> None:
        number = buy().json()["number"]
        services.ship(Order.objects.get().pk)
        assert api.post(f"/api/orders/{number}/cancel/").json()["code"] == "too_late"
        assert (Payment.objects.get().status, stock(filled)) == ("captured", (7, 0))

    def test_a_lost_answer_about_a_refund_is_asked_for_again(self, buy: Buy, filled: Product) -> None:
        buy()
        order = Order.objects.get()
        checkout.cancel(order.pk, provider=UnreachableProvider())
        order.refresh_from_db()
        assert (order.status, Payment.objects.get().status) == ("paid", "refunding")
        with pytest.raises(services.RefundAskedError):
            services.ship(order.pk)
        list(checkout.reconcile(provider=SimulatedProvider(), older_than=timedelta(0)))
        order.refresh_from_db()
        assert (order.status, stock(filled)) == ("refunded", (10, 0))

    def test_a_parcel_that_came_back(self, buy: Buy, filled: Product) -> None:
        buy()
        order = Order.objects.get()
        services.ship(order.pk)
        services.deliver(order.pk)
        checkout.refund_returned(order.pk, provider=SimulatedProvider())
        order.refresh_from_db()
        assert (order.status, Payment.objects.get().status, stock(filled)) == ("refunded", "refunded", (7, 0))


class TestOrders:
    def test_only_ones_own(
        self, buy: Buy, filled: Product, api: APIClient, make_user: Callable[..., User]
    ) -> None:
        number = buy().json()["number"]
        assert [order["number"] for order in api.get("/api/orders/").json()["results"]] == [number]
        api.force_login(make_user())
        assert api.get("/api/orders/").json()["count"] == 0
        assert api.get(f"/api/orders/{number}/").status_code == 404
        assert api.post(f"/api/orders/{number}/cancel/").status_code == 404
        api.logout()
        assert api.get("/api/orders/").status_code == 403

    def test_lists_do_not_ask_for_every_order(  # noqa: PLR0917  (fixtures)
        self, buy: Buy, product: Product, shopper: User, api: APIClient, fill_cart: Callable[..., None],
        django_assert_num_queries: Any,
    ) -> None:  # fmt: skip
        for number in range(3):
            fill_cart(shopper, product)
            buy(key=f"k{number}")
        with django_assert_num_queries(4):  # session, user, count, orders with their payments
            assert len(api.get("/api/orders/").json()["results"]) == 3


class TestWebhook:
    SECRET = "shared-with-the-provider"

    @pytest.fixture
    def deliver(self, settings: Settings) -> Callable[..., int]:
        settings.PAYMENT_WEBHOOK_SECRET = self.SECRET

        def post(body: str, secret: str = self.SECRET) -> int:
            answer = APIClient(enforce_csrf_checks=True).post(
                "/api/payments/events/",
                body,
                content_type="application/json",
                HTTP_X_SIGNATURE=signature(body.encode(), secret),
            )
            status: int = answer.status_code
            return status

        return post

    def event(self) -> str:
        key = Payment.objects.get().key
        return f'{{"event_id": "e1", "key": "{key}", "outcome": "captured", "reference": "r"}}'

    def test_an_answer_by_the_webhook_settles_the_order_once(
        self, buy: Buy, filled: Product, deliver: Callable[..., int]
    ) -> None:
        buy("tok_timeout")
        assert [deliver(self.event()) for _ in range(3)] == [204, 204, 204]
        assert (Order.objects.get().status, stock(filled), PaymentEvent.objects.count()) == (
            "paid",
            (7, 0),
            1,
        )
        # reconcile finds the same fact under another name: nothing changes any more
        assert list(checkout.reconcile(provider=SimulatedProvider(), older_than=timedelta(0))) == []

    def test_a_contradiction_is_noted_and_ignored(
        self, buy: Buy, filled: Product, deliver: Callable[..., int]
    ) -> None:
        buy()
        late = self.event().replace("captured", "declined")
        assert deliver(late) == 204
        assert (Order.objects.get().status, stock(filled)) == ("paid", (7, 0))
        assert list(PaymentEvent.objects.values_list("outcome", "applied")) == [
            ("captured", True),
            ("declined", False),
        ]

    def test_only_the_provider_may(self, buy: Buy, filled: Product, deliver: Callable[..., int]) -> None:
        buy("tok_timeout")
        assert deliver(self.event(), secret="guessed") == 403
        assert Payment.objects.get().status == "unknown"

    def test_unknown_payments(self, deliver: Callable[..., int]) -> None:
        event = f'{{"event_id": "e", "key": "{UUID(int=1)}", "outcome": "captured"}}'
        assert deliver(event) == 404

    def test_without_a_secret_nothing_is_accepted(
        self, settings: Settings, deliver: Callable[..., int]
    ) -> None:
        settings.PAYMENT_WEBHOOK_SECRET = ""
        assert deliver("{}", secret="") == 403


class DyingProvider(SimulatedProvider):
    """The process ends in the middle of the request."""

    def charge(self, *, key: UUID, amount: Decimal, currency: str, token: str) -> tuple[ProviderAnswer, ...]:
        raise RuntimeError("killed")


class UnreachableProvider:
    """Never answers."""

    def charge(self, *, key: UUID, amount: Decimal, currency: str, token: str) -> tuple[ProviderAnswer, ...]:
        raise ProviderTimeoutError

    def look_up(self, *, key: UUID, token: str) -> ProviderAnswer | None:
        raise ProviderTimeoutError

    def refund(self, *, key: UUID, reference: str, amount: Decimal) -> ProviderAnswer:
        raise ProviderTimeoutError


_: PaymentProvider = UnreachableProvider()
