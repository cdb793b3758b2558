"""Rows of users and addresses from a random generator. Pure: no database, no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from monolith.seeding import words
from monolith.seeding.catalogue import ANCHOR, moment

STAFF_EMAIL = "staff@shop.test"


@dataclass(frozen=True, slots=True)
class UserRow:
    """One row of accounts_user."""

    id: int
    email: str
    full_name: str
    is_staff: bool
    is_superuser: bool
    date_joined: datetime


@dataclass(frozen=True, slots=True)
class AddressRow:
    """One row of accounts_address."""

    id: int
    user_id: int
    label: str
    recipient: str
    line1: str
    line2: str
    postcode: str
    city: str
    is_default: bool
    created_at: datetime


def users(rng: Random, count: int) -> Iterator[UserRow]:
    """One member of staff (id 1), then `count` shoppers `shopper0001@shop.test`, …."""
    yield UserRow(
        1,
        STAFF_EMAIL,
        "Staff Member",
        is_staff=True,
        is_superuser=True,
        date_joined=ANCHOR.replace(year=2022),
    )
    for number in range(1, count + 1):
        yield UserRow(
            id=number + 1,
            email=f"shopper{number:04d}@shop.test",
            full_name=f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.SURNAMES)}",
            is_staff=False,
            is_superuser=False,
            date_joined=moment(rng, days=1000),
        )


def addresses(rng: Random, shoppers: Sequence[UserRow]) -> Iterator[AddressRow]:
    """One default address each, a second one for some."""
    number = 0
    for shopper in shoppers:
        for label in ("Home", "Work")[: 1 if rng.random() < 0.75 else 2]:
            number += 1
            postcode, city = rng.choice(words.CITIES)
            yield AddressRow(
                id=number,
                user_id=shopper.id,
                label=label,
                recipient=shopper.full_name,
                line1=f"{rng.choice(words.STREETS)} {rng.randint(1, 180)}",
                line2=rng.choice(("", "", "", "2nd floor", "Back building")),
                postcode=postcode,
                city=city,
                is_default=label == "Home",
                created_at=shopper.date_joined,
            )
