"""Orders of the logged-in shopper."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from monolith.errors import ShopError
from monolith.orders import checkout, selectors
from monolith.orders.models import Order
from monolith.orders.status import OrderStatus
from monolith.payments.models import Payment
from monolith.payments.provider import configured_provider
from monolith.storefront import wording
from monolith.storefront.pages import Crumb, members_only, render_page, shopper
from monolith.storefront.selectors import pictured

ON_A_PAGE = 10


@never_cache
@require_safe
@members_only
def orders(request: HttpRequest) -> HttpResponse:
    """All of them, newest first."""
    found = Paginator(selectors.orders_of(shopper(request)), ON_A_PAGE).get_page(request.GET.get("page"))
    return render_page(
        request, "orders.html", title="Your orders", crumbs=_crumbs(), context={"orders": found}
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@members_only
def order(request: HttpRequest, number: str) -> HttpResponse:
    """One order; a POST cancels it."""
    found = selectors.order_of(shopper(request), number)
    if found is None:
        raise Http404
    if request.method == "POST":
        return _cancel(request, found)
    lines = list(found.lines.all())
    products = pictured({line.product_id for line in lines})
    reached = {OrderStatus(event.to_status): event.at for event in found.events.all()}
    here = Crumb(found.number, reverse("storefront:order", args=[found.number]))
    return render_page(
        request,
        "order.html",
        title=f"Order {found.number}",
        crumbs=[*_crumbs(), here],
        context={
            "order": found,
            "lines": [(line, products.get(line.product_id)) for line in lines],
            "journey": wording.journey(found.state, reached),
            "placed": "placed" in request.GET and found.state in {OrderStatus.PAID, OrderStatus.PENDING},
            "can_cancel": found.state is OrderStatus.PAID and found.payment.status == Payment.Status.CAPTURED,
            "decline_reason": wording.decline_reason(found.payment.decline_code)
            if found.payment.status == Payment.Status.DECLINED
            else "",
        },
    )


def _cancel(request: HttpRequest, order: Order) -> HttpResponse:
    try:
        checkout.cancel(order.pk, provider=configured_provider())
    except ShopError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, "Your order was cancelled; the money is on its way back to you.")
    return redirect("storefront:order", number=order.number)


def _crumbs() -> list[Crumb]:
    return [
        Crumb("Your account", reverse("storefront:account")),
        Crumb("Orders", reverse("storefront:orders")),
    ]
