"""Many at once, with real threads and a connection each: never oversold, never charged twice, never stuck."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection, connections
from django.db.models import F, Sum

from monolith.accounts.models import Address, User
from monolith.catalog.models import Product
from monolith.errors import ShopError
from monolith.inventory.models import Reservation, StockItem, StockMovement
from monolith.orders import checkout
from monolith.orders.models import Order
from monolith.payments.models import Payment, PaymentEvent
from monolith.payments.provider import Outcome, ProviderAnswer, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)


class CountingProvider(SimulatedProvider):
    """Remembers what it was asked to charge."""

    def __init__(self) -> None:
        self.charged: Counter[UUID] = Counter()
        self._lock = threading.Lock()

    def charge(self, *, key: UUID, amount: Decimal, currency: str, token: str) -> tuple[ProviderAnswer, ...]:
        with self._lock:
            self.charged[key] += 1
        return super().charge(key=key, amount=amount, currency=currency, token=token)


def at_once(acts: list[Callable[[], Any]]) -> list[Any]:
    """Run all at the same moment, each in a thread of its own; a refusal by the shop becomes its code."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        try:
            barrier.wait(timeout=30)
            return act()
        except ShopError as refusal:
            return refusal.code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@pytest.fixture
def buyer(
    make_user: Callable[..., User], make_address: Callable[[User], Address]
) -> Callable[[], tuple[User, Address]]:
    """Call it for a user with an address."""

    def make() -> tuple[User, Address]:
        user = make_user()
        return user, make_address(user)

    return make


def buying(user: User, address: Address, *, key: str, provider: Any) -> Callable[[], str]:
    request = checkout.CheckoutRequest(user, address.pk, "tok_visa", key)
    return lambda: checkout.check_out(request, provider=provider).payment.status


def assert_ledger_adds_up() -> None:
    for item in StockItem.objects.annotate(moved=Sum("movements__quantity")):
        assert item.on_hand == item.moved
    assert not StockItem.objects.exclude(reserved=0).exists()
    assert not Reservation.objects.filter(status="active").exists()


def test_the_last_item_is_sold_once(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    last = make_product(stock=1)
    provider = CountingProvider()
    acts = []
    for number in range(8):
        user, address = buyer()
        fill_cart(user, last)
        acts.append(buying(user, address, key=f"k{number}", provider=provider))
    outcomes = Counter(at_once(acts))
    assert outcomes == {"captured": 1, "out_of_stock": 7}
    assert StockItem.objects.get().on_hand == 0
    assert (Order.objects.count(), Payment.objects.count(), sum(provider.charged.values())) == (1, 1, 1)
    assert_ledger_adds_up()


def test_carts_in_opposite_order_neither_oversell_nor_wait_for_each_other(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    products = [make_product(stock=5) for _ in range(3)]
    provider = CountingProvider()
    acts = []
    for number in range(10):
        user, address = buyer()
        for product in products if number % 2 else reversed(products):
            fill_cart(user, product)
        acts.append(buying(user, address, key="k", provider=provider))
    outcomes = Counter(at_once(acts))
    assert outcomes == {"captured": 5, "out_of_stock": 5}
    assert set(StockItem.objects.values_list("on_hand", flat=True)) == {0}
    assert_ledger_adds_up()


def test_a_double_click_buys_once(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    user, address = buyer()
    fill_cart(user, make_product(stock=100), 2)
    provider = CountingProvider()
    outcomes = at_once([buying(user, address, key="same", provider=provider) for _ in range(6)])
    # a repetition may come back while the first is still asking the provider
    assert set(outcomes) <= {"captured", "processing"}
    assert "captured" in outcomes
    assert (Order.objects.count(), StockItem.objects.get().on_hand) == (1, 98)
    assert list(provider.charged.values()) == [1]
    assert_ledger_adds_up()


def test_one_answer_from_four_sides_counts_once(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    user, address = buyer()
    fill_cart(user, make_product(stock=5), 2)
    placed = checkout.place(checkout.CheckoutRequest(user, address.pk, "tok_visa", "k"))
    answer = ProviderAnswer("e1", placed.payment.key, Outcome.CAPTURED, "r")
    at_once([lambda: checkout.settle(answer).status for _ in range(4)])
    assert (Order.objects.get().status, PaymentEvent.objects.count()) == ("paid", 1)
    assert StockItem.objects.get().on_hand == 3
    assert_ledger_adds_up()


def test_a_refund_asked_for_by_many_is_given_once(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    user, address = buyer()
    fill_cart(user, make_product(stock=5), 2)
    provider = CountingProvider()
    buying(user, address, key="k", provider=provider)()
    order = Order.objects.get()
    at_once([lambda: checkout.cancel(order.pk, provider=provider).status for _ in range(4)])
    assert (Order.objects.get().status, Payment.objects.get().status) == ("refunded", "refunded")
    assert StockMovement.objects.filter(kind="return").count() == 1
    assert_ledger_adds_up()


def test_no_row_is_locked_while_the_provider_thinks(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    user, address = buyer()
    fill_cart(user, make_product(stock=5))
    dsn = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    looks = []

    class LookingProvider(SimulatedProvider):
        def charge(self, **request: Any) -> tuple[ProviderAnswer, ...]:
            assert not connection.in_atomic_block
            with psycopg.connect(**{name: dsn[name] for name in names if name in dsn}) as other:
                for table in ("inventory_stockitem", "orders_order", "payments_payment", "cart_cart"):
                    query = psycopg.sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} FOR UPDATE NOWAIT) rows")
                    looks.append(other.execute(query.format(psycopg.sql.Identifier(table))).fetchone())
            return super().charge(**request)

    buying(user, address, key="k", provider=LookingProvider())()
    assert looks == [(1,)] * 4


def test_stock_that_is_short_by_constraint_cannot_be_written(make_product: Callable[..., Product]) -> None:
    """Should a lock ever be forgotten, the database itself refuses."""
    make_product(stock=1)
    with pytest.raises(Exception, match="stock_reserved_within_on_hand"):
        StockItem.objects.update(reserved=F("reserved") + 2)


def test_putting_the_same_product_in_at_once_adds_up(
    buyer: Callable[[], tuple[User, Address]],
    make_product: Callable[..., Product],
    fill_cart: Callable[..., None],
) -> None:
    user, _ = buyer()
    product = make_product()
    at_once([lambda: fill_cart(user, product) for _ in range(8)])
    assert [item.quantity for item in user.cart.items.all()] == [8]
