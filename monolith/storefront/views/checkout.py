"""The checkout page.

It is made with a key of its own. Sending it twice, by a double click or a reload, is one purchase: the
service answers the second time with the first order. A page whose payment was declined comes back with a new
key and the cart as it was.
"""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from monolith.accounts import selectors as accounts
from monolith.cart import selectors as carts
from monolith.cart.selectors import CartContents
from monolith.cart.session import owner_of
from monolith.errors import ShopError
from monolith.inventory.services import OutOfStockError
from monolith.orders import checkout
from monolith.payments.models import Payment
from monolith.payments.provider import PAYMENT_METHODS, configured_provider
from monolith.storefront import wording
from monolith.storefront.forms import CheckoutForm
from monolith.storefront.pages import Crumb, members_only, render_page, shopper
from monolith.storefront.throttling import throttled


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@members_only
@throttled("checkout")
def check_out(request: HttpRequest) -> HttpResponse:
    """Asks for address and card; a POST buys."""
    if request.method == "POST":
        return _buy(request)
    contents = carts.contents(owner_of(request))
    if not contents.buyable:
        if contents.items:
            messages.error(request, "Something in your cart cannot be bought as it is.")
        return redirect("storefront:cart")
    if not accounts.addresses_of(shopper(request)).exists():
        return redirect(f"{reverse('storefront:new-address')}?next={reverse('storefront:checkout')}")
    return _page(request, contents)


def _buy(request: HttpRequest) -> HttpResponse:
    user = shopper(request)
    form = CheckoutForm(request.POST, addresses=accounts.addresses_of(user))
    if not form.is_valid():
        return _again(request, form=form, status=422)
    try:
        # The cart is not looked at here: after a first click it is empty, and the second must find the order.
        result = checkout.check_out(
            checkout.CheckoutRequest(user=user, **form.cleaned_data), provider=configured_provider()
        )
    except (checkout.EmptyCartError, checkout.NotForSaleAnyMoreError, OutOfStockError) as refusal:
        messages.error(request, refusal.message)
        return redirect("storefront:cart")
    except checkout.KeyReusedError:
        problem = "This page had been sent before. Nothing was bought now; please look at it again."
        return _again(request, problem=problem, status=409)
    except ShopError as refusal:
        return _again(request, problem=refusal.message, status=refusal.status)
    if result.payment.status == Payment.Status.DECLINED:
        reason = wording.decline_reason(result.payment.decline_code)
        problem = f"{reason} Nothing was charged and your cart is as it was: please try another card."
        return _again(request, problem=problem, status=402)
    return redirect(reverse("storefront:order", args=[result.order.number]) + "?placed")


def _again(
    request: HttpRequest, *, status: int, problem: str = "", form: CheckoutForm | None = None
) -> HttpResponse:
    contents = carts.contents(owner_of(request))
    if not contents.items:
        messages.error(request, problem or "Your cart is empty.")
        return redirect("storefront:cart")
    return _page(request, contents, form=form, problem=problem, status=status)


def _page(
    request: HttpRequest,
    contents: CartContents,
    *,
    form: CheckoutForm | None = None,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    addresses = list(accounts.addresses_of(shopper(request)))
    fresh: dict[str, Any] = {"key": CheckoutForm.new_key(), "expected_total": contents.totals.total}
    if form is None:
        chosen = {
            "address_id": request.POST.get("address_id") or next((a.pk for a in addresses), None),
            "payment_token": next(iter(PAYMENT_METHODS)),
        }
        form = CheckoutForm(initial={**chosen, **fresh}, addresses=addresses)
    return render_page(
        request,
        "checkout.html",
        title="Checkout",
        crumbs=[
            Crumb("Cart", reverse("storefront:cart")),
            Crumb("Checkout", reverse("storefront:checkout")),
        ],
        context={
            "cart": contents,
            "cart_count": contents.count,
            "form": form,
            "fresh": fresh,  # the page is a new one, also where it repeats what was typed
            "addresses": addresses,
            "problem": problem,
        },
        status=status,
    )
