"""The pure parts of the shopper traffic: arrivals, cookies, journeys, the record."""

import itertools
import json
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from workshop.layout import Seed
from workshop.traffic.arrivals import arrivals
from workshop.traffic.client import Answer
from workshop.traffic.cookies import Jar
from workshop.traffic.journeys import Step, browse, search, some_page
from workshop.traffic.record import Record, Seen, latency, percentile, slices
from workshop.traffic.shopper import Shopper
from workshop.traffic.visitors import STAFF, Visitor, Visitors

PRODUCTS = [{"slug": f"chair-{number}", "name": "Blue chair", "sku": f"S{number}"} for number in range(3)]


def answer(data: Any, status: int = 200, *, headers: Mapping[bytes, bytes] | None = None) -> Answer:
    return Answer(status, tuple((headers or {}).items()), json.dumps(data).encode())


def shop(step: Step) -> Answer:
    """A shop of three products, as far as journeys look at it."""
    if step.path == "/api/categories/":
        return answer(
            [{"slug": "seats", "product_count": 3, "children": [{"slug": "chairs", "product_count": 3}]}]
        )
    parts = step.path.split("?")[0].strip("/").split("/")
    if parts[1] == "categories":
        return answer({"slug": parts[2]})
    if len(parts) == 2 or parts[-1] == "reviews":
        return answer({"count": 3, "next": "http://shop/?page=2", "results": PRODUCTS})
    return answer({"slug": parts[2]})


def test_arrivals_have_the_rate_asked_for_and_depend_on_the_seed_alone() -> None:
    due = list(itertools.islice(arrivals(50.0, random=Random(1)), 5_000))
    assert due == sorted(due)
    assert len(due) / due[-1] == pytest.approx(50.0, rel=0.05)
    assert due == list(itertools.islice(arrivals(50.0, random=Random(1)), 5_000))
    assert due != list(itertools.islice(arrivals(50.0, random=Random(2)), 5_000))


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        arrivals(0.0, random=Random(1))


def test_the_jar_keeps_replaces_and_deletes() -> None:
    jar = Jar()
    jar.take([b"sessionid=abc; HttpOnly; Path=/; SameSite=Lax", b"csrftoken=x; Max-Age=31449600"])
    jar.take([b"sessionid=def; Path=/"])
    assert jar.header() == "sessionid=def; csrftoken=x"
    jar.take([b'sessionid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/', b"nonsense"])
    jar.take([b"csrftoken=; Expires=Thu, 01-Jan-1970 00:00:00 GMT"])
    assert jar.header() == ""


@pytest.mark.parametrize("journey", [browse, search])
@pytest.mark.parametrize("seed", range(20))
def test_journeys_go_where_answers_lead(journey: Any, seed: int) -> None:
    steps = []
    walk = journey(Random(seed))
    step = next(walk)
    while step is not None:
        steps.append(step)
        assert step.fault(shop(step)) == ""
        try:
            step = walk.send(shop(step))
        except StopIteration:
            break
    assert 2 <= len(steps) <= 20
    assert any(step.name == "product" and step.path.startswith("/api/products/chair-") for step in steps)


@pytest.mark.parametrize("seed", range(10))
def test_nobody_asks_for_a_page_that_the_list_does_not_have(seed: int) -> None:
    walk = some_page(Random(seed))
    assert next(walk).path == "/api/products/"
    full = answer({"count": 50, "results": [{"slug": str(number)} for number in range(24)]})
    try:
        path = walk.send(full).path
    except StopIteration:
        path = ""  # the first page it is
    assert path in {"", "/api/products/?page=2", "/api/products/?page=3"}
    only = some_page(Random(seed))
    next(only)
    with pytest.raises(StopIteration):
        only.send(answer({"count": 3, "results": PRODUCTS}))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (Answer(503, (), b""), "server error 503"),
        (answer({}, 404), "status 404"),
        (Answer(200, (), b"<html>"), "not 'chair-1'"),
        (answer({"slug": "chair-2"}), "not 'chair-1'"),
        (answer({"slug": "chair-1"}), ""),
    ],
)
def test_a_step_names_what_a_shopper_would_notice(given: Answer, fault: str) -> None:
    from workshop.traffic.journeys import product

    found = product("chair-1").fault(given)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_a_shopper_sends_its_cookies_and_becomes_a_user_by_the_proxys_cookie() -> None:
    shopper = Shopper("7", "shop:80", Visitor(account="a@shop.test"), Random(1))
    assert shopper.identity() == ""
    shopper.next_step()
    shopper.take(answer([], headers={b"set-cookie": b"strangler_id=r4nd0m.sig; Path=/"}))
    assert shopper.identity() == "anonymous:r4nd0m.sig"
    request = shopper.request(shopper.next_step(), request_id="w-1")
    assert b"Cookie: strangler_id=r4nd0m.sig\r\n" in request
    shopper.take(answer([], headers={b"set-cookie": b"strangler_user=2.sig; Path=/"}))
    assert shopper.identity() == "user:a@shop.test"


def test_an_unsafe_step_carries_token_and_length() -> None:
    shopper = Shopper("7", "shop:80", Visitor(), Random(1))
    shopper.jar.values["csrftoken"] = "t0ken"
    request = shopper.request(Step("x", "POST", "/api/x/", json={"a": 1}), request_id="w-1")
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b'{"a": 1}'
    assert b"X-CSRFToken: t0ken" in head
    assert b"Content-Length: 8" in head


def test_no_two_shoppers_share_an_account() -> None:
    visitors = Visitors("pw", Seed(users=10))
    accounts = [visitors.next(Random(1)).account for _ in range(400)]
    named = [account for account in accounts if account and account != STAFF]
    assert len(named) == len(set(named)) == 10
    assert accounts.count(STAFF) == 33
    assert accounts.count("") == 400 - 33 - 10


def seen(at: float, *, arm: str = "control", fault: str = "", late: float = 0.0) -> Seen:
    return Seen("x", True, arm, 200, at, at + late, at + late + 0.01, "u", fault, "r")  # type: ignore[arg-type]


def test_latency_counts_from_when_a_request_was_due() -> None:
    items = [seen(float(number), late=1.0 if number == 9 else 0.0) for number in range(10)]
    assert latency(items).p99 == pytest.approx(1010.0)
    assert latency(items, from_due=False).p99 == pytest.approx(10.0)
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0


def test_slices_hold_every_request_once_by_arm() -> None:
    record = Record()
    for number in range(10):
        record.add(
            seen(number * 0.24, arm="canary" if number % 2 else "control", fault="x" if number == 3 else "")
        )
    parts = slices(record.seen, width=1.0)
    assert [sum(part.requests.values()) for part in parts] == [5, 4, 1]
    assert sum(part.faults.get("canary", 0) for part in parts) == len(record.faults) == 1
    assert slices([], width=1.0) == []
