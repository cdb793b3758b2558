"""What is drawn, when comparing pauses, what is counted, and what the routes file may say."""

import math
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from chassis.problems import InvalidFileError
from strangler_proxy.compare import Comparison, Verdict
from strangler_proxy.compare_json import ABSENT, Difference, Weight, What
from strangler_proxy.compare_rules import Kind, ListRule, Order, Rules
from strangler_proxy.comparisons import Comparisons, Occasion, Recorder, rate_at_most, redacted
from strangler_proxy.routes import parse_routes
from strangler_proxy.shadow_policy import (
    FIRST_TAKEN,
    LatencyWatch,
    Sampler,
    Shadow,
    Templates,
    lsn_of,
    query_shape,
)

ROUTES = """\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:1"}}
  catalog: {{url: "http://127.0.0.1:2"}}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: [/api/*]
    percent: 0
    shadow:
{shadow}
"""


def section(text: str) -> Shadow | None:
    indented = "\n".join(f"      {line}" for line in text.strip().splitlines())
    return parse_routes(ROUTES.format(shadow=indented).encode(), "routes.yaml").groups["catalog"].shadow


# The draw


@pytest.mark.parametrize("percent", [1.0, 25.0])
def test_the_draw_is_the_percentage_and_the_same_for_the_same_request(percent: float) -> None:
    one, other = Sampler(percent), Sampler(percent)
    drawn = [one.takes("list", b"request %d" % number) for number in range(20_000)]
    assert [other.takes("list", b"request %d" % number) for number in range(20_000)] == drawn
    deviation = math.sqrt(20_000 * percent / 100 * (1 - percent / 100))
    assert abs(sum(drawn) - 20_000 * percent / 100) < 5 * deviation + FIRST_TAKEN


def test_the_first_of_each_kind_are_taken_however_many_kinds_a_client_invents() -> None:
    sampler = Sampler(0.001)
    taken = Counter(number for number in range(5000) for _ in range(2) if sampler.takes(f"{number}", b"x"))
    assert 1000 < len(taken) < 1100
    assert not Sampler(0).takes("a", b"x")


def test_comparing_pauses_while_the_control_is_slower_than_usual() -> None:
    watch = LatencyWatch()

    def window(seconds: float) -> bool:
        for _ in range(64):
            watch.answered(seconds)
        return watch.strained

    assert not any(window(0.020) for _ in range(5))
    assert not window(0.035)
    assert window(0.060)
    assert not window(0.020)
    quick = LatencyWatch()
    watch = quick
    assert not window(0.001)
    assert not window(0.009)  # nine times as slow, and still nothing anybody notices


def test_paths_are_counted_under_their_template_or_the_groups_pattern() -> None:
    templates = Templates(
        (Rules("/api/items/{id}/"), Rules("/api/items/new/")), ("/api/*", "/api/items/*", "/x")
    )
    assert templates.of("/api/items/7/") == "/api/items/{id}/"
    assert templates.of("/api/items/7/reviews/") == "/api/items/*"
    assert templates.of("/api/other") == "/api/*"
    assert templates.of("/x") == "/x"
    assert query_shape("b=1&a=2&b=3&&") == "a&b"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0/16B3748", 0x16B3748),
        (b"1/0", 1 << 32),
        (b"", None),
        (b"0/", None),
        (b"x/1", None),
        (b"0/1 ", None),
    ],
)
def test_positions(text: bytes, number: int | None) -> None:
    assert lsn_of(text) == number


# Counts


def test_the_bound_on_the_rate() -> None:
    assert rate_at_most(0, 0) is None
    zero = rate_at_most(0, 3000)
    assert zero is not None
    assert abs(zero - 2.9957 / 3000) < 1e-6  # the rule of three
    five = rate_at_most(5, 1000)
    assert five is not None
    assert abs(five - 10.513 / 1000) < 1e-5  # chi-square quantile 0.95 with 12 degrees, halved
    many = rate_at_most(2000, 10_000)
    assert many is not None
    assert 0.2 < many < 0.21
    assert rate_at_most(3, 3) == 1.0


@pytest.mark.parametrize(
    "value", ["secret", b"secret", Decimal("12.34"), ["secret"], {"secret": 1}, None, True, ABSENT]
)
def test_a_redacted_value_tells_what_it_is_and_not_what_it_says(value: object) -> None:
    told = redacted(value, b"key")
    assert told == redacted(value, b"key")
    assert "secret" not in told
    assert "12.34" not in told
    if isinstance(value, str | bytes | Decimal):
        assert told != redacted(value, b"another key")


def test_sums_of_workers_add_up_and_keep_the_latest_example_of_each_place() -> None:
    sums = Comparisons()
    for worker in range(2):
        recorder = Recorder(b"key")
        for number in range(3):
            occasion = Occasion(
                "g", "/t/", "GET", "/t/?user=1", f"id-{worker}-{number}", at_ns=worker * 10 + number
            )
            difference = Difference("$.a", "$.a", What.VALUE, Weight.REAL, "x", "y")
            recorder.compared(Comparison(Verdict.REAL, (difference,)), occasion, full=False)
            recorder.compared(Comparison(Verdict.EQUAL), occasion, full=False)
            recorder.not_compared(occasion, f"content-encoding {number}")
        recorder.dropped("g", "concurrency")
        wire = recorder.drain()
        assert wire is not None
        assert recorder.drain() is None
        sums.add(wire)
    found: dict[str, Any] = sums.as_json(["g", "h"])["g"]
    assert (found["verdicts"]["real"], found["verdicts"]["equal"], found["compared"]) == (6, 6, 12)
    assert found["dropped"] == {"concurrency": 2}
    assert sum(found["not_compared"].values()) == 6
    (example,) = found["examples"]
    assert example["request_id"] == "id-1-2"
    assert "user=1" not in str(found)
    assert sums.as_json(["g", "h"])["h"]["real_rate_at_most"] is None


# The section


def test_the_section_as_it_is_written() -> None:
    shadow = section("""
percent: 2.5
patience: 250
rules:
  /api/products/:
    lists:
      $.results: {key: id, sorted_by: ["?ordering", -created_at]}
      $.results[].tags: set
    types: {"$.results[].price": money}
    headers: [X-Total-Count]
    validation: class
    ignore: [{path: $.served_at, owner: me, until: 2027-01-31}]
""")
    assert shadow is not None
    assert (shadow.percent, shadow.patience, shadow.full_examples) == (2.5, 0.25, False)
    (rules,) = shadow.rules
    assert rules.lists == {
        "$.results": ListRule(Order.KEY, "id", ("?ordering", "-created_at")),
        "$.results[].tags": ListRule(Order.SET),
    }
    assert rules.types == {"$.results[].price": Kind.MONEY}
    assert (rules.headers, rules.validation_by_class) == (("x-total-count",), True)
    assert rules.ignores[0].until.isoformat() == "2027-01-31"
    assert section("percent: 0") is None


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("percent: 101", 12, "less than or equal to 100"),
        ("percent: 1\nevery: 2", 13, "every"),
        ("percent: 1\nrules: {/a/: {lists: {results: set}}}", 13, "is no path"),
        ("percent: 1\nrules: {/a/: {lists: {$.a: {key: id, order: set}}}}", 13, "a set has neither"),
        ("percent: 1\nrules: {/a/: {lists: {$.a: sorted}}}", 13, "write set"),
        ("percent: 1\nrules: {/a/: {types: {$.a: decimal}}}", 13, "money"),
        ("percent: 1\nrules: {/a/: {ignore: [{path: $.*, owner: me, until: 2027-01-01}]}}", 13, "whole body"),
        ("percent: 1\nrules: {/a/: {ignore: [{path: $.a, until: 2027-01-01}]}}", 13, "owner"),
        ("percent: 1\nrules: {/a/: {ignore: [{path: $.a, owner: me, until: soon}]}}", 13, "until is a day"),
        ("percent: 1\nrules: {/a/*: {}}", 13, "no query, no"),
        ("percent: 1\nrules: {'/a/x{id}/': {}}", 13, "one whole segment"),
    ],
)
def test_faults_are_named_by_line(text: str, line: int, part: str) -> None:
    with pytest.raises(InvalidFileError) as refused:
        section(text)
    (problem,) = refused.value.problems
    assert problem.line == line
    assert part in f"{problem.field} {problem.message} {problem.remedy}"
