"""The rules of an answer made of several."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.gateway.aggregate import Part, PartAnswer, merge, strictest, target_of


def part(name: str, *, required: bool = False, pass_query: bool = False, target: bytes = b"/") -> Part:
    return Part(name, target, required, 1.0, 1000, pass_query)


def test_bodies_are_passed_on_byte_for_byte() -> None:
    body = b' {"price": 1.10, "big": 12345678901234567890123, "e": "\\u00e9"} '
    whole = merge([part("a"), part("b")], [PartAnswer(200, (), body), PartAnswer(204)])
    assert whole.status == 200
    assert whole.body == b'{"a":%b,"b":null,"_errors":{}}' % body.strip()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (PartAnswer(404, (), b"{}"), {"status": 404, "reason": "Not Found"}),
        (PartAnswer(301, (), b""), {"status": 301, "reason": "Moved Permanently"}),
        (PartAnswer(599, (), b""), {"status": 599, "reason": "unknown status"}),
        (PartAnswer(504, reason="late"), {"status": 504, "reason": "late"}),
        (PartAnswer(200, (), b"<html>"), {"status": 502, "reason": "the answer is not JSON"}),
        (PartAnswer(200, (), b""), {"status": 502, "reason": "the answer is not JSON"}),
        (PartAnswer(200, (), b'{"a": NaN}'), {"status": 502, "reason": "the answer is not JSON"}),
        (PartAnswer(200, (), b'"\xff"'), {"status": 502, "reason": "the answer is not JSON"}),
        (PartAnswer(200, (), b"[" * 100_000), {"status": 502, "reason": "the answer is not JSON"}),
        (PartAnswer(200, (), b'1,"x":2'), {"status": 502, "reason": "the answer is not JSON"}),
    ],
)
def test_a_failed_part_is_null_and_says_why(answer: PartAnswer, error: dict[str, object]) -> None:
    good = PartAnswer(200, [(b"Cache-Control", b"public, max-age=60")], b"1")
    whole = merge([part("good", required=True), part("bad")], [good, answer])
    assert whole.status == 200
    assert json.loads(whole.body) == {"good": 1, "bad": None, "_errors": {"bad": error}}
    assert b"Cache-Control: no-store\r\n" in whole.lines
    assert merge([part("good"), part("bad", required=True)], [good, answer]).status == 502


@given(
    st.lists(st.one_of(st.binary(), st.sampled_from([b"1", b"{}", b'"}"', b"[]"])), min_size=1, max_size=4)
)
def test_whatever_parts_say_the_whole_is_json(bodies: list[bytes]) -> None:
    parts = [part(f"p{number}") for number in range(len(bodies))]
    whole = json.loads(merge(parts, [PartAnswer(200, (), body) for body in bodies]).body)
    assert list(whole) == [*(each.name for each in parts), "_errors"]


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (["max-age=60", "max-age=10"], "max-age=10"),
        (["public, max-age=60", "public, max-age=70"], "public, max-age=60"),
        (["public, max-age=60", "max-age=70"], "max-age=60"),
        (["public, s-maxage=5, max-age=60"], "public, max-age=5"),
        (["max-age=60", "private, max-age=70"], "private, max-age=60"),
        (["max-age=60", 'private="Set-Cookie", max-age=70'], "private, max-age=60"),
        (["max-age=60", "no-store"], "no-store"),
        (["MAX-AGE=60", "No-Store"], "no-store"),
        (["max-age=60", "no-cache"], "no-cache"),
        (["max-age=60", "private"], "private, no-cache"),
        (["max-age=60", ""], "no-cache"),
        (["max-age=60, must-revalidate", "max-age=70"], "max-age=60, must-revalidate"),
        (["max-age=-1", "max-age=70"], "no-cache"),
    ],
)
def test_the_strictest_part_decides_on_caching(values: list[str], whole: str) -> None:
    assert (
        strictest([[(b"cache-control", value.encode())] if value else [] for value in values])
        == whole.encode()
    )


def test_a_part_that_comes_from_a_cache_has_less_time_left() -> None:
    headers = [(b"Cache-Control", b"max-age=60"), (b"Age", b"45")]
    assert strictest([headers, [(b"Cache-Control", b"max-age=50")]]) == b"max-age=15"


def test_cookies_and_vary_of_all_parts_are_kept_each_once() -> None:
    one = [(b"Set-Cookie", b"a=1; Path=/"), (b"Vary", b"Cookie, Accept"), (b"Set-Cookie", b"b=1")]
    two = [(b"set-cookie", b"a=2; HttpOnly; path=/"), (b"vary", b"cookie"), (b"Set-Cookie", b"a=3; Path=/x")]
    whole = merge([part("a"), part("b")], [PartAnswer(200, one, b"1"), PartAnswer(500, two)])
    cookies = [line for line in whole.lines if line.startswith(b"Set-Cookie")]
    assert cookies == [
        b"Set-Cookie: b=1\r\n", b"Set-Cookie: a=2; HttpOnly; path=/\r\n", b"Set-Cookie: a=3; Path=/x\r\n",
    ]  # fmt: skip
    assert b"Vary: Cookie, Accept\r\n" in whole.lines


def test_the_query_goes_to_parts_that_ask_for_it() -> None:
    assert target_of(part("a", target=b"/x"), b"q=1") == b"/x"
    assert target_of(part("a", target=b"/x", pass_query=True), b"q=1") == b"/x?q=1"
    assert target_of(part("a", target=b"/x?n=4", pass_query=True), b"q=1") == b"/x?n=4&q=1"
    assert target_of(part("a", target=b"/x", pass_query=True), b"") == b"/x"
