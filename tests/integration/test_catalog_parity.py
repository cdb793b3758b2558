"""The same requests to the shop and to the catalogue service: clients must not be able to tell them apart.

Compared are status, every header but those that name the server or the moment, and the body byte for byte
(which includes key order, number formats and escapes).
"""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pydantic import TypeAdapter

from extracted.catalog import schemas
from tests.integration import catalog_requests
from tests.integration.catalog_servers import Answered, Asked, Shops, both_shops, copy_through, seeded
from workshop.postgres import EmbeddedPostgres

# what differs by design: the server's name, the moment, correlation; x-strangler-* never reaches a client
_NOT_COMPARED = frozenset({"date", "server", "x-request-id", "connection"})


@pytest.fixture(scope="module")
def shops(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    directory = tmp_path_factory.mktemp("parity")
    with (
        seeded(postgres, directory, products=300, odd_rows=catalog_requests.ODD_ROWS) as databases,
        both_shops(databases, directory) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def known(shops: Shops) -> dict[str, list[str]]:
    """Names that exist in the shop, so that requests meet something."""
    queries = {
        "slugs": "SELECT slug FROM catalog_product WHERE is_active ORDER BY id",
        "inactive": "SELECT slug FROM catalog_product WHERE NOT is_active ORDER BY id",
        "reviewed": """SELECT slug FROM catalog_product p JOIN catalog_review r ON r.product_id = p.id
                       WHERE is_active GROUP BY slug ORDER BY count(*) DESC, slug""",
        "categories": "SELECT slug FROM catalog_category ORDER BY id",
        "brands": "SELECT DISTINCT brand FROM catalog_product ORDER BY brand",
    }
    with psycopg.connect(shops.databases.source_dsn) as connection:
        return {name: [row[0] for row in connection.execute(query)] for name, query in queries.items()}


def assert_same(shops: Shops, requests: Iterable[Asked]) -> list[Answered]:
    """Ask both; fail with every difference. Returns the shop's answers."""
    report: list[str] = []
    answers = []
    for asked in requests:
        left, right = shops.monolith.ask(asked), shops.service.ask(asked)
        report += [f"{asked}\n    {difference}" for difference in differences(left, right)]
        answers.append(left)
    assert not report, f"{len(report)} differences (shop != service):\n" + "\n".join(report)
    return answers


def statuses(answers: Iterable[Answered]) -> set[int]:
    return {answer.status for answer in answers}


def differences(left: Answered, right: Answered) -> Iterator[str]:
    """What a client could see, one line each."""
    if left.status != right.status:
        yield f"status {left.status} != {right.status}"
    names = {n for n in left.headers.keys() | right.headers.keys() if not n.startswith("x-strangler-")}
    for name in sorted(names - _NOT_COMPARED):
        if left.headers.get(name) != right.headers.get(name):
            yield f"header {name}: {left.headers.get(name)!r} != {right.headers.get(name)!r}"
    if left.body != right.body:
        yield f"body: {_first_difference(left.body, right.body)}"


def _first_difference(left: bytes, right: bytes) -> str:
    try:
        one, other = (json.loads(body, parse_float=Decimal, parse_int=Decimal) for body in (left, right))
    except ValueError:
        return f"{left[:300]!r} != {right[:300]!r}"
    return next(_unequal(one, other, "$"), f"same values, other notation: {left[:200]!r} != {right[:200]!r}")


def _unequal(left: Any, right: Any, path: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        if list(left) != list(right):
            yield f"{path}: keys {list(left)} != {list(right)}"
        for key in left.keys() & right.keys():
            yield from _unequal(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _unequal(one, other, f"{path}[{number}]")
    elif left != right:
        yield f"{path}: {str(left)[:200]!r} != {str(right)[:200]!r}"


def test_lists_pages_and_filters(shops: Shops, known: dict[str, list[str]]) -> None:
    answers = assert_same(shops, catalog_requests.lists(known))
    assert len(answers) > 200
    assert statuses(answers) == {200, 400, 404}


def test_products_reviews_and_categories(shops: Shops, known: dict[str, list[str]]) -> None:
    assert len(known["reviewed"]) > 8
    assert statuses(assert_same(shops, catalog_requests.details(known))) == {200, 404}


def test_safe_methods_slashes_and_unknown_paths(shops: Shops, known: dict[str, list[str]]) -> None:
    assert statuses(assert_same(shops, catalog_requests.paths_and_methods(known))) == {200, 301, 404}


def test_negotiation_hosts_and_proxies(shops: Shops, known: dict[str, list[str]]) -> None:
    answers = assert_same(shops, catalog_requests.envelopes(known))
    assert statuses(answers) == {200, 301, 400, 404, 406}


@pytest.mark.parametrize("seed", range(4))
def test_random_lists(shops: Shops, known: dict[str, list[str]], seed: int) -> None:
    assert_same(shops, catalog_requests.random_lists(seed, known, 60))


@pytest.mark.parametrize("who", ["shopper", "staff"])
def test_logged_in(shops: Shops, known: dict[str, list[str]], who: str) -> None:
    answers = assert_same(shops, catalog_requests.logged_in(known, shops.cookies[who]))
    users = {answer.headers.get("x-strangler-user") for answer in answers} - {None, ""}
    assert len(users) == 1, f"the shop did not know its {who}: {users}"


def test_methods_that_are_not_allowed(shops: Shops, known: dict[str, list[str]]) -> None:
    """As staff with a CSRF token: whoever may do less is refused by the shop earlier, with 403."""
    token = "a" * 32
    may_everything = {"Cookie": f"{shops.cookies['staff']}; csrftoken={token}", "X-CSRFToken": token}
    requests = [
        Asked(asked.target, asked.method, may_everything) for asked in catalog_requests.not_allowed(known)
    ]
    assert statuses(assert_same(shops, requests)) == {301, 404, 405}


def test_answers_are_what_openapi_says(shops: Shops, known: dict[str, list[str]]) -> None:
    models: dict[str, Any] = {
        "/api/products/?page_size=100": schemas.ProductPage,
        f"/api/products/{known['reviewed'][0]}/": schemas.ProductDetail,
        f"/api/products/{known['reviewed'][0]}/reviews/": schemas.ReviewPage,
        "/api/categories/": list[schemas.CategoryTree],
        f"/api/categories/{known['categories'][0]}/": schemas.CategoryDetail,
    }
    for target, model in models.items():
        TypeAdapter(model).validate_json(shops.service.ask(Asked(target)).body)
    described = json.loads(shops.service.ask(Asked("/openapi.json")).body)["paths"]
    assert {"/api/products/", "/api/categories/{slug}/"} <= described.keys()


def test_a_changed_shop_is_no_longer_equal(shops: Shops, known: dict[str, list[str]]) -> None:
    """The comparison can fail: it names the field when the shop has moved on; a copy makes it agree again."""
    slug = known["slugs"][5]
    asked = Asked(f"/api/products/{slug}/")
    with psycopg.connect(shops.databases.source_dsn) as connection:
        connection.execute("UPDATE catalog_product SET price = price + 0.01 WHERE slug = %s", [slug])
    found = list(differences(shops.monolith.ask(asked), shops.service.ask(asked)))
    assert len(found) == 1
    assert "$.price" in found[0]
    copy_through(shops.databases.mapping, shops.databases.source_dsn, shops.databases.target_dsn)
    assert_same(shops, [asked])
