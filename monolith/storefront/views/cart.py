"""The cart."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from monolith.cart import selectors, services
from monolith.cart.session import owner_for_writing, owner_of
from monolith.errors import ShopError
from monolith.orders.pricing import FREE_SHIPPING_FROM
from monolith.storefront.forms import AddToCartForm, QuantityForm
from monolith.storefront.pages import Crumb, render_page, way_back


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def cart(request: HttpRequest) -> HttpResponse:
    """Shows the cart; a POST puts something into it."""
    if request.method == "POST":
        return _add(request)
    contents = selectors.contents(owner_of(request))
    missing = max(FREE_SHIPPING_FROM - contents.totals.items, FREE_SHIPPING_FROM * 0)
    return render_page(
        request,
        "cart.html",
        title="Your cart",
        crumbs=[Crumb("Cart", reverse("storefront:cart"))],
        context={"cart": contents, "cart_count": contents.count, "missing_for_free_shipping": missing},
    )


@require_POST
def cart_item(request: HttpRequest, item_id: int) -> HttpResponse:
    """Changes a line of the cart; quantity 0 removes it."""
    form = QuantityForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Please give a whole number of pieces, 99 at most.")
        return redirect("storefront:cart")
    quantity = form.cleaned_data["quantity"]
    try:
        services.set_quantity(owner_of(request), item_id=item_id, quantity=quantity)
    except ShopError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, "Your cart was updated." if quantity else "Removed from your cart.")
    return redirect("storefront:cart")


def _add(request: HttpRequest) -> HttpResponse:
    form = AddToCartForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Please give a whole number of pieces, between 1 and 99.")
        return redirect(way_back(request, "storefront:cart"))
    try:
        services.add_item(owner_for_writing(request), **form.cleaned_data)
    except ShopError as refusal:
        messages.error(request, refusal.message)
        return redirect(way_back(request, "storefront:cart"))
    messages.success(request, "Added to your cart.")
    return redirect("storefront:cart")
