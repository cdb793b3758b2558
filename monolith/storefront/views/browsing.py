"""Front page, departments, everything, search."""

from collections.abc import Sequence
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from monolith.catalog import selectors as catalogue
from monolith.catalog.selectors import CategoryNode
from monolith.storefront import selectors
from monolith.storefront.forms import SearchForm
from monolith.storefront.listing import Listing, list_products
from monolith.storefront.navigation import crumbs_of, way_to
from monolith.storefront.pages import Crumb, render_page

ON_SHELF = 8
"""Products in one row of the front page, which may break in two."""


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What there is, what is new, what others like."""
    tree = catalogue.category_tree()
    best = selectors.cards(selectors.best_rated(ON_SHELF))
    return render_page(
        request,
        "home.html",
        title="Good things for every day",
        tree=tree,
        context={
            "doors": selectors.departments(tree),
            "newest": selectors.cards(selectors.newest(ON_SHELF)),
            "best": best,
            "window": [card for card in best if card.image][:3],
        },
    )


@require_safe
def everything(request: HttpRequest) -> HttpResponse:
    """All products."""
    listing = list_products(request.GET, catalogue.active_products())
    tree = catalogue.category_tree()
    return _shelf(request, listing, tree=tree, title="All products", below=tree)


@require_safe
def category(request: HttpRequest, slug: str) -> HttpResponse:
    """A category and all below it."""
    tree = catalogue.category_tree()
    way = way_to(tree, slug)
    if not way:
        raise Http404
    here = way[-1]
    products = catalogue.active_products().filter(category__in=[node.id for node in here.walk()])
    return _shelf(
        request,
        list_products(request.GET, products),
        tree=tree,
        title=here.name,
        below=here.children,
        crumbs=crumbs_of(way),
    )


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """What matches the words in `?q=`; without words, a place to type them."""
    tree = catalogue.category_tree()
    crumbs = [Crumb("Search", reverse("storefront:search"))]
    form = SearchForm(request.GET)
    query = form.cleaned_data["q"] if form.is_valid() else ""
    if not query:
        return render_page(
            request, "search_empty.html", title="Search", crumbs=crumbs, tree=tree, context={"form": form}
        )
    listing = list_products(request.GET, catalogue.active_products(), words=query)
    return _shelf(request, listing, tree=tree, title=f"“{query}”", crumbs=crumbs, context={"query": query})


def _shelf(
    request: HttpRequest,
    listing: Listing,
    *,
    tree: Sequence[CategoryNode],
    title: str,
    below: Sequence[CategoryNode] = (),
    crumbs: Sequence[Crumb] = (),
    context: dict[str, Any] | None = None,
) -> HttpResponse:
    return render_page(
        request,
        "listing.html",
        title=title,
        crumbs=crumbs or [Crumb(title, request.path)],
        tree=tree,
        context={
            "listing": listing,
            "below": [node for node in below if node.product_count],
            **(context or {}),
        },
    )
