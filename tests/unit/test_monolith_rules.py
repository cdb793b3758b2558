"""The shop's pure rules: the table of order statuses, prices, texts."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith.notifications.messages import OrderFacts, message_for
from monolith.orders.pricing import FREE_SHIPPING_FROM, SHIPPING, total_up
from monolith.orders.status import TRANSITIONS, IllegalTransitionError, OrderStatus, check_transition

CENTS = st.integers(min_value=1, max_value=10**7).map(lambda cents: Decimal(cents) / 100)


@pytest.mark.parametrize("current", OrderStatus)
@pytest.mark.parametrize("wanted", OrderStatus)
def test_the_table_decides(current: OrderStatus, wanted: OrderStatus) -> None:
    if wanted in TRANSITIONS[current]:
        check_transition(current, wanted)
    else:
        with pytest.raises(IllegalTransitionError) as refusal:
            check_transition(current, wanted)
        assert refusal.value.details["possible"] == sorted(TRANSITIONS[current])


def test_every_status_can_be_reached_and_no_order_runs_in_a_circle() -> None:
    reached: set[OrderStatus] = set()

    def walk(status: OrderStatus, way: tuple[OrderStatus, ...]) -> None:
        assert status not in way
        reached.add(status)
        for following in TRANSITIONS[status]:
            walk(following, (*way, status))

    walk(OrderStatus.PENDING, ())
    assert reached == set(OrderStatus) == set(TRANSITIONS)


@given(st.lists(CENTS, min_size=1, max_size=20))
def test_totals_are_exact_and_shipping_is_charged_below_the_limit(lines: list[Decimal]) -> None:
    totals = total_up(lines)
    assert totals.items == sum(lines)
    assert totals.shipping == (Decimal(0) if totals.items >= FREE_SHIPPING_FROM else SHIPPING)
    assert totals.total == totals.items + totals.shipping


def test_nothing_costs_nothing() -> None:
    assert total_up([]).total == 0


def test_messages_tell_what_was_bought() -> None:
    facts = OrderFacts("ABC", "Hazel", Decimal("24.90"), "EUR", ((2, "Mug", Decimal("20.00")),))
    message = message_for("paid", facts)
    assert message is not None
    assert "ABC" in message.subject
    assert "2 x Mug: 20.00 EUR" in message.body
    assert message_for("pending", facts) is None
