"""Shoppers who look at the storefront's pages: the real pages, link by link."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from workshop.traffic.client import Answer
from workshop.traffic.journeys import Step
from workshop.traffic.pages import links, searches_of, stroll

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(settings: Settings, drawings: Path) -> Client:
    """A visitor of a small shop."""
    settings.MEDIA_ROOT = drawings
    call_command("seed_shop", products=60, users=5, orders=5, password="pw", stdout=StringIO())
    return Client()


def walked(shop: Client, *, seed: int) -> Sequence[tuple[Step, Answer]]:
    """A whole stroll: each step with the shop's answer."""
    walk, seen = stroll(Random(seed)), []
    step: Step | None = next(walk)
    while step is not None:
        response = shop.get(step.path)
        answer = Answer(response.status_code, (), response.content)
        seen.append((step, answer))
        try:
            step = walk.send(answer)
        except StopIteration:
            step = None
    return seen


def test_strolls_lead_through_the_whole_shop_and_meet_no_fault(shop: Client) -> None:
    kinds: set[str] = set()
    for seed in range(15):
        seen = walked(shop, seed=seed)
        assert seen[0][0].path == "/"
        assert 3 <= len(seen) <= 5
        for step, answer in seen:
            assert step.fault(answer) == "", step.path
            assert step.method == "GET"
            kinds.add(step.path.split("/")[1])
    assert {"", "category", "product", "search"} <= kinds
    assert not kinds & {"cart", "checkout", "account", "orders", "admin", "api"}


def test_a_search_is_for_a_word_of_the_page_and_finds_something(shop: Client) -> None:
    listed = Answer(200, (), shop.get("/products/").content)
    ways = searches_of(listed)
    assert ways
    assert all(way.startswith("/search/?q=") for way in ways)
    found = Answer(200, (), shop.get(ways[-1]).content)
    assert any(way.startswith("/product/") for way in links(found))


def test_a_page_that_is_broken_is_noticed(shop: Client) -> None:
    step = next(stroll(Random(1)))
    whole = shop.get("/").content
    assert step.fault(Answer(200, (), whole)) == ""
    assert "not a whole page" in step.fault(Answer(200, (), whole[: len(whole) // 2]))
    assert "500" in step.fault(Answer(500, (), whole))
