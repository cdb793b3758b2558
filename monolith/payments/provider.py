"""The payment provider: what the shop expects of one, and a simulated one.

The simulated provider keeps no books. Its answers follow from the token that stands for the card, so every
scenario can be asked for, and asking again gives the same answer:

| token | what happens |
|---|---|
| `tok_visa`, `tok_mastercard` | charged |
| `tok_declined`, `tok_no_funds` | declined |
| `tok_twice` | charged; the same answer arrives twice |
| `tok_timeout` | charged, but the answer is lost |
| `tok_timeout_declined` | declined, but the answer is lost |
| `tok_timeout_lost` | the request itself is lost: the provider never heard of it |
| `tok_unreachable` | as `tok_timeout`, and the provider cannot be asked later either |
| anything else | declined as an unknown card |
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class Outcome(StrEnum):
    """What the provider says about a payment."""

    CAPTURED = "captured"
    DECLINED = "declined"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """One answer. `event_id` is the same when the same answer arrives again; `key` is the shop's own."""

    event_id: str
    key: UUID
    outcome: Outcome
    reference: str
    decline_code: str = ""


class ProviderTimeoutError(Exception):
    """No answer in time. The provider may or may not have done what it was asked."""


class PaymentProvider(Protocol):
    """Requests carry the shop's `key`; the provider does the same thing once, however often it is asked."""

    def charge(self, *, key: UUID, amount: Decimal, currency: str, token: str) -> tuple[ProviderAnswer, ...]:
        """Take the money. All answers that came, usually one. Raises ProviderTimeoutError."""
        ...

    def look_up(self, *, key: UUID, token: str) -> ProviderAnswer | None:
        """What became of a charge; None when the provider never heard of it. Raises ProviderTimeoutError."""
        ...

    def refund(self, *, key: UUID, reference: str, amount: Decimal) -> ProviderAnswer:
        """Give the money back. Raises ProviderTimeoutError."""
        ...


@dataclass(frozen=True, slots=True)
class _Scenario:
    outcome: Outcome | None  # None: the provider never hears of it
    decline_code: str = ""
    answer_lost: bool = False
    answers: int = 1
    reachable: bool = True


_SCENARIOS: Mapping[str, _Scenario] = {
    "tok_visa": _Scenario(Outcome.CAPTURED),
    "tok_mastercard": _Scenario(Outcome.CAPTURED),
    "tok_declined": _Scenario(Outcome.DECLINED, decline_code="card_declined"),
    "tok_no_funds": _Scenario(Outcome.DECLINED, decline_code="insufficient_funds"),
    "tok_twice": _Scenario(Outcome.CAPTURED, answers=2),
    "tok_timeout": _Scenario(Outcome.CAPTURED, answer_lost=True),
    "tok_timeout_declined": _Scenario(Outcome.DECLINED, decline_code="card_declined", answer_lost=True),
    "tok_timeout_lost": _Scenario(None, answer_lost=True),
    "tok_unreachable": _Scenario(Outcome.CAPTURED, answer_lost=True, reachable=False),
}
_UNKNOWN_CARD = _Scenario(Outcome.DECLINED, decline_code="unknown_card")

PAYMENT_METHODS: Mapping[str, str] = {
    "tok_visa": "Visa ending in 4242",
    "tok_mastercard": "Mastercard ending in 4444",
    "tok_declined": "Test card that is declined",
    "tok_no_funds": "Test card without funds",
    "tok_timeout": "Test card whose bank answers too late",
}
"""What a checkout page offers: token and label."""


class SimulatedProvider:
    """Implements `PaymentProvider` by the table above."""

    def charge(self, *, key: UUID, amount: Decimal, currency: str, token: str) -> tuple[ProviderAnswer, ...]:
        """See PaymentProvider."""
        scenario = _SCENARIOS.get(token, _UNKNOWN_CARD)
        if scenario.answer_lost:
            raise ProviderTimeoutError(f"no answer about {amount} {currency}, payment {key}")
        answer = _answer(key, scenario)
        assert answer is not None, "a scenario whose request is lost loses the answer too"
        return (answer,) * scenario.answers

    def look_up(self, *, key: UUID, token: str) -> ProviderAnswer | None:
        """See PaymentProvider."""
        scenario = _SCENARIOS.get(token, _UNKNOWN_CARD)
        if not scenario.reachable:
            raise ProviderTimeoutError(f"no answer about payment {key}")
        return _answer(key, scenario)

    def refund(self, *, key: UUID, reference: str, amount: Decimal) -> ProviderAnswer:
        """See PaymentProvider."""
        return ProviderAnswer(_digest(key, "refund"), key, Outcome.REFUNDED, reference)


def configured_provider() -> PaymentProvider:
    """The provider this shop works with."""
    return SimulatedProvider()


def _answer(key: UUID, scenario: _Scenario) -> ProviderAnswer | None:
    if scenario.outcome is None:
        return None
    return ProviderAnswer(
        event_id=_digest(key, scenario.outcome),
        key=key,
        outcome=scenario.outcome,
        reference=_digest(key, "charge") if scenario.outcome is Outcome.CAPTURED else "",
        decline_code=scenario.decline_code,
    )


def _digest(key: UUID, what: str) -> str:
    return hashlib.blake2b(f"{key}/{what}".encode(), digest_size=12).hexdigest()
