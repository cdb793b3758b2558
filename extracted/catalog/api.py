"""HTTP of the catalogue: the shop's `/api/products/…` and `/api/categories/…`, answered from the store.

Names, descriptions and methods of the resources are those of the shop's views; its clients see them on
OPTIONS and in Allow.
"""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from chassis.drf.answers import not_found
from chassis.drf.endpoint import Call, Resource, Site
from chassis.drf.pagination import PageRules, envelope, find_page, page_size
from extracted.catalog import filters, representation, rules, schemas
from extracted.catalog.representation import Links
from extracted.catalog.store import CatalogStore

_PAGES = PageRules(size=24, most=100)
_SLUG = "[-a-zA-Z0-9_]+"
_NO_PRODUCT = "No Product matches the given query."

_PAGE_PARAMETERS = [
    {"name": "page", "in": "query", "schema": {"type": "string"}, "description": "Number, or `last`."},
    {"name": "page_size", "in": "query", "schema": {"type": "integer", "maximum": _PAGES.most}},
]
_PRODUCT_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string"}, "description": description}
    for name, description in (
        ("category", "Slug of a category; the ones below it are included."),
        ("brand", "Exact name of the brand."),
        ("min_price", "Lowest price, as a decimal."),
        ("max_price", "Highest price, as a decimal."),
        ("released_after", "Released on that day or later."),
        ("search", "Words of name, brand and description; quotes, `or` and `-` work."),
        ("ordering", "price, name, created_at, rating; `-` before a name reverses it; comma-separated."),
    )
]


class CatalogApi:
    """The handlers: each takes a Call and gives the body, or raises ApiError."""

    def __init__(self, store: CatalogStore, media_url: str) -> None:
        self._store = store
        self._media_url = media_url

    async def list_products(self, call: Call) -> Any:
        """One page of the products that match."""
        slug = filters.wanted_category(call.query)
        known = slug is not None and await self._store.category_exists(slug)
        selection = filters.read_selection(call.query, category_known=known)
        size = page_size(call.query, _PAGES)
        count = await self._store.count_products(selection)
        page = find_page(call.query, count=count, size=size)
        found = await self._store.products(selection, page)
        links = self._links(call)
        return envelope(page, [representation.product(item, links) for item in found], call.request.url)

    async def show_product(self, call: Call) -> Any:
        """One product."""
        found = await self._store.product(call.arguments["slug"])
        if found is None:
            raise not_found(_NO_PRODUCT)
        return representation.product_detail(found, self._links(call))

    async def list_reviews(self, call: Call) -> Any:
        """One page of a product's reviews."""
        product_id = await self._store.find_listed(call.arguments["slug"])
        if product_id is None:
            raise not_found(_NO_PRODUCT)
        size = page_size(call.query, _PAGES)
        page = find_page(call.query, count=await self._store.count_reviews(product_id), size=size)
        found = await self._store.reviews(product_id, page)
        return envelope(page, [representation.review(item) for item in found], call.request.url)

    async def list_categories(self, _call: Call) -> Any:
        """The whole tree."""
        tree = rules.build_tree(await self._store.categories())
        return [representation.category_tree(node) for node in tree]

    async def show_category(self, call: Call) -> Any:
        """One category with breadcrumbs and children."""
        tree = rules.build_tree(await self._store.categories())
        place = rules.find_place(tree, call.arguments["slug"])
        if place is None:
            raise not_found()
        return representation.category_place(place)

    def _links(self, call: Call) -> Links:
        return Links(call.request, self._media_url, call.query.get("format"))


def make_site(api: CatalogApi, *, allowed_hosts: Sequence[str], owner: str) -> Site:
    """The catalogue's resources. `owner` names who takes unsafe requests."""
    return Site(
        resources=(
            Resource(
                path="/api/products/",
                pattern=re.compile(r"/api/products/"),
                name="Product List",
                description="Products of the shop.",
                methods=("GET", "HEAD", "OPTIONS"),
                handler=api.list_products,
            ),
            Resource(
                path="/api/products/{slug}/",
                pattern=re.compile(rf"/api/products/(?P<slug>{_SLUG})/"),
                name="Product Instance",
                description="Products of the shop.",
                methods=("GET", "PATCH", "HEAD", "OPTIONS"),
                handler=api.show_product,
            ),
            Resource(
                path="/api/products/{slug}/reviews/",
                pattern=re.compile(rf"/api/products/(?P<slug>{_SLUG})/reviews/"),
                name="Review List",
                description="Reviews of a product, newest first.",
                methods=("GET", "POST", "HEAD", "OPTIONS"),
                handler=api.list_reviews,
            ),
            Resource(
                path="/api/categories/",
                pattern=re.compile(r"/api/categories/"),
                name="Category List",
                description="Categories of the shop.",
                methods=("GET", "HEAD", "OPTIONS"),
                handler=api.list_categories,
            ),
            Resource(
                path="/api/categories/{slug}/",
                pattern=re.compile(rf"/api/categories/(?P<slug>{_SLUG})/"),
                name="Category Instance",
                description="Categories of the shop.",
                methods=("GET", "HEAD", "OPTIONS"),
                handler=api.show_category,
            ),
        ),
        allowed_hosts=tuple(allowed_hosts),
        owner=owner,
    )


_MODELS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "/api/products/": (schemas.ProductPage, _PRODUCT_PARAMETERS + _PAGE_PARAMETERS),
    "/api/products/{slug}/": (schemas.ProductDetail, []),
    "/api/products/{slug}/reviews/": (schemas.ReviewPage, _PAGE_PARAMETERS),
    "/api/categories/": (list[schemas.CategoryTree], []),
    "/api/categories/{slug}/": (schemas.CategoryDetail, []),
}


def mount(app: FastAPI, site: Site) -> None:
    """Let `site` answer everything below `/api/`; its GETs are FastAPI routes, so OpenAPI describes them."""
    for resource in site.resources:
        model, parameters = _MODELS[resource.path]
        app.add_api_route(
            resource.path,
            site.respond,
            methods=["GET"],
            response_model=model,
            summary=resource.name,
            description=resource.description,
            operation_id=resource.name.lower().replace(" ", "_"),
            openapi_extra={"parameters": parameters} if parameters else None,
        )
    app.router.routes.append(Route("/api/{path:path}", site))
