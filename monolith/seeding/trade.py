"""Rows of stock and of past orders from a random generator. Pure: no database, no clock.

The numbers fit together as in a shop that ran: the movements of an item add up to its stock, paid orders
have a captured payment with the provider's answer, every step of an order is in its history.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from random import Random
from uuid import UUID

from monolith.orders.pricing import total_up
from monolith.payments.provider import Outcome, ProviderAnswer, ProviderTimeoutError, SimulatedProvider
from monolith.seeding.catalogue import ANCHOR, ProductRow, moment
from monolith.seeding.people import AddressRow

_NUMBER_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_HISTORIES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("pending", "paid", "shipped", "delivered"), 70),
    (("pending", "paid", "shipped"), 10),
    (("pending", "paid"), 8),
    (("pending", "cancelled"), 8),
    (("pending", "paid", "refunded"), 4),
)
_PAYMENT_STATUS: Mapping[str, str] = {"cancelled": "declined", "refunded": "refunded"}


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One row of orders_order, and the steps it went through with their times."""

    id: int
    number: str
    user_id: int
    status: str
    currency: str
    items_total: Decimal
    shipping_total: Decimal
    total: Decimal
    recipient: str
    line1: str
    line2: str
    postcode: str
    city: str
    country: str
    checkout_key: str
    checkout_fingerprint: str
    placed_at: datetime
    updated_at: datetime
    steps: tuple[tuple[str, datetime], ...]


@dataclass(frozen=True, slots=True)
class OrderLineRow:
    """One row of orders_orderline."""

    id: int
    order_id: int
    product_id: int
    sku: str
    name: str
    unit_price: Decimal
    quantity: int
    line_total: Decimal


@dataclass(frozen=True, slots=True)
class OrderEventRow:
    """One row of orders_orderevent."""

    id: int
    order_id: int
    from_status: str
    to_status: str
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One row of payments_payment."""

    id: int
    order_id: int
    key: UUID
    token: str
    amount: Decimal
    currency: str
    status: str
    reference: str
    decline_code: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentEventRow:
    """One row of payments_paymentevent."""

    id: int
    event_id: str
    payment_id: int
    outcome: str
    applied: bool
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StockRow:
    """One row of inventory_stockitem."""

    id: int
    product_id: int
    on_hand: int
    reserved: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MovementRow:
    """One row of inventory_stockmovement."""

    id: int
    stock_item_id: int
    kind: str
    quantity: int
    reference: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Trade:
    """All rows of a past, ready to be written in this order."""

    orders: tuple[OrderRow, ...]
    lines: tuple[OrderLineRow, ...]
    events: tuple[OrderEventRow, ...]
    payments: tuple[PaymentRow, ...]
    answers: tuple[PaymentEventRow, ...]
    stock: tuple[StockRow, ...]
    movements: tuple[MovementRow, ...]


def past(
    rng: Random, *, count: int, products: Sequence[ProductRow], addresses: Sequence[AddressRow]
) -> Trade:
    """`count` orders of the owners of `addresses`, and the stock that is left of `products`."""
    lines: list[OrderLineRow] = []
    orders = tuple(_orders(rng, count, products=products, addresses=addresses, lines=lines))
    payments = tuple(_payment(rng, order) for order in orders)
    stock, movements = _stock(rng, products=products, orders=orders, lines=lines)
    return Trade(
        orders=orders,
        lines=tuple(lines),
        events=tuple(_events(orders)),
        payments=payments,
        answers=tuple(_answers(payments)),
        stock=stock,
        movements=movements,
    )


def _orders(
    rng: Random,
    count: int,
    *,
    products: Sequence[ProductRow],
    addresses: Sequence[AddressRow],
    lines: list[OrderLineRow],
) -> Iterator[OrderRow]:
    for_sale = [product for product in products if product.is_active]
    if not for_sale or not addresses:
        return
    # Zipf's law: a few products sell a lot
    popularity = list(accumulate(1 / (rank + 10) for rank in range(len(for_sale))))
    rng.shuffle(for_sale)
    histories, shares = zip(*_HISTORIES, strict=True)
    moments = sorted(moment(rng, days=365) for _ in range(count))
    numbers: set[str] = set()
    for number, placed in enumerate(moments, start=1):
        address = rng.choice(addresses)
        chosen = {
            product.id: product
            for product in rng.choices(for_sale, cum_weights=popularity, k=rng.randint(1, 4))
        }
        own: list[OrderLineRow] = []
        for product in chosen.values():
            quantity = rng.choice((1, 1, 1, 1, 2, 2, 3))
            own.append(
                OrderLineRow(
                    id=len(lines) + len(own) + 1,
                    order_id=number,
                    product_id=product.id,
                    sku=product.sku,
                    name=product.name,
                    unit_price=product.price,
                    quantity=quantity,
                    line_total=product.price * quantity,
                )
            )
        lines += own
        totals = total_up(line.line_total for line in own)
        steps = tuple(_steps(rng, rng.choices(histories, shares)[0], placed))
        yield OrderRow(
            id=number,
            number=_fresh_number(rng, numbers),
            user_id=address.user_id,
            status=steps[-1][0],
            currency="EUR",
            items_total=totals.items,
            shipping_total=totals.shipping,
            total=totals.total,
            recipient=address.recipient,
            line1=address.line1,
            line2=address.line2,
            postcode=address.postcode,
            city=address.city,
            country="DE",
            checkout_key=f"seed-{number}",
            checkout_fingerprint="",
            placed_at=placed,
            updated_at=steps[-1][1],
            steps=steps,
        )


def _steps(rng: Random, history: Sequence[str], placed: datetime) -> Iterator[tuple[str, datetime]]:
    at = placed
    for status in history:
        yield status, min(at, ANCHOR)
        at += (
            timedelta(seconds=rng.randint(1, 5))
            if status == "pending"
            else timedelta(hours=rng.uniform(4, 60))
        )


def _events(orders: Sequence[OrderRow]) -> Iterator[OrderEventRow]:
    number = 0
    for order in orders:
        before = ""
        for status, at in order.steps:
            number += 1
            note = "payment declined: card_declined" if status == "cancelled" else ""
            yield OrderEventRow(number, order.id, before, status, note, at)
            before = status


def _payment(rng: Random, order: OrderRow) -> PaymentRow:
    token = "tok_declined" if order.status == "cancelled" else rng.choice(("tok_visa", "tok_mastercard"))
    key = UUID(int=rng.getrandbits(128), version=4)
    answer = _answer_of(key, token)
    return PaymentRow(
        id=order.id,
        order_id=order.id,
        key=key,
        token=token,
        amount=order.total,
        currency=order.currency,
        status=_PAYMENT_STATUS.get(order.status, "captured"),
        reference=answer.reference,
        decline_code=answer.decline_code,
        created_at=order.placed_at,
        updated_at=order.updated_at,
    )


def _answers(payments: Sequence[PaymentRow]) -> Iterator[PaymentEventRow]:
    number = 0
    provider = SimulatedProvider()
    for payment in payments:
        answers = [_answer_of(payment.key, payment.token)]
        if payment.status == "refunded":
            answers.append(
                provider.refund(key=payment.key, reference=payment.reference, amount=payment.amount)
            )
        for answer in answers:
            number += 1
            late = answer.outcome is Outcome.REFUNDED
            yield PaymentEventRow(
                id=number,
                event_id=answer.event_id,
                payment_id=payment.id,
                outcome=answer.outcome.value,
                applied=True,
                received_at=payment.updated_at if late else payment.created_at + timedelta(seconds=1),
            )


def _answer_of(key: UUID, token: str) -> ProviderAnswer:
    answer = SimulatedProvider().look_up(key=key, token=token)
    if answer is None:
        raise ProviderTimeoutError(f"seeded payments need an answer, {token} gives none")
    return answer


def _stock(
    rng: Random, *, products: Sequence[ProductRow], orders: Sequence[OrderRow], lines: Sequence[OrderLineRow]
) -> tuple[tuple[StockRow, ...], tuple[MovementRow, ...]]:
    by_order = {order.id: order for order in orders}
    moved: list[tuple[int, str, int, str, datetime]] = []
    sold: Counter[int] = Counter()
    for line in lines:
        order = by_order[line.order_id]
        times = dict(order.steps)
        if "paid" in times:
            moved.append((line.product_id, "sale", -line.quantity, order.number, times["paid"]))
            sold[line.product_id] += line.quantity
        if "refunded" in times:
            moved.append((line.product_id, "return", line.quantity, order.number, times["refunded"]))
            sold[line.product_id] -= line.quantity
    items = []
    first_order = min((order.placed_at for order in orders), default=ANCHOR)
    for product in products:
        left = 0 if rng.random() < 0.05 else rng.randint(3, 400)
        received = left + sold[product.id]
        items.append(StockRow(product.id, product.id, left, 0, ANCHOR))
        if received:
            arrived = min(product.created_at, first_order)
            moved.append((product.id, "receipt", received, "opening stock", arrived))
    # by time, as a ledger grows
    moved.sort(key=lambda move: (move[4], move[0], move[3]))
    movements = (MovementRow(number, *move) for number, move in enumerate(moved, start=1))
    return tuple(items), tuple(movements)


def _fresh_number(rng: Random, taken: set[str]) -> str:
    while (number := "".join(rng.choices(_NUMBER_LETTERS, k=10))) in taken:
        pass
    taken.add(number)
    return number
