"""What counts as the same answer: one small case for each rule."""

import gzip
import json
import zlib
from datetime import date
from typing import Any

import pytest

from strangler_proxy.compare import Comparison, Recorded, Step, Verdict, compare, next_step
from strangler_proxy.compare_json import MOST_DIFFERENCES, What
from strangler_proxy.compare_rules import (
    Compiled,
    Ignore,
    Kind,
    ListRule,
    Order,
    Rules,
    compile_rules,
    ignorable,
    steps,
    template_pattern,
)

TODAY = date(2026, 3, 28)
JSON = (b"Content-Type", b"application/json")


def answer(body: object, *more: tuple[bytes, bytes], status: int = 200, **rest: Any) -> Recorded:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Recorded(status, (JSON, *more), raw, **rest)


def rules(**declared: Any) -> Compiled:
    return compile_rules(Rules("/x/", **declared), today=TODAY)


def json_verdict(left: object, right: object, **declared: Any) -> Verdict:
    return compare(answer(left), answer(right), rules=rules(**declared)).verdict


def only_path(result: Comparison) -> str:
    (difference,) = result.differences
    return difference.path


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        (b'{"a": 1, "b": 2}', b'{"b":2,"a":1}', Verdict.EQUAL),
        (b'["\\u00e9"]', '["é"]'.encode(), Verdict.EQUAL),
        (b'["10.50"]', b'["10.5"]', Verdict.REPRESENTATION),
        (b'["100.00"]', b'["1E+2"]', Verdict.REPRESENTATION),
        (b'["1.00"]', b"[1]", Verdict.REPRESENTATION),
        (b"[1]", b"[1.0]", Verdict.REPRESENTATION),
        (b"[0.3]", b"[0.30000000000000004]", Verdict.REPRESENTATION),
        (b"[0.3]", b"[0.3000001]", Verdict.REAL),
        (b'["10.50"]', b'["10.51"]', Verdict.REAL),
        (b'["0.3"]', b'["0.30000000000000004"]', Verdict.REAL),
        (b"[9007199254740993]", b"[9007199254740992]", Verdict.REAL),
        (b'["007"]', b'["7"]', Verdict.REAL),
        (b"[true]", b"[1]", Verdict.REAL),
        (b"[false]", b"[0]", Verdict.REAL),
        (b"[null]", b'[""]', Verdict.REAL),
        (b'{"a": null}', b"{}", Verdict.REAL),
        (b'["2026-03-29T01:30:00Z"]', b'["2026-03-29T01:30:00+00:00"]', Verdict.REPRESENTATION),
        (b'["2026-07-01T01:30:00+01:00"]', b'["2026-07-01T00:30:00Z"]', Verdict.REPRESENTATION),
        (b'["2026-07-01T01:30:00+01:00"]', b'["2026-07-01T01:30:00Z"]', Verdict.REAL),
        (b'["2026-07-01T01:30:00"]', b'["2026-07-01T01:30:00Z"]', Verdict.REAL),
        (b"[1e400]", b"[1e400]", Verdict.EQUAL),
        (b"[1e9999]", b"[2e9999]", Verdict.REAL),
        (b"[1, 2]", b"[2, 1]", Verdict.REAL),
        (b"[NaN]", b"[1]", Verdict.REAL),
    ],
)
def test_values(left: bytes, right: bytes, verdict: Verdict) -> None:
    assert compare(answer(left), answer(right)).verdict is verdict
    if left != right and b"NaN" not in left:
        assert compare(answer(right), answer(left)).verdict is verdict


@pytest.mark.parametrize(
    ("left", "right", "kind", "verdict"),
    [
        (0.1, 0.1 + 1e-12, Kind.FLOAT, Verdict.EQUAL),
        (1, 1.0, Kind.FLOAT, Verdict.EQUAL),
        (0.3, 0.1 + 0.2, Kind.MONEY, Verdict.REAL),
        ("1.0", "1.00", Kind.MONEY, Verdict.REPRESENTATION),
        ("1.0", "1.00", Kind.TEXT, Verdict.REAL),
        ("2026-07-01T01:30:00+01:00", "2026-07-01T00:30:00Z", Kind.INSTANT, Verdict.EQUAL),
        ("http://a/x?b=1", "https://b:8/x?b=1", Kind.URL, Verdict.EQUAL),
        ("http://a/x?a=1&b=2", "http://a/x?b=2&a=1", Kind.URL, Verdict.REPRESENTATION),
        ("http://a/x", "/x", Kind.URL, Verdict.REAL),
    ],
)
def test_declared_types(left: object, right: object, kind: Kind, verdict: Verdict) -> None:
    assert json_verdict({"a": left}, {"a": right}, types={"$.a": kind}) is verdict


def test_pages_of_an_envelope_are_compared_without_their_host() -> None:
    left = {"next": "http://10.0.0.1:8001/p/?page=2", "previous": None}
    assert json_verdict(left, left | {"next": "http://shop.test/p/?page=2"}) is Verdict.EQUAL
    assert json_verdict(left, left | {"next": "http://shop.test/p/?page=3"}) is Verdict.REAL


def test_another_order_is_one_difference() -> None:
    rows = [{"id": number, "price": number * 3} for number in range(50)]
    result = compare(answer(rows), answer(rows[::-1]))
    assert [item.what for item in result.differences] == [What.ORDER]
    assert only_path(result) == "$"


def test_sets_and_keyed_lists() -> None:
    rows = [{"id": 1, "n": "1.0", "tags": ["a", "b"]}, {"id": 2, "n": "2.0", "tags": []}]
    assert json_verdict([1, 2, 2], [2, 1, 2], lists={"$": ListRule(Order.SET)}) is Verdict.EQUAL
    assert json_verdict([1, 2, 2], [1, 1, 2], lists={"$": ListRule(Order.SET)}) is Verdict.REAL
    assert (
        json_verdict(["1.0", "x"], ["x", "1.00"], lists={"$": ListRule(Order.SET)}) is Verdict.REPRESENTATION
    )
    keyed = {"$": ListRule(Order.KEY, key="id"), "$[].tags": ListRule(Order.SET)}
    assert json_verdict(rows, rows[::-1], lists=keyed) is Verdict.EQUAL
    ordered = {"$": ListRule(Order.KEY, key="id", ordered=True)}
    assert json_verdict(rows, rows[::-1], lists=ordered) is Verdict.REAL
    changed = [rows[1] | {"n": "2.5"}, rows[0]]
    result = compare(answer(rows), answer(changed), rules=rules(lists=keyed))
    assert (only_path(result), result.differences[0].place) == ("$[].n", "$[id=2].n")
    short = compare(answer(rows), answer(rows[:1]), rules=rules(lists=keyed))
    assert [item.what for item in short.differences] == [What.MISSING]


def test_rows_that_tie_may_stand_in_any_order() -> None:
    rows = [{"id": 1, "p": 5}, {"id": 2, "p": 5}, {"id": 3, "p": 7}]
    for rule in (ListRule(sorted_by=("p",)), ListRule(Order.KEY, key="id", sorted_by=("?ordering", "p"))):
        tied = compare(answer(rows), answer([rows[1], rows[0], rows[2]]), rules=rules(lists={"$": rule}))
        assert tied.verdict is Verdict.NOISE
        assert "unstable sort" in tied.differences[0].note
        moved = compare(answer(rows), answer([rows[0], rows[2], rows[1]]), rules=rules(lists={"$": rule}))
        assert moved.verdict is Verdict.REAL
    by_query = compare(
        answer(rows),
        answer([rows[1], rows[0], rows[2]]),
        rules=rules(lists={"$": rule}),
        query="ordering=-id",
    )
    assert by_query.verdict is Verdict.REAL


def test_tied_rows_at_the_edge_of_a_page_must_still_look_alike() -> None:
    rule = {"$": ListRule(Order.KEY, key="id", sorted_by=("p",))}
    rows = [{"id": 1, "p": 5, "n": "a"}, {"id": 2, "p": 7, "n": "b"}]
    other = [rows[0], {"id": 9, "p": 7, "n": "z"}]
    assert json_verdict(rows, other, lists=rule) is Verdict.NOISE
    assert json_verdict(rows, [rows[0], {"id": 9, "p": 7, "n": 4}], lists=rule) is Verdict.REAL
    assert json_verdict(rows, [rows[0], {"id": 9, "p": 7}], lists=rule) is Verdict.REAL
    assert json_verdict(rows, [rows[0], {"id": 9, "p": 8, "n": "z"}], lists=rule) is Verdict.REAL


def test_ignoring_ends() -> None:
    ignore = Ignore("$.a", owner="catalogue team", until=date(2026, 3, 28))
    left, right = answer({"a": 1, "b": 1}), answer({"b": 1})
    active = compile_rules(Rules("/x/", ignores=(ignore,)), today=date(2026, 3, 28))
    assert compare(left, right, rules=active).verdict is Verdict.EQUAL
    after = compile_rules(Rules("/x/", ignores=(ignore,)), today=date(2026, 3, 29))
    assert compare(left, right, rules=after).verdict is Verdict.REAL
    assert after.expired == (ignore,)


def test_what_may_not_be_ignored() -> None:
    for path in ("$", "$.*", "$[]", "$[].*", "status", "body"):
        with pytest.raises(ValueError, match=r"cover|nothing"):
            ignorable(path)
    for path in ("a.b", "$a", "$.a[0]", "$..a"):
        with pytest.raises(ValueError, match="no path"):
            steps(path)
    ignorable("header:vary")
    ignorable("$.*.id")


def test_templates() -> None:
    pattern = template_pattern("/api/products/{slug}/")
    assert pattern.fullmatch("/api/products/oak-lamp/")
    assert not pattern.fullmatch("/api/products/a/b/")
    assert not pattern.fullmatch("/api/products//")


# Noise


def settle(left: object, right: object, again: object, **declared: Any) -> Comparison:
    return compare(answer(left), answer(right), again=answer(again), rules=rules(**declared))


def test_noise_is_where_the_control_differs_from_itself() -> None:
    result = settle({"id": "f" * 24, "n": 1}, {"id": "a1" * 12, "n": 1}, {"id": "0" * 24, "n": 1})
    assert result.verdict is Verdict.NOISE
    result = settle({"id": "f" * 24, "n": 1}, {"id": "a1" * 12, "n": 2}, {"id": "0" * 24, "n": 1})
    assert result.verdict is Verdict.REAL
    assert {item.path for item in result.differences if item.weight.value == "real"} == {"$.n"}


@pytest.mark.parametrize(
    "candidate",
    [{}, {"at": None}, {"at": 1}, {"at": ""}, {"at": "soon"}, {"at": "2026-03-28T11:00:02Z"},
     {"at": "2026-03-28T10:00:02+00:00"}],
)  # fmt: skip
def test_a_noisy_moment_must_be_one_and_now(candidate: object) -> None:
    result = settle({"at": "2026-03-28T10:00:01Z"}, candidate, {"at": "2026-03-28T10:00:03Z"})
    assert result.verdict is Verdict.REAL
    assert settle(
        {"at": "2026-03-28T10:00:01Z"}, {"at": "2026-03-28T10:00:02.5Z"}, {"at": "2026-03-28T10:00:03Z"}
    ).verdict is Verdict.NOISE  # fmt: skip


@pytest.mark.parametrize(("value", "verdict"), [
    (7, Verdict.NOISE), (150, Verdict.NOISE), (-1, Verdict.REAL), (1.5, Verdict.REAL), (10_000, Verdict.REAL),
    ("7", Verdict.REAL), (True, Verdict.REAL),
])  # fmt: skip
def test_a_noisy_number_must_be_of_the_controls_order(value: object, verdict: Verdict) -> None:
    assert settle({"views": 100}, {"views": value}, {"views": 103}).verdict is verdict


def test_a_candidate_that_is_ahead_is_no_fault() -> None:
    result = settle({"price": 1}, {"price": 2}, {"price": 2})
    assert (result.verdict, result.reason) == (Verdict.NOISE, "the data changed meanwhile")


def test_a_control_that_cannot_make_up_its_mind_judges_nobody() -> None:
    many = [
        {f"k{n}": n for n in range(30)},
        {f"k{n}": n + 1 for n in range(30)},
        {f"k{n}": n + 2 for n in range(30)},
    ]
    assert settle(*many).verdict is Verdict.NOT_COMPARED
    gone = compare(answer({"a": 1}), answer({"a": 2}), again=answer({}, status=404))
    assert gone.verdict is Verdict.NOT_COMPARED
    assert "status" in gone.reason


def test_the_order_of_a_control_that_shuffles_is_noise_but_its_elements_are_not() -> None:
    assert settle([1, 2, 3], [3, 1, 2], [2, 1, 3]).verdict is Verdict.NOISE
    assert settle([1, 2, 3], [3, 1, 4], [2, 1, 3]).verdict is Verdict.REAL


# Staleness


def test_a_candidate_behind_the_control_is_stale_until_it_has_caught_up() -> None:
    control = answer({"price": 2}, position=200)
    behind = compare(control, answer({"price": 1}, position=199))
    assert behind.verdict is Verdict.STALE
    assert next_step(behind, waited=False, asked_again=False) is Step.CANDIDATE_LATER
    assert next_step(behind, waited=True, asked_again=False) is Step.DONE
    assert compare(control, answer({"price": 2}, position=199)).verdict is Verdict.EQUAL
    wrong = compare(control, answer({"price": 1}, position=200))
    assert wrong.verdict is Verdict.REAL
    assert next_step(wrong, waited=True, asked_again=False) is Step.CONTROL_AGAIN
    assert next_step(wrong, waited=True, asked_again=True) is Step.DONE
    assert compare(control, answer({"price": 1})).verdict is Verdict.REAL  # it does not say how far it is


# Errors, and what cannot be compared


def test_errors() -> None:
    good = answer({})
    assert compare(good, answer({}, status=500)).verdict is Verdict.CANDIDATE_ERROR
    assert compare(good, Recorded(0, failure="timeout")).reason == "timeout"
    assert compare(good, answer({}, wrote=True)).reason == "wrote in shadow"
    assert compare(answer({}, status=502), good).verdict is Verdict.NOT_COMPARED
    assert compare(Recorded(0, failure="reset"), good).reason == "control: reset"
    again = compare(good, answer({"a": 1}), again=answer({}, status=503))
    assert again.verdict is Verdict.NOT_COMPARED


def test_content_codings() -> None:
    body = json.dumps({"a": 1}).encode()
    for coding, coded in ((b"gzip", gzip.compress(body)), (b"deflate", zlib.compress(body))):
        assert compare(answer(body), answer(coded, (b"Content-Encoding", coding))).verdict is Verdict.EQUAL
        broken = compare(answer(body), answer(coded[:-9], (b"Content-Encoding", coding)))
        assert broken.reason == "broken content-encoding"
    assert compare(answer(body), answer(body, (b"Content-Encoding", b"br"))).reason == "content-encoding br"
    bomb = gzip.compress(b"0" * 50_000_000)
    assert compare(answer(body), answer(bomb, (b"Content-Encoding", b"gzip"))).reason == "too large"
    assert compare(answer(body), answer(b"{", cut=True)).reason == "too large"


def test_the_work_is_bounded() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    assert compare(answer(deep), answer(b"[]")).reason == "too deep"
    nested = b"[" * 100 + b"%d" + b"]" * 100
    assert compare(answer(nested % 1), answer(nested % 2)).reason == "too deep"
    many = compare(answer(list(range(5000))), answer(list(range(1, 5001))))
    assert len(many.differences) == MOST_DIFFERENCES


def test_bodies_that_are_no_json() -> None:
    html = (b"Content-Type", b"text/html; charset=utf-8")
    page = b'<input name="csrfmiddlewaretoken" value="%b">\n<b>%b</b>'
    one = Recorded(200, (html,), page % (b"x" * 64, b"10"))
    assert compare(one, Recorded(200, (html,), page % (b"y" * 64, b"10"))).verdict is Verdict.EQUAL
    other = compare(one, Recorded(200, (html,), page % (b"y" * 64, b"11")))
    assert (other.verdict, other.differences[0].note) == (Verdict.REAL, "from line 2 on")
    assert compare(answer({}), answer(b"{")).differences[0].note == "no JSON"
    assert compare(answer({}), answer(b"")).verdict is Verdict.REAL
    assert compare(answer(b""), answer(b"x"), head=True).verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("name", "left", "right", "verdict"),
    [
        (b"Content-Type", b"application/json", b"application/json; charset=utf-8", Verdict.REPRESENTATION),
        (b"Content-Type", b"text/plain", b"application/json", Verdict.REAL),
        (b"Location", b"http://a/x/", b"https://b/x/", Verdict.EQUAL),
        (b"Location", b"/x/", b"/x", Verdict.REAL),
        (b"Vary", b"Accept, Cookie", b"cookie,accept", Verdict.EQUAL),
        (b"Vary", b"Accept, Cookie", b"accept", Verdict.REAL),
        (b"Cache-Control", b"max-age=0, private", b"private, max-age=0", Verdict.EQUAL),
        (b"Set-Cookie", b"s=1; Path=/; HttpOnly; Expires=Mon", b"s=2; HttpOnly; Path=/; Expires=Tue", Verdict.EQUAL),
        (b"Set-Cookie", b"s=1; Path=/; HttpOnly", b"s=1; Path=/", Verdict.REAL),
        (b"Set-Cookie", b"s=1; Path=/", b"t=1; Path=/", Verdict.REAL),
        (b"Content-Security-Policy", b"script-src 'nonce-a'", b"script-src 'nonce-b'", Verdict.EQUAL),
        (b"Content-Security-Policy", b"script-src 'self'", b"script-src *", Verdict.REAL),
        (b"Server", b"gunicorn", b"uvicorn", Verdict.EQUAL),
        (b"X-Total", b"1", b"2", Verdict.REAL),
    ],
)  # fmt: skip
def test_headers(name: bytes, left: bytes, right: bytes, verdict: Verdict) -> None:
    declared = rules(headers=("x-total",))
    one, other = Recorded(200, ((name, left),)), Recorded(200, ((name, right),))
    assert compare(one, other, rules=declared).verdict is verdict
    place = f"header:{name.decode().lower()}" + (":s" if name == b"Set-Cookie" else "")
    if verdict is Verdict.REAL and b"t=" not in right:
        gone = compare(one, Recorded(200), rules=declared)
        assert gone.differences[0].path == place
    hidden = rules(headers=("x-total",), ignores=(Ignore(f"header:{name.decode().lower()}", "me", TODAY),))
    assert compare(one, other, rules=hidden).verdict is Verdict.EQUAL


def test_validation_may_be_one_class() -> None:
    left = answer({"qty": ["bad"]}, status=400)
    right = answer({"detail": []}, status=422)
    assert compare(left, right).verdict is Verdict.REAL
    assert compare(left, right, rules=rules(validation_by_class=True)).verdict is Verdict.EQUAL
    assert (
        compare(left, answer({}, status=404), rules=rules(validation_by_class=True)).verdict is Verdict.REAL
    )


def test_what_is_plausible_is_judged_by_all_that_the_control_says_there() -> None:
    """Rows that moved, because a price changed: the value of another row is no fault of form."""

    def rows(*order: int) -> list[dict[str, object]]:
        known = {
            1: {"at": "2025-01-01T00:00:00Z", "n": 1, "name": "one"},
            2: {"at": "2026-03-28T10:00:00Z", "n": 5, "name": "two words"},
            3: {"at": "2020-03-28T10:00:00Z", "n": 900, "name": "three"},
        }
        return [known[number] for number in order]

    changed = [rows(1)[0], rows(2)[0] | {"at": "2026-03-28T10:00:09Z", "n": 6}, rows(3)[0]]
    later = [
        rows(1)[0],
        rows(3)[0],
        rows(2)[0] | {"at": "2026-03-28T10:00:19Z", "n": 950, "name": "two words"},
    ]
    result = settle(rows(1, 2, 3), changed, later)
    assert result.verdict is Verdict.NOISE, result.differences
    assert settle(rows(1, 2, 3), [{}, *changed[1:]], later).verdict is Verdict.REAL
