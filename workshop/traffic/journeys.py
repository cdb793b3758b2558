"""What shoppers do: journeys as generators. A `Step` comes out, its `Answer` goes in; no socket, no clock.

A journey learns from answers as a person does: it follows categories it was shown, opens products of the
list it got, searches for words it read. Every step says which statuses are fine and how to tell a right body
from a wrong one, so that the driver can name what a shopper would have noticed.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from workshop.traffic.client import Answer

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `check` says what is wrong with an answer of an expected status; empty: nothing."""

    name: str
    method: str
    path: str
    json: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: frozenset[int] = frozenset({200})
    check: Callable[[Answer], str] | None = None
    page: bool = False

    @property
    def safe(self) -> bool:
        """Whether it only reads."""
        return self.method in SAFE

    def fault(self, answer: Answer) -> str:
        """What a shopper would find wrong with `answer`, empty when nothing."""
        if answer.status >= 500:
            return f"server error {answer.status}"
        if answer.status not in self.expect:
            return f"status {answer.status} instead of {sorted(self.expect)}: {answer.body[:200]!r}"
        return self.check(answer) if self.check is not None else ""


Journey = Generator[Step, Answer, None]


def data_of(answer: Answer) -> Any:
    """The body as JSON, None when it is not or the status is not a success."""
    if answer.status >= 300:
        return None
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def data_of_list(answer: Answer) -> Sequence[Mapping[str, Any]]:
    """The `results` of a page, none when it is not one."""
    data = data_of(answer)
    results = data.get("results") if isinstance(data, dict) else None
    return results if isinstance(results, list) else []


def _wants_list(answer: Answer) -> str:
    data = data_of(answer)
    if not isinstance(data, dict) or not isinstance(data.get("results"), list) or "count" not in data:
        return "not a page of results"
    return ""


def _wants_tree(answer: Answer) -> str:
    data = data_of(answer)
    return "" if isinstance(data, list) and data and "slug" in data[0] else "not a tree of categories"


def _wants_slug(slug: str) -> Callable[[Answer], str]:
    def check(answer: Answer) -> str:
        data = data_of(answer)
        if not isinstance(data, dict) or data.get("slug") != slug:
            return f"not {slug!r}"
        return ""

    return check


def products(query: str, name: str = "product list") -> Step:
    """A page of products."""
    return Step(name, "GET", f"/api/products/{query}", check=_wants_list)


def product(slug: str) -> Step:
    """A product's own page."""
    return Step("product", "GET", f"/api/products/{slug}/", check=_wants_slug(slug))


def _reviews(slug: str) -> Step:
    return Step("reviews", "GET", f"/api/products/{slug}/reviews/", check=_wants_list)


def some_page(random: Random) -> Generator[Step, Answer, Sequence[Mapping[str, Any]]]:
    """Open the list and leaf to any page that it has; returns the products found there."""
    first = yield products("")
    found = data_of_list(first)
    count = (data_of(first) or {}).get("count", 0)
    page = random.randint(1, max(1, -(-count // max(1, len(found)))))
    if page == 1:
        return found
    return data_of_list((yield products(f"?page={page}")))


def browse(random: Random) -> Journey:
    """Categories, one of them, a page of its products, one or two products with their reviews."""
    answer = yield Step("categories", "GET", "/api/categories/", check=_wants_tree)
    slugs = _slugs(data_of(answer) or [])
    if not slugs:
        return
    slug = random.choice(slugs)
    if random.random() < 0.3:
        yield Step("category", "GET", f"/api/categories/{slug}/", check=_wants_slug(slug))
    order = random.choice(["", "&ordering=price", "&ordering=-rating", "&ordering=name"])
    listed = yield products(f"?category={slug}{order}")
    yield from look(data_of_list(listed), random)
    data = data_of(listed)
    if isinstance(data, dict) and data.get("next") and random.random() < 0.4:
        second = yield products(f"?category={slug}{order}&page=2")
        yield from look(data_of_list(second), random)


def search(random: Random) -> Journey:
    """Newest products; a word of one of their names as a search; the best match."""
    listed = yield products(random.choice(["", "?ordering=price", "?ordering=-created_at", "?page_size=12"]))
    names = [
        word for item in data_of_list(listed) for word in str(item.get("name", "")).split() if word.isalpha()
    ]
    if not names:
        return
    found = yield products(f"?search={quote(random.choice(names))}", "search")
    yield from look(data_of_list(found), random)


def look(results: Sequence[Mapping[str, Any]], random: Random) -> Journey:
    """One or two of the listed products, sometimes with their reviews."""
    for item in random.sample(list(results), k=min(len(results), random.choice([1, 2, 3]))):
        slug = str(item["slug"])
        yield product(slug)
        if random.random() < 0.6:
            yield _reviews(slug)


def _slugs(tree: Sequence[Mapping[str, Any]]) -> list[str]:
    """Slugs of all categories that have products, parents and children."""
    found: list[str] = []
    for node in tree:
        if node.get("product_count"):
            found.append(str(node["slug"]))
        found.extend(_slugs(node.get("children") or []))
    return found
