"""Writes of accounts: registration, login and logout, addresses."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib import auth
from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from monolith.accounts.models import Address, User
from monolith.cart import services as cart_services
from monolith.cart.session import forget_cart, remembered_cart
from monolith.errors import ShopError

ADDRESS_FIELDS = frozenset(
    {"label", "recipient", "line1", "line2", "postcode", "city", "country", "is_default"}
)


class EmailTakenError(ShopError):
    """Somebody is registered with this address."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "email_taken"


class BadCredentialsError(ShopError):
    """E-mail and password do not belong together. Says no more than that on purpose."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_credentials"


def register(*, email: str, password: str, full_name: str) -> User:
    """A new shopper. Raises EmailTakenError, and Django's ValidationError for a weak password."""
    address = email.strip().lower()
    validate_password(password, User(email=address, full_name=full_name))
    try:
        with transaction.atomic():
            return User.objects.create_user(address, password, full_name=full_name.strip())
    except IntegrityError as error:
        if User.objects.filter(email=address).exists():
            raise EmailTakenError("An account with this e-mail address exists already.") from error
        raise


def log_in(request: HttpRequest, *, email: str, password: str) -> User:
    """Check the password and start the session. Raises BadCredentialsError."""
    user = auth.authenticate(request, username=email, password=password)
    if user is None:
        raise BadCredentialsError("E-mail address or password is wrong.")
    start_session(request, user)
    return user


def start_session(request: HttpRequest, user: User) -> None:
    """Make `user` the session's user; what lies in the anonymous cart joins the user's own."""
    token = remembered_cart(request)
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    if token is not None:
        cart_services.merge_into_user(token=token, user_id=user.pk)
        forget_cart(request)


def log_out(request: HttpRequest) -> None:
    """End the session; the cart stays with the user."""
    auth.logout(request)


def add_address(user: User, fields: Mapping[str, Any]) -> Address:
    """A new address; a user's first one becomes the default."""
    with transaction.atomic():
        first = not _locked_addresses(user)
        address = Address(user=user)
        return _store(address, {**fields, "is_default": first or fields.get("is_default", False)})


def update_address(address: Address, fields: Mapping[str, Any]) -> Address:
    """Change an address; becoming the default takes that from the others, and nothing else does."""
    with transaction.atomic():
        _locked_addresses(address.user)
        kept = {name: value for name, value in fields.items() if name != "is_default" or value}
        return _store(address, kept)


def delete_address(address: Address) -> None:
    """Remove an address; when it was the default, the oldest remaining one takes its place."""
    with transaction.atomic():
        remaining = [other for other in _locked_addresses(address.user) if other.pk != address.pk]
        was_default = address.is_default
        address.delete()
        if was_default and remaining:
            _store(remaining[0], {"is_default": True})


def _locked_addresses(user: User) -> list[Address]:
    # the user's row serialises all changes of the addresses, also the first one
    User.objects.select_for_update(of=("self",), no_key=True).get(pk=user.pk)
    return list(Address.objects.filter(user=user).order_by("pk"))


def _store(address: Address, fields: Mapping[str, Any]) -> Address:
    if unknown := fields.keys() - ADDRESS_FIELDS:
        raise ValueError(f"an address has no such fields: {', '.join(sorted(unknown))}")
    if fields.get("is_default"):
        Address.objects.filter(user=address.user, is_default=True).exclude(pk=address.pk).update(
            is_default=False
        )
    for name, value in fields.items():
        setattr(address, name, value)
    address.save()
    return address
