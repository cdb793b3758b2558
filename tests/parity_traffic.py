"""A small shop that answers twice: as the control does and as a faithful candidate does, with the noise of
real servers.

`Shop.answer` renders one request from the same data with what changes from answer to answer: clocks, request
ids, random order among rows that tie in the sort, counters, rotating cookies and tokens, key order, white
space, compression. `pair` adds the world's own noise: data that changes between two answers, and a candidate
that lags. Everything comes from one seeded generator; time is simulated.
"""

import gzip
import json
import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

from strangler_proxy.compare import Comparison, Recorded, Step, compare, next_step
from strangler_proxy.compare_rules import Compiled, Kind, ListRule, Order, Rules, compile_rules

Json = dict[str, Any]
START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
PAGE = 8
NAMES = ("Lamp", "Café table", "Chair & stool", "Müsli bowl")


@dataclass(slots=True)
class Draft:
    """An answer before it is serialised: what a mutation changes. `document` is the JSON, or the page's text."""

    status: int
    headers: dict[str, str]
    document: Any
    cookies: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: the endpoint (see `ENDPOINTS`), whom or what it is about, and the page."""

    endpoint: str
    subject: int = 0
    page: int = 1
    ordering: str = ""

    @property
    def query(self) -> str:
        """The query string."""
        parts = [f"page={self.page}"] if self.page > 1 else []
        return "&".join(parts + ([f"ordering={self.ordering}"] if self.ordering else []))


ENDPOINTS = ("products", "product", "orders", "categories", "missing", "invalid", "moved", "page")

RULES: dict[str, Compiled] = {
    endpoint: compile_rules(rules, today=date(2026, 3, 28))
    for endpoint, rules in {
        "products": Rules(
            "/api/products/",
            lists={
                "$.results": ListRule(Order.KEY, key="id", sorted_by=("?ordering", "-created_on")),
                "$.results[].tags": ListRule(Order.SET),
            },
            types={"$.results[].price": Kind.MONEY},
        ),
        "product": Rules(
            "/api/products/{slug}/",
            lists={"$.tags": ListRule(Order.SET), "$.related": ListRule(Order.KEY, key="id")},
            types={"$.price": Kind.MONEY},
        ),
        "orders": Rules("/api/orders/", types={"$.results[].total": Kind.MONEY}),
    }.items()
}


class Shop:
    """The data and the two servers in front of it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = START
        self.views = 1000
        self.position = 1_000_000
        self.products = [self._product(number) for number in range(1, 61)]
        self.orders = [self._order(number) for number in range(1, 41)]

    def _price(self) -> str:
        return f"{self.random.randrange(5, 400)}.{self.random.choice(['00', '50', '90', '99'])}"

    def _product(self, number: int) -> Json:
        draw = self.random
        made = START - timedelta(days=number // 4, seconds=draw.randrange(80_000))
        return {
            "id": number,
            "slug": f"item-{number}",
            "name": f"{draw.choice(NAMES)} no. {number}, second edition",
            "price": self._price(),
            "currency": "EUR",
            "rating": draw.choice([None, *(step / 8 for step in range(16, 41))]),
            "in_stock": draw.random() < 0.7,
            "state": draw.choice(["active", "preorder"]),
            "created_on": made.date().isoformat(),
            "created_at": made.replace(microsecond=draw.randrange(1, 999_999)).isoformat().replace("+00:00", "Z"),
            "category": {"id": number % 7 + 1, "slug": f"shelf-{number % 7 + 1}", "title": f"Shelf {number % 7 + 1}"},
            "tags": draw.sample(["new", "oak", "red", "sale", "small", "wool"], 3),
            "size": {"width": draw.randrange(10, 90), "weight_kg": round(draw.uniform(0.2, 9), 3)},
            "discontinued_on": None,
            "notes": "  hand made ",
        }  # fmt: skip

    def _order(self, number: int) -> Json:
        draw = self.random
        made = START - timedelta(hours=number * 5, microseconds=draw.randrange(1, 999_999))
        return {
            "number": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            "user": number % 4,
            "email": f"shopper{number % 4}@example.com",
            "total": f"{draw.randrange(20, 900)}.{draw.randrange(10, 99)}",
            "placed_at": made.isoformat().replace("+00:00", "Z"),
            "delivery": f"{draw.randrange(1, 4)} 0{draw.randrange(1, 9)}:00:00",
            "paid": draw.random() < 0.8,
            "lines": [{"product": draw.randrange(1, 60), "quantity": draw.randrange(1, 5)} for _ in range(3)],
        }

    def ask(self) -> Asked:
        """What the next shopper wants."""
        draw = self.random
        endpoint = draw.choices(ENDPOINTS, [30, 25, 12, 8, 5, 5, 5, 10])[0]
        return self.ask_for(endpoint)

    def ask_for(self, endpoint: str) -> Asked:
        """A request to one endpoint."""
        draw = self.random
        pages = {"products": 7, "orders": 1}.get(endpoint, 1)
        ordering = draw.choice(["", "price", "-rating"]) if endpoint == "products" else ""
        subject = draw.randrange(4) if endpoint == "orders" else draw.randrange(1, 60)
        return Asked(endpoint, subject, draw.randrange(1, pages + 1), ordering)

    def change(self) -> None:
        """Somebody edits a product or it sells out."""
        product = self.random.choice(self.products)
        product["price"] = self._price()
        product["in_stock"] = not product["in_stock"]
        self.position += 1000

    # Answers

    def draft(self, asked: Asked, *, products: list[Json] | None = None) -> Draft:
        """What both servers say, noise included; `products`: an older state of the data."""
        self.now += timedelta(milliseconds=self.random.randrange(3, 400))
        self.views += self.random.randrange(1, 4)
        self.position += self.random.randrange(0, 50)
        known = self.products if products is None else products
        make: dict[str, Callable[[Asked, list[Json]], Draft]] = {
            "products": self._list,
            "product": self._detail,
            "orders": self._orders,
            "categories": self._categories,
            "missing": lambda *_: self._json(404, {"detail": "No Product matches the given query."}),
            "invalid": lambda *_: self._json(400, {"page_size": ["A valid integer is required."]}),
            "moved": self._moved,
            "page": self._page,
        }
        return make[asked.endpoint](asked, known)

    def _json(self, status: int, document: Any) -> Draft:
        headers = {
            "Content-Type": "application/json",
            "Vary": "Accept, Cookie",
            "Cache-Control": "private, max-age=0",
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }
        return Draft(status, headers, deepcopy(document))

    def _list(self, asked: Asked, products: list[Json]) -> Draft:
        name = asked.ordering.lstrip("-") or "created_on"
        descending = asked.ordering.startswith("-") or not asked.ordering
        rows = list(products)
        self.random.shuffle(rows)  # a database that breaks ties as it pleases
        rows.sort(
            key=lambda row: float(row[name] or 0) if name in ("price", "rating") else row[name],
            reverse=descending,
        )
        page = rows[(asked.page - 1) * PAGE : asked.page * PAGE]
        last = (len(rows) + PAGE - 1) // PAGE
        order = f"&ordering={asked.ordering}" if asked.ordering else ""
        host = self.random.choice(["shop.test", "10.0.0.7:8001"])
        return self._json(
            200,
            {
                "count": len(rows),
                "next": f"http://{host}/api/products/?page={asked.page + 1}{order}" if asked.page < last else None,
                "previous": f"http://{host}/api/products/?page={asked.page - 1}{order}" if asked.page > 1 else None,
                "served_at": self._clock(),
                "request_id": f"{self.random.getrandbits(96):024x}",
                "results": [row | {"tags": self.random.sample(row["tags"], len(row["tags"]))} for row in page],
            },
        )  # fmt: skip

    def _detail(self, asked: Asked, products: list[Json]) -> Draft:
        row = products[asked.subject - 1]
        related = [{"id": one["id"], "name": one["name"]} for one in products[:5]]
        self.random.shuffle(related)
        return self._json(
            200,
            row
            | {
                "tags": self.random.sample(row["tags"], len(row["tags"])),
                "related": related,
                "views": self.views,
                "request_id": str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
                "served_at": self._clock(),
                "took_ms": round(self.random.uniform(1.2, 9.7), 4),
            },
        )

    def _orders(self, asked: Asked, _products: list[Json]) -> Draft:
        rows = [order for order in self.orders if order["user"] == asked.subject]
        draft = self._json(200, {"count": len(rows), "next": None, "previous": None, "results": rows})
        expires = f"{self.now + timedelta(days=14):%a, %d %b %Y %H:%M:%S} GMT"
        session = f"{self.random.getrandbits(120):030x}"
        draft.cookies = [f"sessionid={session}; Path=/; HttpOnly; SameSite=Lax; Expires={expires}"]
        return draft

    def _categories(self, _asked: Asked, products: list[Json]) -> Draft:
        shelves = {row["category"]["id"]: row["category"] for row in products}
        tree = [
            shelf | {"products": sum(row["category"]["id"] == number for row in products), "children": []}
            for number, shelf in sorted(shelves.items())
        ]
        return self._json(200, tree)

    def _moved(self, asked: Asked, _products: list[Json]) -> Draft:
        draft = self._json(301, None)
        draft.headers |= {
            "Content-Type": "text/html; charset=utf-8",
            "Location": f"/api/products/item-{asked.subject}/",
        }
        draft.document = ""
        return draft  # fmt: skip

    def _page(self, asked: Asked, products: list[Json]) -> Draft:
        row = products[asked.subject - 1]
        draft = self._json(200, None)
        draft.headers["Content-Type"] = "text/html; charset=utf-8"
        token = f"{self.random.getrandbits(256):064x}"
        draft.cookies = [f"csrftoken={token}; Path=/; SameSite=Lax"]
        draft.document = (
            f'<!doctype html>\n<h1>{row["name"]}</h1>\n<form method="post">\n'
            f'<input type="hidden" name="csrfmiddlewaretoken" value="{token}">\n'
            f"<b>{row['price']} {row['currency']}</b>\n<p>{row['notes']}</p></form>\n"
        )
        return draft

    def _clock(self) -> str:
        return self.now.isoformat().replace("+00:00", "Z")

    # On the wire

    def send(self, draft: Draft, *, candidate: bool, position: int | None) -> Recorded:
        """Serialise, as one of the two stacks does."""
        draw = self.random
        if isinstance(draft.document, str):
            body = draft.document.encode()
        else:
            document = draft.document
            if candidate and isinstance(document, dict):
                keys = list(document)
                draw.shuffle(keys)
                document = {key: document[key] for key in keys}
            separators = (",", ":") if candidate else (", ", ": ")
            body = json.dumps(document, ensure_ascii=not candidate, separators=separators).encode()
        headers = dict(draft.headers) | {
            "Date": f"{self.now:%a, %d %b %Y %H:%M:%S} GMT",
            "Server": "uvicorn" if candidate else "gunicorn",
            "X-Request-ID": f"{draw.getrandbits(96):024x}",
        }
        if draw.random() < 0.1:
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        if candidate:
            headers = {name.lower(): value for name, value in headers.items()}
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        lines += [(b"Set-Cookie", cookie.encode()) for cookie in draft.cookies]
        return Recorded(draft.status, lines, body, position=position)


Mutation = Callable[[Draft, Asked, Shop], bool]
"""Changes a draft as a faulty candidate would; False when there is nothing here for it to change."""


@dataclass(frozen=True, slots=True)
class Triple:
    """Three answers to one request, in the order they were asked, and whether the fault took hold."""

    asked: Asked
    control: Recorded
    candidate: Recorded
    again: Recorded
    mutated: bool
    later: Recorded | None = None  # the candidate once more, when it had been behind


LAG = 0.02  # share of requests whose candidate is behind; half of these catch up within the wait
RACE = 0.01  # share of requests during which the data changes


def triple(shop: Shop, asked: Asked, mutation: Mutation | None = None) -> Triple:
    """One request, with everything that may happen on the way. The candidate's faults come last, so nothing
    else differs between a faulty candidate and a sound one."""
    draw = shop.random
    lagging = draw.random() < LAG
    race_before, race_after = draw.random() < RACE / 2, draw.random() < RACE / 2
    older = deepcopy(shop.products) if lagging else None
    behind = shop.position if lagging else None
    if lagging:
        shop.change()
    control = shop.send(shop.draft(asked), candidate=False, position=shop.position)
    if race_before:
        shop.change()
    draft = shop.draft(asked, products=older)
    mutated = mutation is not None and mutation(draft, asked, shop)
    applied = behind if behind is not None else shop.position
    candidate = shop.send(draft, candidate=True, position=applied)
    later = None
    if lagging and draw.random() < 0.5:
        draft = shop.draft(asked)
        if mutation is not None:
            mutation(draft, asked, shop)
        later = shop.send(draft, candidate=True, position=shop.position)
    if race_after:
        shop.change()
    again = shop.send(shop.draft(asked), candidate=False, position=shop.position)
    return Triple(asked, control, candidate, again, mutated, later)


def judge(found: Triple, rules: dict[str, Compiled] = RULES) -> Comparison:
    """The comparison as the shadow goes about it: wait once for a candidate that is behind, ask the control
    again about a real difference."""
    declared = rules.get(found.asked.endpoint, Compiled())
    candidate = found.candidate
    result = compare(found.control, candidate, rules=declared, query=found.asked.query)
    if next_step(result, waited=False, asked_again=False) is Step.CANDIDATE_LATER and found.later is not None:
        candidate = found.later
        result = compare(found.control, candidate, rules=declared, query=found.asked.query)
    if next_step(result, waited=True, asked_again=False) is Step.CONTROL_AGAIN:
        result = compare(found.control, candidate, rules=declared, again=found.again, query=found.asked.query)
    return result
