"""How values read to a shopper, and a double click that arrives as two requests at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product as pairs

import pytest
from django.db import connections
from django.http import HttpRequest
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from monolith.accounts.models import Address, User
from monolith.catalog.models import Product
from monolith.catalog.selectors import CategoryNode
from monolith.config import logs
from monolith.inventory.models import StockItem
from monolith.orders.models import Order
from monolith.orders.status import TRANSITIONS, OrderStatus
from monolith.payments.models import Payment
from monolith.storefront import wording
from monolith.storefront.forms import BrowseForm, CheckoutForm
from monolith.storefront.navigation import way_to
from monolith.storefront.views import failures

_NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
)


class TestWording:
    @pytest.mark.parametrize(
        ("amount", "currency", "text"),
        [("1290", "EUR", "€1,290.00"), ("0.5", "GBP", "£0.50"), ("1234567.891", "CHF", "CHF 1,234,567.89")],
    )
    def test_money(self, amount: str, currency: str, text: str) -> None:
        assert wording.money(Decimal(amount), currency) == text

    @pytest.mark.parametrize(
        ("available", "text"),
        [(-1, "Sold out"), (0, "Sold out"), (1, "Only 1 left"), (5, "Only 5 left"), (6, "In stock")],
    )
    def test_stock(self, available: int, text: str) -> None:
        assert wording.pieces(available) == text

    @given(_JSON)
    def test_attributes_of_any_shape_become_rows_of_text(self, attributes: object) -> None:
        rows = list(wording.attribute_rows(attributes))
        assert all(isinstance(name, str) and text for name, text in rows)
        assert isinstance(attributes, dict) or rows == []

    def test_every_status_has_words_whatever_the_payment_does(self) -> None:
        for status, payment in pairs(OrderStatus, Payment.Status):
            assert wording.status_label(status, payment)
        assert wording.status_label(OrderStatus.CANCELLED, Payment.Status.DECLINED) == "Payment declined"
        assert wording.status_label(OrderStatus.PENDING, Payment.Status.UNKNOWN) == "Payment being checked"
        assert wording.status_label(OrderStatus.PAID, Payment.Status.REFUNDING) == "Refund on its way"

    def test_a_journey_shows_what_was_and_what_is_ahead(self) -> None:
        steps = wording.journey(OrderStatus.PAID, {OrderStatus.PENDING: _NOON, OrderStatus.PAID: _NOON})
        assert [(step.label, step.at is not None) for step in steps] == [
            ("Ordered", True), ("Paid", True), ("On its way", False), ("Delivered", False),
        ]  # fmt: skip

    @given(st.data())
    def test_every_journey_through_the_table_has_one_current_step(self, data: st.DataObject) -> None:
        status = OrderStatus.PENDING
        reached = {status: _NOON}
        while TRANSITIONS[status] and data.draw(st.booleans()):
            status = data.draw(st.sampled_from(sorted(TRANSITIONS[status])))
            reached[status] = _NOON
        steps = wording.journey(status, reached)
        assert [step.label for step in steps if step.current] == [wording.step_label(status)]
        assert {step.label for step in steps if step.at} == {wording.step_label(step) for step in reached}
        if not TRANSITIONS[status]:
            assert all(step.at for step in steps) or status is OrderStatus.DELIVERED


class TestNavigation:
    def test_the_way_leads_from_the_root_to_the_category(self) -> None:
        def node(slug: str, *children: CategoryNode) -> CategoryNode:
            return CategoryNode(0, slug, slug, 0, 1, None, children)

        tree = (node("a", node("b")), node("c", node("d", node("e"))))
        assert [step.slug for step in way_to(tree, "e")] == ["c", "d", "e"]
        assert [step.slug for step in way_to(tree, "a")] == ["a"]
        assert way_to(tree, "none") == ()


@pytest.mark.parametrize("price", ["1e-400000", "1e400000", "NaN", "-1", "Infinity", "9" * 5000, "\x00"])
def test_prices_that_break_databases_are_refused_by_the_form(price: str) -> None:
    form = BrowseForm({"min_price": price}, brands=[], searching=False)
    assert list(form.errors) == ["min_price"]


class TestFailures:
    def asked(self, path: str) -> HttpRequest:
        return RequestFactory().get(path)

    def test_a_page_that_broke_names_the_request(self) -> None:
        token = logs.request_id.set("r-17")
        try:
            answer = failures.broken(self.asked("/"))
        finally:
            logs.request_id.reset(token)
        assert answer.status_code == 500
        assert b"r-17" in answer.content
        assert b"</html>" in answer.content

    def test_programs_get_the_bare_answer(self) -> None:
        answer = failures.broken(self.asked("/api/products/"))
        assert answer.status_code == 500
        assert b"request_id" not in answer.content
        assert b"shop.css" not in answer.content

    def test_a_view_that_raises_ends_on_that_page(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, db: None
    ) -> None:
        def broken(*_args: object) -> None:
            raise RuntimeError("the shelf fell down")

        monkeypatch.setattr("monolith.catalog.selectors.category_tree", broken)
        client.raise_request_exception = False
        answer = client.get("/", headers={"X-Request-ID": "r-18"})
        assert answer.status_code == 500
        assert b"r-18" in answer.content
        assert b"shelf fell" not in answer.content


@pytest.mark.django_db(transaction=True)
def test_a_double_click_that_arrives_at_once_is_one_order(
    shopper: User,
    make_product: Callable[..., Product],
    make_address: Callable[[User], Address],
    fill_cart: Callable[..., None],
) -> None:
    """Real threads with a connection each: all of them are led to the same order, one piece is sold once."""
    product = make_product(price=Decimal("30.00"), stock=5)
    fill_cart(shopper, product)
    address = make_address(shopper)
    form = {
        "address_id": str(address.pk), "payment_token": "tok_visa", "key": CheckoutForm.new_key(),
        "expected_total": "34.90",
    }  # fmt: skip
    clients = [Client() for _ in range(6)]
    for client in clients:
        client.force_login(shopper)
    barrier = threading.Barrier(len(clients))

    def click(client: Client) -> tuple[int, str]:
        try:
            barrier.wait(timeout=30)
            answer = client.post("/checkout/", form)
            return answer.status_code, answer.headers.get("Location", "")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = set(pool.map(click, clients))
    order = Order.objects.get()
    assert answers == {(302, f"/orders/{order.number}/?placed")}
    assert (order.status, Payment.objects.count()) == ("paid", 1)
    assert StockItem.objects.get().on_hand == 4
