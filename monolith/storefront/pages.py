"""Every page of the storefront ends here.

`render_page` puts a view's context into the shop's layout: departments, cart badge, breadcrumbs, title, and
headers that forbid the browser to run or load anything that does not come from the shop itself.
`render_plain` does the same without asking the database or the session, for pages that must not fail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from monolith.accounts.models import User
from monolith.cart import selectors as carts
from monolith.cart.session import owner_of
from monolith.catalog import selectors as catalogue
from monolith.catalog.selectors import CategoryNode
from monolith.orders.pricing import FREE_SHIPPING_FROM
from monolith.storefront.wording import SHOP_NAME

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'none'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

members_only = login_required(login_url="storefront:login")
"""Decorator: sends those who are not logged in to the login, and back afterwards."""


@dataclass(frozen=True, slots=True)
class Crumb:
    """A link of the way from the front page to this one."""

    label: str
    url: str


def render_page(
    request: HttpRequest,
    template: str,
    *,
    title: str,
    context: Mapping[str, Any] | None = None,
    crumbs: Sequence[Crumb] = (),
    tree: Sequence[CategoryNode] | None = None,
    status: int = 200,
) -> HttpResponse:
    """`storefront/TEMPLATE` in the layout. `tree` spares two queries where the view has read it already."""
    departments = catalogue.category_tree() if tree is None else tree
    response = render(
        request,
        f"storefront/{template}",
        {
            **_layout(title),
            "crumbs": crumbs,
            "departments": departments,
            "cart_count": carts.count(owner_of(request)),
            **(context or {}),
        },
        status=status,
    )
    return _guarded(response)


def render_plain(
    template: str, *, title: str, context: Mapping[str, Any] | None = None, status: int
) -> HttpResponse:
    """`storefront/TEMPLATE` in the layout without departments, badge and messages: needs no database."""
    html = render_to_string(f"storefront/{template}", {**_layout(title), "plain": True, **(context or {})})
    return _guarded(HttpResponse(html, status=status))


def shopper(request: HttpRequest) -> User:
    """The logged-in user of a page behind `members_only`."""
    return cast("User", request.user)


def way_back(request: HttpRequest, default: str) -> str:
    """Where `?next=` or the form's `next` leads; `default` when it is missing or leads out of the shop."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts=None, require_https=request.is_secure()
    ) and wanted.startswith("/")
    return wanted if safe else reverse(default)


def _layout(title: str) -> dict[str, Any]:
    return {"shop_name": SHOP_NAME, "page_title": title, "free_shipping_from": FREE_SHIPPING_FROM}


def _guarded(response: HttpResponse) -> HttpResponse:
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response
