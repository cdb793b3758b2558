"""Journeys of people with an account: log in, buy, write a review; staff change prices."""

from collections.abc import Callable, Mapping
from random import Random
from uuid import UUID

from workshop.traffic.client import Answer
from workshop.traffic.journeys import Journey, Step, data_of, product, some_page

_CREATED = frozenset({201})
_ADDRESS: Mapping[str, str] = {
    "label": "Home",
    "recipient": "A Shopper",
    "line1": "1 Market Square",
    "postcode": "10115",
    "city": "Berlin",
    "country": "DE",
}


def log_in(email: str, password: str) -> Journey:
    """Fetch a CSRF token, log in, look who we are."""
    yield Step("csrf token", "GET", "/api/auth/csrf/")
    yield Step("log in", "POST", "/api/auth/login/", json={"email": email, "password": password})
    yield Step("me", "GET", "/api/me/", check=_wants("email", email))


def buy(random: Random) -> Journey:
    """Put one or two products into the cart, look at it, check out, look at the order."""
    results = yield from some_page(random)
    for item in random.sample(list(results), k=min(len(results), random.choice([1, 1, 2]))):
        yield product(str(item["slug"]))
        yield Step("add to cart", "POST", "/api/cart/items/", json={"sku": item["sku"]}, expect=_CREATED)
    cart = yield Step("cart", "GET", "/api/cart/", check=_wants_items)
    lines = (data_of(cart) or {}).get("items", [])
    for line in lines:
        # a shopper takes out what is not there: the shop would refuse the whole order
        if line["available"] < line["quantity"]:
            yield Step("take out", "DELETE", f"/api/cart/items/{line['id']}/", expect=frozenset({204}))
    if not any(line["available"] >= line["quantity"] for line in lines):
        return
    addresses = data_of((yield Step("addresses", "GET", "/api/me/addresses/"))) or []
    if addresses:
        address = int(random.choice(addresses)["id"])
    else:
        added = yield Step("add address", "POST", "/api/me/addresses/", json=_ADDRESS, expect=_CREATED)
        address = int((data_of(added) or {})["id"])
    placed = yield _checkout(random, address)
    number = (data_of(placed) or {}).get("number")
    if number:
        yield Step("order", "GET", f"/api/orders/{number}/", check=_wants("number", number))


def review(random: Random) -> Journey:
    """Open a product, read what others say, add a review (refused with 400 when it is the second one)."""
    results = yield from some_page(random)
    if not results:
        return
    slug = str(random.choice(results)["slug"])
    yield product(slug)
    stars = random.choice([3, 4, 4, 5, 5])
    yield Step(
        "write review", "POST", f"/api/products/{slug}/reviews/",
        json={"rating": stars, "title": "As described", "body": f"{stars} stars from me."},
        expect=frozenset({201, 400, 409}),
    )  # fmt: skip


def change_price(random: Random) -> Journey:
    """Staff open a page of products and give a few of them another price."""
    results = yield from some_page(random)
    for item in random.sample(list(results), k=min(len(results), 4)):
        price = f"{random.randint(500, 19_999) / 100:.2f}"
        path = f"/api/products/{item['slug']}/"
        yield Step("change price", "PATCH", path, json={"price": price}, check=_wants("price", price))


def _checkout(random: Random, address: int) -> Step:
    key = UUID(int=random.getrandbits(128), version=4)
    return Step(
        "check out", "POST", "/api/checkout/",
        json={"address_id": address, "payment_token": random.choice(["tok_visa", "tok_mastercard"])},
        headers={"Idempotency-Key": str(key)},
        expect=frozenset({201, 409}), check=_wants_order,
    )  # fmt: skip


def _wants_order(answer: Answer) -> str:
    """An order, or the word that somebody else was faster: two shoppers may want the last one."""
    if answer.status == 409 and b'"out_of_stock"' not in answer.body:
        return f"the order was refused: {answer.body[:200]!r}"
    return ""


def _wants(key: str, value: str) -> Callable[[Answer], str]:
    def check(answer: Answer) -> str:
        data = data_of(answer)
        if not isinstance(data, Mapping) or data.get(key) != value:
            return f"{key} is not {value!r}"
        return ""

    return check


def _wants_items(answer: Answer) -> str:
    data = data_of(answer)
    return "" if isinstance(data, Mapping) and data.get("items") else "the cart is empty"
