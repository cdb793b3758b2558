"""The same requests to the shop and to the catalogue service: clients must not be able to tell them apart.

Compared are status, every header but those that name the server or the moment, and the body byte for byte
(which includes key order, number formats and escapes).
"""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from itertools import product as combinations
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from pydantic import TypeAdapter

from extracted.catalog import schemas
from tests.integration.catalog_servers import Answered, Asked, Shops, both_shops
from workshop.postgres import EmbeddedPostgres

# what differs by design: the server's name, the moment, correlation, and the seam's internal headers
_NOT_COMPARED = frozenset({"date", "server", "x-request-id", "connection"})

ODD_ROWS = """
UPDATE catalog_product SET is_active = false WHERE id % 11 = 0;
UPDATE catalog_product SET price = 19.90 WHERE id % 5 = 0;
UPDATE catalog_product SET price = 0.00 WHERE id = (SELECT min(id) FROM catalog_product WHERE is_active);
UPDATE catalog_product SET created_at = '2024-02-29 23:59:59.000001+00' WHERE id % 7 = 0;
UPDATE catalog_product SET updated_at = '2024-07-01 00:00:00+02' WHERE id % 3 = 0;
UPDATE catalog_product SET weight_kg = NULL, released_on = NULL WHERE id % 13 = 0;
UPDATE catalog_review SET is_approved = false WHERE id % 6 = 0;
DELETE FROM catalog_productimage WHERE product_id % 9 = 0;
UPDATE catalog_productimage SET image = 'products/a b/ü & "quoted" 100%.png', alt = '' WHERE id % 17 = 0;

INSERT INTO catalog_category (parent_id, slug, name, position)
SELECT min(id), 'empty-corner', 'Empty corner – “nothing”', 0 FROM catalog_category;

INSERT INTO catalog_product (sku, slug, name, brand, description, price, currency, attributes, weight_kg,
                             is_active, released_on, created_at, updated_at, category_id)
SELECT 'ODD-' || n, 'odd-' || n, name, brand, description, price, 'EUR', attributes::jsonb, weight, true, day,
       '2025-01-01 00:00:00+00', '2025-01-01 00:00:00.5+00', (SELECT min(id) FROM catalog_category)
FROM (VALUES
    (1, E'Line\u2028separator \u2029 and <b>&amp;</b>', 'Ünï & Söhne', E'tab\tnew\nline', 99999999.99, '[]', 0.001,
     DATE '0999-12-31'),
    (2, 'material is a number', ' padded ', '', 0.01, '{"material": 7, "z": 1.10, "a": 1e2}', 12345.678, NULL),
    (3, 'material is null', 'x', 'the quick brown fox', 1.00, '{"material": null, "n": [1, {"b": 2, "a": 1}]}', 1,
     DATE '2030-01-01'),
    (4, 'material with quotes', 'x', 'jumping foxes jumped', 10.10, '{"material": "a \\"b\\" \\\\ c", "bb": ""}',
     0.5, NULL),
    (5, 'attributes are text', 'x', 'fox', 10.10, '"text"', 100, NULL),
    (6, 'empty material', 'x', 'fox fox fox', 10.10, '{"material": "", "long key": 12345678901234567890.5}', NULL,
     NULL)
) odd (n, name, brand, description, price, attributes, weight, day);
"""


@pytest.fixture(scope="module")
def shops(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    with both_shops(postgres, tmp_path_factory.mktemp("parity"), products=300, odd_rows=ODD_ROWS) as running:
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
    with psycopg.connect(shops.source_dsn) as connection:
        return {name: [row[0] for row in connection.execute(query)] for name, query in queries.items()}


def differences(left: Answered, right: Answered) -> list[str]:
    """What a client could see, one line each."""
    found = []
    if left.status != right.status:
        found.append(f"status {left.status} != {right.status}")
    names = {n for n in left.headers.keys() | right.headers.keys() if not n.startswith("x-strangler-")}
    for name in sorted(names - _NOT_COMPARED):
        if left.headers.get(name) != right.headers.get(name):
            found.append(f"header {name}: {left.headers.get(name)!r} != {right.headers.get(name)!r}")
    if left.body != right.body:
        found.append(f"body: {_first_difference(left.body, right.body)}")
    return found


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


def assert_same(shops: Shops, requests: list[Asked]) -> list[Answered]:
    """Ask both; fail with every difference. Returns the shop's answers."""
    report = []
    answers = []
    for asked in requests:
        left, right = shops.monolith.ask(asked), shops.service.ask(asked)
        report += [f"{asked}\n    {difference}" for difference in differences(left, right)]
        answers.append(left)
    assert not report, f"{len(report)} differences (shop != service):\n" + "\n".join(report)
    return answers


def test_lists_pages_and_filters(shops: Shops, known: dict[str, list[str]]) -> None:
    queries = [
        "", "?", "?page=1", "?page=2", "?page=last", "?page=0", "?page=-1", "?page=99999", "?page=x", "?page=",
        "?page=1.0", "?page=%201", "?page=1_0", "?page=%D9%A2", "?page=2&page=1", "?page=LAST", "?page=0x1",
        "?page=" + "9" * 5000,
        "?page_size=1", "?page_size=5&page=3", "?page_size=100", "?page_size=101", "?page_size=0",
        "?page_size=-5", "?page_size=x", "?page_size=", "?page_size=5&page_size=7", "?page_size=%20%207%20",
        "?page_size=7&page=last", "?page_size=50&page=2&unknown=a%20b&unknown=c+d&empty=&x", "?page_size=3&page=2#f",
        "?page_size=3&page=2&q=ü", "?page_size=3&page=2&q=%FF%FE&r=%C3%BC", "?page_size=3;page=2", "?&&page_size=3&&",
        "?page_size=3&page=2&a=[]{}|^~!$'()*,;:@/?%2F%25", '?page_size=3&a="<>`',
        "?min_price=10", "?max_price=10", "?min_price=10.10&max_price=19.90", "?min_price=19.90", "?max_price=19.9",
        "?min_price=19.901", "?max_price=19.899", "?min_price=1e2", "?min_price=1E1", "?min_price=%2020%20",
        "?min_price=x", "?min_price=1,5", "?min_price=NaN", "?max_price=Infinity", "?min_price=-1", "?min_price=1_0",
        "?max_price=1e51", "?max_price=1e50", "?max_price=99999999999999999999", "?min_price=", "?min_price=+5",
        "?min_price=x&max_price=y&category=nope&released_after=z", "?min_price=%00", "?min_price=1%00",
        "?min_price=%D9%A2%D9%A3", "?min_price=0x10", "?min_price=sNaN", "?min_price=-0", "?min_price=.5",
        "?min_price=1e-30", "?max_price=0.005", "?min_price=10&min_price=20",
        "?released_after=2024-01-01", "?released_after=01/02/2024", "?released_after=13/02/2024",
        "?released_after=02/13/2024", "?released_after=1/2/24", "?released_after=2024-1-1", "?released_after=%202024-01-01%20",
        "?released_after=2024-02-30", "?released_after=Jan+1+2024", "?released_after=0001-01-01", "?released_after=",
        "?released_after=2024-01-01T00:00", "?released_after=%00", "?released_after=9999-12-31", "?released_after=%20",
        "?category=nope", "?category=", "?category=%00", "?category=%20", "?category=a%00b",
        "?brand=", "?brand=nobody", "?brand=%20", "?brand=%00", "?brand=a&brand=x", "?brand=%20padded%20",
        "?brand=padded", "?brand=%EF%BF%BD",
        "?search=", "?search=%20", "?search=fox", "?search=foxes", '?search="quick+brown"', "?search=quick+-brown",
        "?search=fox+or+lamp", "?search=the", "?search=%00", "?search=!!!", "?search=%27", "?search=%5C", "?search=a%00",
        "?search=fox&ordering=price", "?search=fox&ordering=-price", "?search=table&page_size=5&page=2",
        "?search=fox&page=99", "?search=%E2%80%A8", "?search=" + "word+" * 300, "?search=fox:*", "?search=fox%26jump",
        "?format=json", "?format=JSON", "?format=xml", "?format=", "?format=api", "?format=xml&format=json",
        "?ordering=", "?ordering=nope", "?ordering=price", "?ordering=-price", "?ordering=name", "?ordering=-name",
        "?ordering=rating", "?ordering=-rating", "?ordering=created_at", "?ordering=-created_at", "?ordering=--price",
        "?ordering=price,name", "?ordering=-rating,price", "?ordering=price,-price", "?ordering=%20price%20,%20-name",
        "?ordering=nope,price", "?ordering=id", "?ordering=pk", "?ordering=-", "?ordering=,", "?ordering=price&ordering=name",
        "?ordering=-rating&page_size=100", "?ordering=rating&page_size=100&page=2", "?ordering=PRICE", "?ordering=%00",
    ]  # fmt: skip
    queries += [f"?category={slug}&page_size=4" for slug in known["categories"]]
    queries += [f"?brand={quote(brand)}&page_size=3" for brand in known["brands"][:12]]
    answers = assert_same(shops, [Asked(f"/api/products/{query}") for query in queries])
    assert {answer.status for answer in answers} == {200, 400, 404}


def test_products_reviews_and_categories(shops: Shops, known: dict[str, list[str]]) -> None:
    odd = [slug for slug in known["slugs"] if slug.startswith("odd-")]
    slugs = [*known["slugs"][:15], *odd, *known["inactive"][:2], "nope", "-", "_", "A" * 300]
    targets = [f"/api/products/{slug}/" for slug in slugs]
    targets += [
        f"/api/products/{slug}/reviews/"
        for slug in [*known["reviewed"][:8], *odd[:1], *known["inactive"][:1]]
    ]
    most = known["reviewed"][0]
    targets += [
        f"/api/products/{most}/reviews/{query}"
        for query in (
            "?page_size=1",
            "?page_size=1&page=2",
            "?page=99",
            "?page=last&page_size=2",
            "?ordering=rating",
        )
    ]
    targets += ["/api/products/nope/reviews/", "/api/products/nope/reviews/?page=9"]
    targets += [
        "/api/categories/",
        "/api/categories/?page=2",
        "/api/categories/nope/",
        "/api/categories/?format=json",
    ]
    targets += [f"/api/categories/{slug}/" for slug in known["categories"]]
    answers = assert_same(shops, [Asked(target) for target in targets])
    assert len(known["reviewed"]) > 8
    assert {answer.status for answer in answers} == {200, 404}


def test_methods_slashes_and_unknown_paths(shops: Shops, known: dict[str, list[str]]) -> None:
    slug, category = known["slugs"][0], known["categories"][0]
    paths = [
        "/api/products/", f"/api/products/{slug}/", f"/api/products/{slug}/reviews/", "/api/categories/",
        f"/api/categories/{category}/", "/api/products/nope/", "/api/products/x/y/", "/api/products/a.b/",
    ]  # fmt: skip
    requests = [Asked(path, method) for path, method in combinations(paths, ("HEAD", "OPTIONS"))]
    requests += [
        Asked(target, method)
        for target, method in combinations(
            [
                "/api/products", "/api/products?page=2&q=%20ü", f"/api/products/{slug}", "/api/categories",
                f"/api/products/{slug}/reviews?a=b", "/api/products/caf%C3%A9", "/api/products/a%2Fb",
                "/api/products/a;b=c", "/api/products/x y".replace(" ", "%20"), "/api/products//", "/api//products/",
                "/api/products/%2F/", "/api/products/caf%C3%A9/", "/api/products/../products/", "/api/products/x/reviews/y/",
                "/api/products/x.json", "/api/products.json/", "/api/categories/a/b", "/api/Products/", "/api/products/%00/",
                "/api/products/%F0%28/", "/api/products/x/?format=xml", "/api/products/x/y/?format=xml",
            ],
            ("GET", "HEAD", "OPTIONS"),
        )
    ]  # fmt: skip
    answers = assert_same(shops, requests)
    assert {answer.status for answer in answers} == {200, 301, 404}


def test_negotiation_hosts_and_proxies(shops: Shops, known: dict[str, list[str]]) -> None:
    accepts = [
        "*/*", "application/json", "application/*", "text/html", "text/html, */*;q=0.1", "application/json; indent=4",
        "application/json;indent=0", "application/json; indent=99", "application/json; indent=-1",
        "application/json; indent=x", "application/json; charset=utf-8", "*/*; indent=2", "application/xml",
        "application/json;q=0", "image/*", "*", "json", "*/json", ",", "application/JSON", " application/json ",
        'application/json; indent="3"', "text/html;level=1, application/json;q=0.5; indent=2", "a" * 300,
        ", ".join(["text/plain"] * 70) + ", application/json", "x" * 8190 + ", application/json",
        "application/json; indent*=utf-8''2", "application/json; indent*=nope''2", "application/vnd.api+json",
    ]  # fmt: skip
    requests = [Asked("/api/products/?page_size=2&page=2", headers={"Accept": accept}) for accept in accepts]
    requests += [Asked("/api/products/", "OPTIONS", {"Accept": "text/html"})]
    requests += [Asked("/api/products/x/y/", headers={"Accept": "application/json; indent=2"})]
    requests += [Asked("/api/products/x/y/", headers={"Accept": "text/html"})]
    hosts = [
        "127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:8000", "evil.example", "localhost.", "localhost:x", "local_host",
        "a b", "localhost@evil", "sub.localhost", "",
    ]  # fmt: skip
    requests += [
        Asked(target, headers={"Host": host})
        for host, target in combinations(hosts, ("/api/products/?page_size=1", "/api/products"))
        if host
    ]
    forwarded: list[dict[str, str]] = [
        {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-Port": "444"}, {"Forwarded": "proto=https;host=evil.example"}, {"X-Forwarded-Proto": "ftp"},
    ]  # fmt: skip
    requests += [Asked("/api/products/?page_size=1&page=3", headers=headers) for headers in forwarded]
    requests += [Asked(f"/api/products/{known['slugs'][0]}/", headers=headers) for headers in forwarded]
    requests += [
        Asked("/api/products/?page_size=1", headers={"If-None-Match": "*"}),
        Asked("/api/products/?page_size=1", headers={"Range": "bytes=0-10"}),
        Asked("/api/products/?page_size=1", headers={"Accept-Encoding": "gzip, br"}),
        Asked("/api/products/?page_size=1", headers={"Accept-Language": "de"}),
        Asked("/api/products/?page_size=1", headers={"Origin": "https://evil.example"}),
        Asked("/api/products/?" + "&".join(f"a{n}=1" for n in range(1000)) + "&page_size=1"),
        Asked("/api/products/?" + "&".join(f"a{n}=1" for n in range(999)) + "&page_size=1"),
        Asked("/api/products/x/y/?" + "&".join(f"a{n}=1" for n in range(1001))),
    ]
    answers = assert_same(shops, requests)
    assert {answer.status for answer in answers} == {200, 301, 400, 404, 406}


@pytest.mark.parametrize("seed", range(4))
def test_random_queries(shops: Shops, known: dict[str, list[str]], seed: int) -> None:
    assert_same(shops, [Asked(_random_target(random.Random(f"{seed}/{n}"), known)) for n in range(60)])


@pytest.mark.parametrize("who", ["shopper", "staff"])
def test_logged_in(shops: Shops, known: dict[str, list[str]], who: str) -> None:
    cookie = {"Cookie": shops.cookies[who]}
    targets = ["/api/products/", "/api/categories/", "/api/products", "/api/products/nope/"]
    targets += [f"/api/products/{slug}/" for slug in [*known["slugs"][:3], *known["inactive"][:2]]]
    targets += [
        f"/api/products/{known['reviewed'][0]}/reviews/",
        f"/api/products/?brand={quote(known['brands'][3])}",
    ]
    answers = assert_same(
        shops,
        [
            Asked(target, method, cookie)
            for target, method in combinations(targets, ("GET", "HEAD", "OPTIONS"))
        ],
    )
    users = {answer.headers.get("x-strangler-user") for answer in answers}
    assert any(user for user in users if user), f"the shop did not know its {who}: {users}"


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


def _random_target(dice: random.Random, known: dict[str, list[str]]) -> str:
    values: dict[str, list[str]] = {
        "page": ["1", "2", "3", "last", "0", "x", ""],
        "page_size": ["1", "2", "5", "24", "100", "1000", "-1", ""],
        "category": [*known["categories"], "nope", ""],
        "brand": [*known["brands"], "nope", " "],
        "min_price": ["0", "5", "10.10", "19.90", "50", "x", "1e1"],
        "max_price": ["0", "19.9", "20", "100", "99999", "-1", "y"],
        "released_after": ["2020-01-01", "2023-06-30", "31/12/2022", "never", ""],
        "search": ["fox", "table or lamp", '"made of"', "-fox", "oak", "the", "ü", "a b c"],
        "ordering": ["price", "-price", "name", "-rating,name", "created_at", "rating", "-name", "no"],
        "utm": ["a b", "ü", "x&y=z", "100%"],
    }  # fmt: skip
    names = dice.sample(sorted(values), dice.choice((1, 2, 2, 3, 3, 4)))
    pairs = [(name, dice.choice(values[name])) for name in names]
    if dice.random() < 0.15:
        pairs.append(dice.choice(pairs))
    return "/api/products/?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)
