"""Faults of a candidate, as they happen when a Django REST framework view is written again in FastAPI.

Each takes an answer's draft and changes it in place; it says False when this answer gives it nothing to
change. `MUTATIONS` maps the fault's name to the endpoint it is about and the function.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tests.parity_traffic import PAGE, Asked, Draft, Json, Mutation, Shop

MUTATIONS: dict[str, tuple[str, Mutation]] = {}


def fault(*endpoints: str) -> Callable[[Mutation], Mutation]:
    """Register a fault of these endpoints."""

    def register(function: Mutation) -> Mutation:
        for endpoint in endpoints:
            name = getattr(function, "__name__", "fault")
            MUTATIONS[f"{name} in {endpoint}" if len(endpoints) > 1 else name] = (endpoint, function)
        return function

    return register


def _row(draft: Draft, shop: Shop) -> Json:
    document = draft.document
    row: Json = shop.random.choice(document["results"]) if "results" in document else document
    return row


def _set(row: Json, key: str, value: Any) -> bool:
    before = row[key]
    row[key] = value
    return repr(before) != repr(value)


# Fields


@fault("products", "product")
def drop_field(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return row.pop(shop.random.choice(["currency", "rating", "slug", "category", "tags"])) is not Ellipsis


@fault("product")
def leak_field(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.document["cost_price"] = "7.10"
    return True


@fault("products")
def rename_field(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    for row in draft.document["results"]:
        row["inStock"] = row.pop("in_stock")
    return True


@fault("products", "product")
def null_dropped(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    del _row(draft, shop)["discontinued_on"]
    return True


@fault("product")
def null_as_empty_text(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "discontinued_on", "")


@fault("categories")
def empty_list_as_null(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    return _set(shop.random.choice(draft.document), "children", None)


@fault("product")
def nested_object_as_id(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "category", draft.document["category"]["id"])


@fault("product", "products")
def neighbours_category(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    other = shop.products[row["id"] % len(shop.products)]
    return _set(row, "category", dict(other["category"]))


# Money and numbers


@fault("products", "product")
def money_as_float(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "price", float(row["price"]))


@fault("products", "orders")
def money_off_by_a_cent(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    key = "price" if "price" in row else "total"
    return _set(row, key, f"{float(row[key]) + 0.01:.2f}")


@fault("product")
def money_without_scale(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "price", f"{float(draft.document['price']):g}")


@fault("product")
def money_with_exponent(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    price = draft.document["price"]
    return price.endswith("00") and _set(draft.document, "price", f"{int(float(price))}E+0")


@fault("orders")
def money_in_cents(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "total", f"{float(row['total']) * 100:.2f}")


@fault("orders")
def money_with_float_dust(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "total", float(row["total"]) + 1e-12)


@fault("product")
def rating_rounded(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    rating = draft.document["rating"]
    return rating is not None and _set(draft.document, "rating", round(rating))


@fault("product")
def weight_in_single_precision(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    size = draft.document["size"]
    return _set(size, "weight_kg", size["weight_kg"] * (1 + 3e-8))


@fault("product")
def whole_number_as_text(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document["size"], "width", str(draft.document["size"]["width"]))


@fault("product")
def boolean_as_number(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "in_stock", int(draft.document["in_stock"]))


@fault("products", "orders")
def boolean_flipped(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    key = "paid" if "paid" in row else "in_stock"
    return _set(row, key, not row[key])


# Times


@fault("products", "product")
def hour_shift(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    moved = datetime.fromisoformat(row["created_at"]) + timedelta(hours=1)
    return _set(row, "created_at", moved.isoformat().replace("+00:00", "Z"))


@fault("product")
def offset_instead_of_z(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "created_at", draft.document["created_at"].replace("Z", "+00:00"))


@fault("product", "products")
def zone_lost(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "created_at", row["created_at"].removesuffix("Z"))


@fault("orders")
def microseconds_lost(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "placed_at", row["placed_at"].split(".")[0] + "Z")


@fault("products")
def day_in_another_zone(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    day = datetime.fromisoformat(row["created_on"]) + timedelta(days=1)
    return _set(row, "created_on", day.date().isoformat())


@fault("orders")
def duration_as_iso(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    days, clock = row["delivery"].split(" ")
    return _set(row, "delivery", f"P{days}DT{int(clock[:2])}H")


@fault("product", "products")
def noisy_clock_an_hour_off(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    moved = datetime.fromisoformat(draft.document["served_at"]) + timedelta(hours=1)
    return _set(draft.document, "served_at", moved.isoformat().replace("+00:00", "Z"))


@fault("product")
def noisy_clock_as_number(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    moment = datetime.fromisoformat(draft.document["served_at"])
    return _set(draft.document, "served_at", moment.timestamp())


@fault("product", "products")
def noisy_id_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    del draft.document["request_id"]
    return True


@fault("product")
def noisy_id_null(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "request_id", None)


@fault("product")
def noisy_counter_negative(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "views", -draft.document["views"])


@fault("product")
def noisy_counter_as_text(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "views", str(draft.document["views"]))


# Texts


@fault("products", "product")
def text_cut(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "name", row["name"][:12])


@fault("product")
def text_trimmed(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "notes", draft.document["notes"].strip())


@fault("product")
def text_misdecoded(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "name", draft.document["name"].encode().decode("latin-1"))


@fault("product")
def text_escaped(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "name", draft.document["name"].replace("&", "&amp;"))


@fault("products")
def enumeration_in_capitals(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "state", row["state"].upper())


# Lists and pages


@fault("products")
def page_off_by_one(draft: Draft, asked: Asked, shop: Shop) -> bool:
    after = Asked(asked.endpoint, asked.subject, asked.page + 1, asked.ordering)
    other = shop.draft(after).document["results"]
    return bool(other) and _set(draft.document, "results", other)


@fault("products")
def order_reversed(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    rows = draft.document["results"]
    ties = {(row["created_on"], row["price"], row["rating"]) for row in rows}
    return len(ties) == len(rows) and _set(draft.document, "results", rows[::-1])


@fault("products")
def ordering_ignored(draft: Draft, asked: Asked, shop: Shop) -> bool:
    if not asked.ordering:
        return False
    other = shop.draft(Asked(asked.endpoint, asked.subject, asked.page)).document["results"]
    return _set(draft.document, "results", other)


@fault("orders", "categories")
def neighbours_swapped(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    rows = draft.document["results"] if isinstance(draft.document, dict) else draft.document
    rows[0], rows[1] = rows[1], rows[0]
    return True


@fault("products", "orders", "categories")
def row_missing(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    rows = draft.document["results"] if isinstance(draft.document, dict) else draft.document
    del rows[shop.random.randrange(len(rows))]
    return True


@fault("products", "orders")
def row_twice(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    rows = draft.document["results"]
    rows.insert(1, dict(shop.random.choice(rows)))
    return True


@fault("products")
def inactive_row_shown(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    rows = draft.document["results"]
    rows[shop.random.randrange(len(rows))] = shop.products[0] | {"id": 900, "slug": "hidden", "price": "1.11"}
    return True


@fault("products")
def page_longer(draft: Draft, asked: Asked, shop: Shop) -> bool:
    after = Asked(asked.endpoint, asked.subject, asked.page + 1, asked.ordering)
    draft.document["results"] += shop.draft(after).document["results"][:2]
    return len(draft.document["results"]) > PAGE


@fault("products", "orders")
def count_wrong(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "count", draft.document["count"] - 1)


@fault("products")
def next_page_wrong(draft: Draft, asked: Asked, _shop: Shop) -> bool:
    url = draft.document["next"]
    return url is not None and _set(
        draft.document, "next", url.replace(f"page={asked.page + 1}", f"page={asked.page + 2}")
    )


@fault("products")
def next_page_forgets_ordering(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    url = draft.document["next"]
    return url is not None and _set(draft.document, "next", url.split("&")[0])


@fault("products")
def previous_page_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "previous", None)


@fault("products", "orders")
def envelope_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.document = draft.document["results"]
    return True


@fault("product", "products")
def tag_lost(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    _row(draft, shop)["tags"].pop()
    return True


@fault("product")
def related_row_of_another(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    return _set(shop.random.choice(draft.document["related"]), "name", "Something else")


@fault("products")
def one_row_out_of_date(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    row = _row(draft, shop)
    return _set(row, "price", f"{float(row['price']) + 3:.2f}")


# Whose data


@fault("orders")
def another_users_orders(draft: Draft, asked: Asked, shop: Shop) -> bool:
    other = shop.draft(Asked(asked.endpoint, (asked.subject + 1) % 4))
    draft.document = other.document
    return True


@fault("product")
def another_product(draft: Draft, asked: Asked, shop: Shop) -> bool:
    draft.document = shop.draft(Asked(asked.endpoint, asked.subject % 59 + 1)).document
    return True


# Status and headers


@fault("missing")
def missing_answered_200(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.status, draft.document = 200, {}
    return True


@fault("product")
def found_answered_404(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.status, draft.document = 404, {"detail": "Not Found"}
    return True


@fault("missing")
def other_words_for_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.document, "detail", "Not Found")


@fault("invalid")
def validation_as_fastapi_says(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.status = 422
    draft.document = {"detail": [{"type": "int_parsing", "loc": ["query", "page_size"]}]}
    return True


@fault("invalid")
def validation_in_another_shape(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.document = {"detail": [{"type": "int_parsing", "loc": ["query", "page_size"]}]}
    return True


@fault("moved")
def redirect_for_now(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.status = 307
    return True


@fault("moved")
def redirect_elsewhere(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.headers, "Location", draft.headers["Location"].rstrip("/"))


@fault("product")
def server_error(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.status, draft.document = 500, {"detail": "oops"}
    return True


@fault("product")
def content_type_changed(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.headers, "Content-Type", "text/plain; charset=utf-8")


@fault("products", "product", "page")
def frame_options_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return draft.headers.pop("X-Frame-Options") != ""


@fault("orders")
def cacheable_by_everybody(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.headers, "Cache-Control", "public, max-age=60")


@fault("orders")
def vary_without_cookie(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    return _set(draft.headers, "Vary", "Accept")


@fault("orders")
def cookie_readable_by_scripts(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.cookies = [cookie.replace(" HttpOnly;", "") for cookie in draft.cookies]
    return True


@fault("orders")
def cookie_missing(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.cookies = []
    return True


@fault("product", "orders")
def body_empty(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    draft.document = ""
    return True


# Pages


@fault("page")
def page_shows_another_price(draft: Draft, _asked: Asked, shop: Shop) -> bool:
    draft.document = draft.document.replace("<b>", f"<b>{shop.random.randrange(1, 9)}")
    return True


@fault("page")
def page_without_csrf_field(draft: Draft, _asked: Asked, _shop: Shop) -> bool:
    lines = [line for line in draft.document.split("\n") if "csrfmiddlewaretoken" not in line]
    draft.document = "\n".join(lines)
    return True
