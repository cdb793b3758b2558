"""Reads of accounts."""

from django.db.models import QuerySet

from monolith.accounts.models import Address, User


def addresses_of(user: User) -> QuerySet[Address]:
    """The user's addresses, the default one first."""
    return Address.objects.filter(user=user).order_by("-is_default", "pk")


def address_of(user: User, address_id: int) -> Address | None:
    """The user's address of that id; None for somebody else's."""
    return Address.objects.filter(user=user, pk=address_id).first()


def default_address(user: User) -> Address | None:
    """Where orders go when nothing else is said."""
    return addresses_of(user).first()
