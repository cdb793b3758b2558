"""A product's own page, and writing a review on it."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from monolith.accounts.models import User
from monolith.cart.models import MOST_OF_ONE
from monolith.catalog import selectors as catalogue
from monolith.catalog import services
from monolith.catalog.models import Product
from monolith.errors import ShopError
from monolith.inventory import selectors as inventory
from monolith.storefront import selectors, wording
from monolith.storefront.forms import AddToCartForm, ReviewForm
from monolith.storefront.navigation import crumbs_of, way_to
from monolith.storefront.pages import Crumb, members_only, render_page, shopper
from monolith.storefront.throttling import throttled

REVIEWS_ON_A_PAGE = 10


@require_http_methods(["GET", "HEAD", "POST"])
def product(request: HttpRequest, slug: str) -> HttpResponse:
    """Shows the product; a POST is a review of it."""
    found = catalogue.with_details(catalogue.active_products()).filter(slug=slug).first()
    if found is None:
        raise Http404
    if request.method == "POST":
        return _write_review(request, found)
    return _page(request, found)


@members_only
@throttled("review")
def _write_review(request: HttpRequest, product: Product) -> HttpResponse:
    form = ReviewForm(request.POST)
    if not form.is_valid():
        return _page(request, product, form=form, status=422)
    try:
        services.write_review(product=product, author=shopper(request), **form.cleaned_data)
    except ShopError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, "Thank you for your review.")
    return redirect(reverse("storefront:product", args=[product.slug]) + "#reviews")


def _page(
    request: HttpRequest, product: Product, *, form: ReviewForm | None = None, status: int = 200
) -> HttpResponse:
    tree = catalogue.category_tree()
    available = inventory.available_of(product.pk)
    most = min(available, MOST_OF_ONE)
    add = AddToCartForm(initial={"sku": product.sku, "quantity": 1})
    add.fields["quantity"].widget.attrs |= {"max": most}
    mine = selectors.review_by(product, request.user) if isinstance(request.user, User) else None
    here = Crumb(product.name, reverse("storefront:product", args=[product.slug]))
    return render_page(
        request,
        "product.html",
        title=product.name,
        crumbs=[*crumbs_of(way_to(tree, product.category.slug)), here],
        tree=tree,
        status=status,
        context={
            "product": product,
            "images": list(product.images.all()),
            "available": available,
            "add": add,
            "attributes": list(wording.attribute_rows(product.attributes)),
            "reviews": Paginator(catalogue.approved_reviews(product), REVIEWS_ON_A_PAGE).get_page(
                request.GET.get("page")
            ),
            "spread": selectors.rating_spread(product),
            "mine": mine,
            "form": form or ReviewForm(),
            "alike": selectors.cards(selectors.alike(product, 4)),
        },
    )
