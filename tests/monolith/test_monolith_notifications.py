"""E-mails: after the commit, once, and again when sending fails."""

import smtplib
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.db import transaction
from rest_framework.test import APIClient

from monolith.accounts.models import Address, User
from monolith.catalog.models import Product
from monolith.notifications import services
from monolith.notifications.models import Notification
from monolith.orders import checkout
from monolith.orders import services as orders
from monolith.orders.models import Order
from monolith.payments.provider import SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def buy(
    shopper: User, make_product: Callable[..., Product], make_address: Callable[[User], Address],
    fill_cart: Callable[..., None],
) -> Callable[..., Order]:  # fmt: skip
    product, address = make_product(), make_address(shopper)

    def go(token: str = "tok_visa", key: str = "k") -> Order:
        fill_cart(shopper, product)
        request = checkout.CheckoutRequest(shopper, address.pk, token, key)
        return checkout.check_out(request, provider=SimulatedProvider()).order

    return go


def test_each_step_is_told_once(buy: Callable[..., Order], shopper: User) -> None:
    order = buy("tok_twice")
    orders.ship(order.pk)
    services.notify(order_id=order.pk, status="paid")
    assert [message.to for message in mail.outbox] == [[shopper.email]] * 2
    assert [message.subject.split(" order")[0] for message in mail.outbox] == ["Thank you for your", "Your"]
    assert set(Notification.objects.values_list("kind", "status")) == {
        ("order_paid", "sent"),
        ("order_shipped", "sent"),
    }


def test_a_declined_order_is_told_too(buy: Callable[..., Order]) -> None:
    buy("tok_declined")
    assert "cancelled" in mail.outbox[0].subject


def test_a_transaction_that_comes_to_nothing_tells_nothing(buy: Callable[..., Order]) -> None:
    order = buy()
    mail.outbox.clear()
    with transaction.atomic():
        orders.ship(order.pk)
        transaction.set_rollback(True)
    assert mail.outbox == []
    assert not Notification.objects.filter(kind="order_shipped").exists()


def test_a_mail_server_that_is_down_harms_nobody_and_is_tried_again(
    buy: Callable[..., Order], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_message: EmailMessage, **_options: Any) -> int:
        raise smtplib.SMTPServerDisconnected("not today")

    with monkeypatch.context() as broken:
        broken.setattr(EmailMessage, "send", refuse)
        assert buy().status == "paid"
        notification = Notification.objects.get()
        assert (notification.status, notification.attempts) == ("queued", 1)
        assert "not today" in notification.last_error
    call_command("send_notifications")
    assert "1 sent, 0 still queued" in capsys.readouterr().out
    assert len(mail.outbox) == 1


def test_after_enough_attempts_it_is_given_up(
    buy: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_message: EmailMessage, **_options: Any) -> int:
        raise smtplib.SMTPServerDisconnected("never")

    monkeypatch.setattr(EmailMessage, "send", refuse)
    buy()
    sent = sum(services.send_queued() for _ in range(services.MOST_ATTEMPTS))
    notification = Notification.objects.get()
    assert (sent, notification.status, notification.attempts) == (0, "failed", services.MOST_ATTEMPTS)


def test_a_receiver_that_breaks_does_not_break_the_checkout(
    buy: Callable[..., Order], monkeypatch: pytest.MonkeyPatch, api: APIClient
) -> None:
    def break_down(**_facts: Any) -> None:
        raise RuntimeError("a bug in a template")

    monkeypatch.setattr(services, "notify", break_down)
    assert buy().status == "paid"
