"""`PageNumberPagination`: which page a request means, and the envelope around it.

Sources: `rest_framework.pagination.PageNumberPagination`, `django.core.paginator.Paginator`.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from chassis.drf.answers import not_found
from chassis.drf.query import Query
from chassis.drf.urls import remove_parameter, replace_parameter


@dataclass(frozen=True, slots=True)
class PageRules:
    """`size` rows a page unless `?page_size=` says otherwise, and never more than `most`."""

    size: int
    most: int


@dataclass(frozen=True, slots=True)
class Page:
    """Page `number` (from 1) of `count` rows at `size` rows a page."""

    number: int
    size: int
    count: int

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size

    @property
    def pages(self) -> int:
        """How many pages there are; an empty list has one."""
        return ceil(max(1, self.count) / self.size)


def page_size(query: Query, rules: PageRules) -> int:
    """Rows a page. Whatever is not a positive number silently means the default, as in DRF."""
    try:
        wanted = int(query.get("page_size") or "")
    except ValueError:
        return rules.size
    return min(wanted, rules.most) if wanted > 0 else rules.size


def find_page(query: Query, *, count: int, size: int) -> Page:
    """The page that `query` asks for among `count` rows. Raises ApiError (404) when there is no such page."""
    page = Page(1, size, count)
    wanted = query.get("page") or "1"
    if wanted == "last":
        return Page(page.pages, size, count)
    try:
        number = int(wanted)
    except ValueError:
        raise not_found("Invalid page.") from None
    if not 1 <= number <= page.pages:
        raise not_found("Invalid page.")
    return Page(number, size, count)


def envelope(page: Page, results: list[Any], url: str) -> dict[str, Any]:
    """The body around `results`; `url` is the absolute URL of this request."""
    following = replace_parameter(url, "page", str(page.number + 1)) if page.number < page.pages else None
    previous = None
    if page.number == 2:
        previous = remove_parameter(url, "page")
    elif page.number > 2:
        previous = replace_parameter(url, "page", str(page.number - 1))
    return {"count": page.count, "next": following, "previous": previous, "results": results}
