"""Ways through the tree of categories. Pure."""

from collections.abc import Sequence

from django.urls import reverse

from monolith.catalog.selectors import CategoryNode
from monolith.storefront.pages import Crumb


def way_to(tree: Sequence[CategoryNode], slug: str) -> tuple[CategoryNode, ...]:
    """From the root down to the category of that slug, which is the last one; empty when there is none."""
    for node in tree:
        if node.slug == slug:
            return (node,)
        if below := way_to(node.children, slug):
            return (node, *below)
    return ()


def crumbs_of(way: Sequence[CategoryNode]) -> tuple[Crumb, ...]:
    """The same as links."""
    return tuple(Crumb(node.name, reverse("storefront:category", args=[node.slug])) for node in way)
