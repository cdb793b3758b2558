"""Whose cart a request is about: the logged-in user's, or the one its anonymous session remembers."""

import uuid
from dataclasses import dataclass

from django.http import HttpRequest

_KEY = "cart_token"


@dataclass(frozen=True, slots=True)
class CartOwner:
    """A user id or a token; neither for a visitor who has no cart yet."""

    user_id: int | None = None
    token: uuid.UUID | None = None


def owner_of(request: HttpRequest) -> CartOwner:
    """Reads only; an anonymous visitor without a cart stays without one."""
    if request.user.is_authenticated:
        return CartOwner(user_id=request.user.pk)
    return CartOwner(token=remembered_cart(request))


def owner_for_writing(request: HttpRequest) -> CartOwner:
    """Like `owner_of`, but gives an anonymous visitor a cart token, kept in the session."""
    owner = owner_of(request)
    if owner != CartOwner():
        return owner
    token = uuid.uuid4()
    request.session[_KEY] = str(token)
    return CartOwner(token=token)


def remembered_cart(request: HttpRequest) -> uuid.UUID | None:
    """The token in the session."""
    token = request.session.get(_KEY)
    return uuid.UUID(token) if token else None


def forget_cart(request: HttpRequest) -> None:
    """After a login the cart belongs to the user."""
    request.session.pop(_KEY, None)
