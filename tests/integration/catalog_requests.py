"""What the shop and the catalogue service are asked: corpora and seeded random requests.

Targets are written as they go over the wire, blanks separate them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product as combinations
from urllib.parse import quote

from tests.integration.catalog_servers import Asked

Known = Mapping[str, Sequence[str]]

# rows that a seeded shop does not have: ties, zones, empty and odd values, inactive and unapproved ones
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
SELECT min(id), 'empty-corner', 'Empty corner, “nothing”', 0 FROM catalog_category;

INSERT INTO catalog_product (sku, slug, name, brand, description, price, currency, attributes, weight_kg,
                             is_active, released_on, created_at, updated_at, category_id)
SELECT 'ODD-' || n, 'odd-' || n, name, brand, description, price, 'EUR', attributes::jsonb, weight, true,
       day::date, '2025-01-01 00:00:00+00', '2025-01-01 00:00:00.5+00',
       (SELECT min(id) FROM catalog_category)
FROM (VALUES
    (1, E'Line\\u2028separator \\u2029 and <b>&amp;</b>', 'Ünï & Söhne', E'tab\\tnew\\nline',
     99999999.99, '[]', 0.001, '0999-12-31'),
    (2, 'material is a number', ' padded ', '',
     0.01, '{"material": 7, "z": 1.10, "a": 1e2}', 12345.678, NULL),
    (3, 'material is null', 'x', 'the quick brown fox',
     1.00, '{"material": null, "n": [1, {"b": 2, "a": 1}]}', 1, '2030-01-01'),
    (4, 'material with quotes', 'x', 'jumping foxes jumped',
     10.10, '{"material": "a \\"b\\" \\\\ c", "bb": ""}', 0.5, NULL),
    (5, 'attributes are text', 'x', 'fox', 10.10, '"text"', 100, NULL),
    (6, 'empty material', 'x', 'fox fox fox',
     10.10, '{"material": "", "long key": 12345678901234567890.5}', NULL, NULL)
) odd (n, name, brand, description, price, attributes, weight, day);
"""

_LISTS = """
? ?& ?page=1 ?page=2 ?page=last ?page=0 ?page=-1 ?page=99999 ?page=x ?page= ?page=1.0 ?page=%201
?page=1_0
?page=%D9%A2 ?page=2&page=1 ?page=LAST ?page=0x1 ?page=+2 ?page=%2B2 ?page=%00
?page_size=1 ?page_size=5&page=3 ?page_size=100 ?page_size=101 ?page_size=0 ?page_size=-5 ?page_size=x
?page_size= ?page_size=5&page_size=7 ?page_size=%20%207%20 ?page_size=7&page=last ?page_size=%00
?page_size=50&page=2&unknown=a%20b&unknown=c+d&empty=&x ?page_size=3&page=2&q=%FF%FE&r=%C3%BC
?page_size=3;page=2 ?&&page_size=3&& ?page_size=3&page=2&a=[]{}|^~!$'()*,;:@/?%2F%25 ?page_size=3&a="<>`
?page_size=3&page=2&page=3&PAGE=4 ?page_size=3&page=2&%70age=5 ?page_size=3&page=3&=empty&==

?min_price=10 ?max_price=10 ?min_price=10.10&max_price=19.90 ?min_price=19.90 ?max_price=19.9
?min_price=19.901 ?max_price=19.899 ?min_price=1e2 ?min_price=1E1 ?min_price=%2020%20 ?min_price=x
?min_price=1,5 ?min_price=NaN ?max_price=Infinity ?min_price=-1 ?min_price=1_0 ?max_price=1e51
?max_price=1e50
?max_price=99999999999999999999 ?min_price= ?min_price=+5 ?min_price=%2B5 ?min_price=%00 ?min_price=1%00
?min_price=x&max_price=y&category=nope&released_after=z&brand=%00&search=%00 ?min_price=%D9%A2%D9%A3
?min_price=0x10 ?min_price=sNaN ?min_price=-0 ?min_price=.5 ?min_price=1e-30 ?max_price=0.005
?min_price=10&min_price=20 ?min_price=1e-16383 ?min_price=-1e131000
?min_price=19.90000000000000000000000000001
?max_price=19.89999999999999999999999999999 ?max_price=-Infinity ?min_price=1e

?released_after=2024-01-01 ?released_after=01/02/2024 ?released_after=13/02/2024
?released_after=02/13/2024
?released_after=1/2/24 ?released_after=2024-1-1 ?released_after=%202024-01-01%20
?released_after=2024-02-30
?released_after=Jan+1+2024 ?released_after=0001-01-01 ?released_after= ?released_after=2024-01-01T00:00
?released_after=%00 ?released_after=9999-12-31 ?released_after=%20 ?released_after=29/02/2023
?released_after=%D9%A2%D9%A0%D9%A2%D9%A4-01-01 ?released_after=24-01-01 ?released_after=01%20/02/2024

?category=nope ?category= ?category=%00 ?category=%20 ?category=a%00b ?category=nope&category=
?brand= ?brand=nobody ?brand=%20 ?brand=%00 ?brand=a&brand=x ?brand=%20padded%20 ?brand=padded
?brand=%EF%BF%BD ?brand=%C2%A0x%E2%80%83

?search= ?search=%20 ?search=fox ?search=foxes ?search="quick+brown" ?search=quick+-brown ?search=the
?search=fox+or+lamp ?search=%00 ?search=!!! ?search=%27 ?search=%5C ?search=a%00 ?search=fox:*
?search=fox%26jump
?search=fox&ordering=price ?search=fox&ordering=-price ?search=table&page_size=5&page=2
?search=fox&page=99
?search=%E2%80%A8 ?search=100%25 ?search=%25s ?search=fox&ordering=rating ?search=-fox&page_size=3

?format=json ?format=JSON ?format=xml ?format= ?format=api ?format=xml&format=json ?format=json&format=
?format=json&page_size=2&page=2 ?format=xml&min_price=x

?ordering= ?ordering=nope ?ordering=price ?ordering=-price ?ordering=name ?ordering=-name
?ordering=rating
?ordering=-rating ?ordering=created_at ?ordering=-created_at ?ordering=--price ?ordering=price,name
?ordering=-rating,price ?ordering=price,-price ?ordering=%20price%20,%20-name ?ordering=nope,price
?ordering=id
?ordering=pk ?ordering=- ?ordering=, ?ordering=price&ordering=name ?ordering=-rating&page_size=100
?ordering=rating&page_size=100&page=2 ?ordering=PRICE ?ordering=%00 ?ordering=-+price
"""

_PATHS = """
/api/products /api/products?page=2&q=%20%C3%BC /api/categories /api/products/caf%C3%A9
/api/products/a%2Fb
/api/products/a;b=c /api/products/x%20y /api/products// /api//products/ /api/products/%2F/
/api/products/caf%C3%A9/ /api/products/../products/ /api/products/x/reviews/y/ /api/products/x.json
/api/products.json/ /api/categories/a/b /api/Products/ /api/products/%00/ /api/products/%F0%28/
/api/products/a.b/
/api/products/x/?format=xml /api/products/x/y/?format=xml /api/products/x/y/ /api/products/nope/
/api/products/x/y/?format=json /api/products/?x=1&x=2 /api/categories/%2E%2E/ /api/products/x/reviews
"""

_ACCEPTS = [
    "*/*", "application/json", "application/*", "text/html", "text/html, */*;q=0.1", "application/xml",
    "application/json; indent=4", "application/json;indent=0", "application/json; indent=99",
    "application/json; indent=-1", "application/json; indent=x", "application/json; charset=utf-8",
    "*/*; indent=2", "application/json;q=0", "image/*", "*", "json", "*/json", ",", "application/JSON",
    " application/json ", 'application/json; indent="3"',
    "text/html;level=1, application/json;q=0.5; indent=2",
    "a" * 300, ", ".join(["text/plain"] * 70) + ", application/json", "x" * 8190 + ", application/json",
    "application/json; indent*=utf-8''2", "application/json; indent*=nope''2", "application/vnd.api+json",
    "application/json;", ";indent=2", "application/json; indent", "application/json; INDENT=2",
    "application/json, application/json; indent=2", "application/*; indent=3, */*; indent=5",
]  # fmt: skip

_HOSTS = [
    "127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:8000", "evil.example", "localhost.", "localhost:x",
    "local_host", "a b", "localhost@evil", "sub.localhost", "localhost:", "[::1", ".localhost",
    "localhost:99999",
]  # fmt: skip

_FORWARDED: list[dict[str, str]] = [
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Proto": "http"},
    {"X-Forwarded-Proto": "ftp"},
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-For": "192.0.2.1"},
    {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"},
    {"X-Forwarded-Port": "444"},
    {"Forwarded": "proto=https;host=evil.example"},
]

_EVERY_SAFE_METHOD = ("GET", "HEAD", "OPTIONS")


def lists(known: Known) -> list[Asked]:
    """Every parameter of the product list, good, bad and strange; every category; some brands."""
    queries = ["", *_LISTS.split()]
    queries += [f"?category={slug}&page_size=4" for slug in known["categories"]]
    queries += [f"?brand={quote(brand)}&page_size=3" for brand in known["brands"][:12]]
    queries += ["?page=" + "9" * 5000, "?search=" + "word+" * 300]
    return [Asked(f"/api/products/{query}") for query in queries]


def details(known: Known) -> list[Asked]:
    """Products, reviews and categories, one by one."""
    odd = [slug for slug in known["slugs"] if slug.startswith("odd-")]
    most = known["reviewed"][0]
    slugs = [*known["slugs"][:15], *odd, *known["inactive"][:2], "nope", "-", "_", "A" * 300]
    reviewed = [*known["reviewed"][:8], *odd[:1], *known["inactive"][:1], "nope"]
    pages = ("?page_size=1", "?page_size=1&page=2", "?page=99", "?page=last&page_size=2", "?ordering=rating")
    targets = [
        *(f"/api/products/{slug}/" for slug in slugs),
        *(f"/api/products/{slug}/reviews/" for slug in reviewed),
        *(f"/api/products/{most}/reviews/{query}" for query in pages),
        *(f"/api/categories/{slug}/" for slug in [*known["categories"], "nope"]),
        f"/api/products/{most}/?format=json",
        f"/api/products/{most}/?format=&page=2",
        "/api/products/nope/reviews/?page=9",
        "/api/categories/",
        "/api/categories/?page=2",
        "/api/categories/?format=json",
    ]
    return [Asked(target) for target in targets]


def paths_and_methods(known: Known) -> list[Asked]:
    """Safe methods on every resource, missing slashes, paths that exist nowhere."""
    slug, category = known["slugs"][0], known["categories"][0]
    targets = [
        "/api/products/",
        f"/api/products/{slug}/",
        f"/api/products/{slug}",
        f"/api/products/{slug}/reviews/",
        f"/api/products/{slug}/reviews?a=b",
        "/api/categories/",
        f"/api/categories/{category}/",
        *_PATHS.split(),
    ]
    return [Asked(target, method) for target, method in combinations(targets, _EVERY_SAFE_METHOD)]


def envelopes(known: Known) -> list[Asked]:
    """Accept, Host, forwarding and other headers; too many parameters; bytes that are not UTF-8."""
    page = "/api/products/?page_size=2&page=2"
    many = "&".join(f"a{n}=1" for n in range(999))
    plain: list[dict[str, str]] = [
        {"If-None-Match": "*"},
        {"Range": "bytes=0-10"},
        {"Accept-Encoding": "gzip, br"},
        {"Accept-Language": "de"},
        {"Origin": "https://evil.example"},
        {"Cookie": f"csrftoken={'a' * 32}; other=y"},
        {"Authorization": "Basic eDp5"},
        {"Content-Type": "text/plain"},
    ]
    return [
        *(Asked(page, headers={"Accept": accept}) for accept in _ACCEPTS),
        Asked("/api/products/", "OPTIONS", {"Accept": "text/html"}),
        Asked("/api/products/nope/", headers={"Accept": "application/json; indent=4"}),
        Asked("/api/products/x/y/", headers={"Accept": "application/json; indent=2"}),
        Asked("/api/products/x/y/", headers={"Accept": "text/html"}),
        *(
            Asked(target, headers={"Host": host})
            for host, target in combinations(_HOSTS, ("/api/products/?page_size=1", "/api/products"))
        ),
        *(
            Asked(target, headers=headers)
            for headers, target in combinations(_FORWARDED, (page, f"/api/products/{known['slugs'][0]}/"))
        ),
        *(Asked(page, headers=headers) for headers in plain),
        Asked(f"/api/products/?{many}&page_size=1"),
        Asked(f"/api/products/?{many}&page_size=1&one=more"),
        Asked(f"/api/products/nope/?{many}&two=more&than=that"),
        Asked(f"/api/products/x/y/?{many}&two=more&than=that"),
        Asked("/api/products/?brand=\xe9"),
        Asked("/api/products?brand=\xe9"),
    ]


def logged_in(known: Known, cookie: str) -> list[Asked]:
    """Reads with a session."""
    targets = [
        "/api/products/",
        "/api/products",
        "/api/products/nope/",
        "/api/products/x/y/",
        "/api/categories/",
        *(f"/api/products/{slug}/" for slug in [*known["slugs"][:3], *known["inactive"][:2]]),
        f"/api/products/{known['reviewed'][0]}/reviews/",
        f"/api/products/?brand={quote(known['brands'][3])}",
        "/api/products/?format=xml",
        "/api/products/?min_price=x",
    ]
    return [
        Asked(target, method, {"Cookie": cookie})
        for target, method in combinations(targets, _EVERY_SAFE_METHOD)
    ]


def not_allowed(known: Known) -> list[Asked]:
    """Methods that the shop's views do not have."""
    product = f"/api/products/{known['slugs'][0]}/"
    wrong = {
        "/api/products/": ("POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"),
        product: ("POST", "PUT", "DELETE", "TRACE"),
        f"{product}reviews/": ("PUT", "PATCH", "DELETE", "TRACE"),
        "/api/categories/": ("POST", "PUT", "PATCH", "DELETE"),
        f"/api/categories/{known['categories'][0]}/": ("POST", "PUT", "PATCH", "DELETE"),
        "/api/products/x/y/": ("POST", "DELETE"),
        "/api/products": ("POST", "DELETE"),
    }
    return [Asked(target, method) for target, methods in wrong.items() for method in methods]


def random_lists(seed: int, known: Known, amount: int) -> Iterator[Asked]:
    """Product lists with one to four parameters drawn from what exists and what does not."""
    values: dict[str, Sequence[str]] = {
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
    }
    dice = random.Random(seed)
    for _ in range(amount):
        names = dice.sample(sorted(values), dice.choice((1, 2, 2, 3, 3, 4)))
        pairs = [(name, dice.choice(values[name])) for name in names]
        if dice.random() < 0.15:
            pairs.append((dice.choice(names), "again"))
        yield Asked("/api/products/?" + "&".join(f"{name}={quote(value)}" for name, value in pairs))
