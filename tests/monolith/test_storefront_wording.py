"""How values read to a shopper, and the ways through the tree of categories: no database, no request."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from monolith.catalog.selectors import CategoryNode
from monolith.orders.status import OrderStatus
from monolith.payments.models import Payment
from monolith.payments.provider import PAYMENT_METHODS, SimulatedProvider
from monolith.storefront import wording
from monolith.storefront.navigation import way_to

START = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("1290", "EUR", "€1,290.00"),
        ("0.5", "GBP", "£0.50"),
        ("12", "CHF", "CHF 12.00"),
        ("0", "USD", "$0.00"),
    ],
)
def test_amounts(amount: str, currency: str, text: str) -> None:
    assert wording.money(Decimal(amount), currency) == text


@pytest.mark.parametrize(
    ("available", "text"), [(-1, "Sold out"), (0, "Sold out"), (1, "Only 1 left"), (5, "Only 5 left"), (6, "In stock")]
)  # fmt: skip
def test_stock(available: int, text: str) -> None:
    assert wording.pieces(available) == text


class TestAttributes:
    @pytest.mark.parametrize(
        ("attributes", "row"),
        [
            ({"dimensions_cm": {"width": 3, "height": 4}}, ("Dimensions (cm)", "width 3, height 4")),
            ({"guarantee_years": 5}, ("Guarantee (years)", "5")),
            ({"cm": 5}, ("Cm", "5")),
            ({"features": ["a", {"b": True}]}, ("Features", "a, b yes")),
            ({"discontinued_by_maker": False}, ("Discontinued by maker", "no")),
            ({"": "x"}, ("", "x")),
            ({"nought": 0}, ("Nought", "0")),
        ],
    )
    def test_read_as_a_table(self, attributes: object, row: tuple[str, str]) -> None:
        assert list(wording.attribute_rows(attributes)) == [row]

    @pytest.mark.parametrize(
        "attributes", [None, [], "text", 3, {"none": None}, {"empty": []}, {"blank": ""}]
    )
    def test_nothing_makes_no_row(self, attributes: object) -> None:
        assert list(wording.attribute_rows(attributes)) == []


class TestJourney:
    def test_an_order_on_its_way_shows_what_is_ahead(self) -> None:
        reached = {OrderStatus.PENDING: START, OrderStatus.PAID: START + timedelta(minutes=1)}
        steps = wording.journey(OrderStatus.PAID, reached)
        assert [step.label for step in steps] == ["Ordered", "Paid", "On its way", "Delivered"]
        assert [step.current for step in steps] == [False, True, False, False]
        assert [step.at is not None for step in steps] == [True, True, False, False]

    @pytest.mark.parametrize("end", [OrderStatus.CANCELLED, OrderStatus.REFUNDED])
    def test_one_that_ended_early_shows_its_end_and_nothing_ahead(self, end: OrderStatus) -> None:
        steps = wording.journey(end, {OrderStatus.PENDING: START, end: START})
        assert [step.label for step in steps] == ["Ordered", wording.step_label(end)]
        assert [step.current for step in steps] == [False, True]

    @pytest.mark.parametrize("status", OrderStatus)
    def test_every_status_is_the_current_step_once(self, status: OrderStatus) -> None:
        assert sum(step.current for step in wording.journey(status, {OrderStatus.PENDING: START})) == 1


@pytest.mark.parametrize("payment", Payment.Status)
@pytest.mark.parametrize("status", OrderStatus)
def test_every_state_of_an_order_has_words(status: OrderStatus, payment: Payment.Status) -> None:
    label = wording.status_label(status, payment)
    assert label
    assert label[0].isupper()


def test_every_card_on_offer_that_is_declined_has_a_reason_of_its_own() -> None:
    from uuid import uuid4

    provider = SimulatedProvider()
    codes = {
        answer.decline_code
        for token in (*PAYMENT_METHODS, "tok_none")
        if (answer := provider.look_up(key=uuid4(), token=token)) and answer.decline_code
    }
    reasons = {wording.decline_reason(code) for code in codes}
    assert len(codes) == len(reasons) == 3
    assert wording.decline_reason("new_code") not in reasons


def node(slug: str, *children: CategoryNode) -> CategoryNode:
    return CategoryNode(0, slug, slug.title(), 0, 1, None, children)


def test_the_way_through_the_tree_ends_at_the_category() -> None:
    tree = (node("a", node("b")), node("c", node("d", node("e"))))
    assert [step.slug for step in way_to(tree, "e")] == ["c", "d", "e"]
    assert [step.slug for step in way_to(tree, "a")] == ["a"]
    assert way_to(tree, "z") == ()
