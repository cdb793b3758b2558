"""What a shared cache may keep and serve: RFC 9111, rule by rule."""

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from chassis.problems import InvalidFileError
from strangler_proxy.gateway.cache_store import CacheStore
from strangler_proxy.gateway.rfc9111 import (
    CachePolicy,
    Stored,
    Wish,
    age_of,
    conditions,
    directives,
    freshened,
    lifetime_of,
    meaningful_cookies,
    not_modified,
    selecting,
    stored_of,
    wish_of,
)
from strangler_proxy.headers import RawHeaders
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import routes_text

WALL = 1_800_000_000.0
SILENT = CachePolicy(fresh=5.0)


def headers(text: str) -> list[tuple[bytes, bytes]]:
    pairs = (line.split(": ", 1) for line in text.split(" | ") if line)
    return [(name.encode(), value.encode()) for name, value in pairs]


def http_date(at: float) -> str:
    return formatdate(at, usegmt=True)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Cache-Control: max-age=60", 60),
        ("Cache-Control: MAX-AGE=60", 60),
        ("Cache-Control: max-age=60, s-maxage=10", 10),
        ('Cache-Control: max-age="60"', 60),
        ("Cache-Control: max-age=60 | Cache-Control: max-age=5", 5),
        ("Cache-Control: max-age=-1", 0),
        ("Cache-Control: max-age=1.5", 0),
        ("Cache-Control: max-age=99999999999999", 2**31),
        ("Cache-Control: public", 0),
        ("Cache-Control: no-store, max-age=60", 0),
        ("Cache-Control: private, max-age=60", 0),
        ('Cache-Control: private="x", max-age=60', 0),
        ("Cache-Control: no-cache, max-age=60", 0),
        ("Cache-Control: max-age=60 | Set-Cookie: a=b", 0),
        ("Cache-Control: max-age=60 | Vary: Accept, *", 0),
        (f"Expires: {http_date(WALL + 30)} | Date: {http_date(WALL)}", 30),
        (f"Expires: {http_date(WALL + 30)}", 30),
        (f"Expires: {http_date(WALL - 30)} | Date: {http_date(WALL)}", 0),
        (f"Expires: {http_date(WALL + 30)} | Cache-Control: max-age=5", 5),
        ("Expires: 0", 0),
        ("Expires: soon", 0),
        ("", 5),  # the policy's own word for a silent answer
        (f"Last-Modified: {http_date(WALL - 1e6)}", 5),  # no heuristics
    ],
)
def test_how_long_an_answer_is_fresh(said: str, seconds: float) -> None:
    assert lifetime_of(200, headers(said), SILENT, wall=WALL) == seconds


def test_only_some_statuses_are_kept_and_a_policys_word_is_for_200_alone() -> None:
    for status in (201, 206, 302, 304, 400, 401, 403, 500, 503):
        assert lifetime_of(status, headers("Cache-Control: max-age=60"), SILENT, wall=WALL) == 0
    assert lifetime_of(404, headers("Cache-Control: max-age=60"), SILENT, wall=WALL) == 60
    assert lifetime_of(404, [], SILENT, wall=WALL) == 0
    assert lifetime_of(200, [], CachePolicy(), wall=WALL) == 0


def test_age_is_the_greater_of_what_is_said_and_what_is_seen() -> None:
    assert age_of(headers("Age: 10"), wall=WALL, waited=2) == 12
    assert age_of(headers(f"Date: {http_date(WALL - 20)} | Age: 10"), wall=WALL, waited=2) == 20
    assert age_of(headers(f"Date: {http_date(WALL + 20)}"), wall=WALL, waited=2) == 2
    assert age_of([], wall=WALL, waited=0) == 0


@pytest.mark.parametrize(
    "said",
    [
        "Authorization: Bearer x",
        "Range: bytes=0-1",
        'If-Match: "a"',
        'If-Range: "a"',
        "If-Unmodified-Since: x",
        "Upgrade: websocket",
    ],
)
def test_requests_that_are_none_of_a_caches_business(said: str) -> None:
    assert wish_of(b"GET", headers(said), b"") is None


def test_what_a_request_wishes() -> None:
    assert wish_of(b"POST", [], b"") is None
    assert wish_of(b"GET", [], b"sessionid=1") is None
    assert wish_of(b"HEAD", [], b"") == Wish()
    assert wish_of(b"GET", headers("Pragma: no-cache"), b"") == Wish(no_cache=True)
    said = headers("Cache-Control: max-age=5, min-fresh=3, only-if-cached")
    assert wish_of(b"GET", said, b"") == Wish(max_age=5, min_fresh=3, only_if_cached=True)


def test_cookies_that_mean_nothing_are_left_out() -> None:
    ignored = frozenset({b"strangler_id", b"_ga"})
    assert meaningful_cookies(b"strangler_id=1; _ga=2", ignored) == b""
    assert meaningful_cookies(b"_ga=2;sessionid=3; x", ignored) == b"sessionid=3; x"
    assert meaningful_cookies(b"_gat=2", ignored) == b"_gat=2"


def keep(said: str, *, request: RawHeaders = (), **changes: Any) -> Stored | None:
    values: dict[str, Any] = {
        "status": 200, "reason": b"OK", "headers": headers(said), "request": request, "cookies": b"",
        "policy": SILENT, "now": 100.0, "wall": WALL, "waited": 0.0,
    }  # fmt: skip
    return stored_of(**values | changes)


def kept(said: str, **changes: Any) -> Stored:
    stored = keep(said, **changes)
    assert stored is not None
    return stored


def test_an_answer_is_served_while_fresh_and_as_the_client_wishes() -> None:
    stored = kept("Cache-Control: max-age=10 | Age: 3")
    assert stored.lines == (b"Cache-Control: max-age=10\r\n",)  # the Age is told anew each time
    assert stored.age_at(104.0) == 7
    assert stored.fresh_for(Wish(), 106.9)
    assert not stored.fresh_for(Wish(), 107.0)
    assert not stored.fresh_for(Wish(no_cache=True), 100.0)
    assert not stored.fresh_for(Wish(max_age=4), 102.0)
    assert not stored.fresh_for(Wish(min_fresh=7), 100.0)
    assert stored.stale_for(Wish(), 108.0, stale=2)
    assert not stored.stale_for(Wish(), 109.0, stale=2)
    assert not stored.stale_for(Wish(max_age=100), 108.0, stale=2)
    assert keep("Cache-Control: max-age=10 | Age: 10") is None


def test_variants_are_told_apart_by_what_vary_names() -> None:
    stored = kept("Vary: Accept, Cookie", request=headers("accept: a"), cookies=b"")
    assert stored.vary == ((b"accept", b"a"), (b"cookie", b""))
    names = [name for name, _ in stored.vary]
    assert selecting(headers("Accept:  a"), names, b"") == stored.vary
    assert selecting(headers("Accept: b"), names, b"") != stored.vary
    assert selecting(headers("Accept: a"), names, b"x=1") != stored.vary


def test_a_client_that_has_the_answer_is_told_so() -> None:
    stored = kept('ETag: W/"a" | Last-Modified: then')
    for tags in (b'"a"', b'W/"a"', b'"b", "a"', b"*"):
        assert not_modified(stored, Wish(tags=tags, since=b"other"))
    assert not not_modified(stored, Wish(tags=b'"b"', since=b"then"))
    assert not_modified(stored, Wish(since=b"then"))
    assert not not_modified(stored, Wish(since=b"later"))
    assert conditions(stored) == {b"If-None-Match": b'W/"a"'}
    assert conditions(kept("Last-Modified: then")) == {b"If-Modified-Since": b"then"}
    assert conditions(kept("ETag: broken")) == {}


def test_a_304_freshens_what_is_stored() -> None:
    old = replace(kept('ETag: "a" | X-Kept: 1 | Cache-Control: max-age=1'), body=b"body")
    new = freshened(old, kept("Cache-Control: max-age=60", now=200.0))
    assert (new.body, new.etag, new.lifetime, new.at) == (b"body", b'"a"', 60, 200.0)
    assert new.lines == (b'ETag: "a"\r\n', b"X-Kept: 1\r\n", b"Cache-Control: max-age=60\r\n")


def test_directives_survive_what_people_write() -> None:
    assert directives([b'a, b=1 , c="x, no-store" ,,=', b"d"]) == {
        b"a": b"",
        b"b": b"1",
        b"c": b"x, no-store",
        b"d": b"",
    }


def any_variant(_stored: Stored) -> bool:
    return True


def test_the_store_is_bounded_and_forgets_the_unused_first() -> None:
    one = replace(kept(""), body=b"x" * 1000)
    store = CacheStore(room=one.size * 2)
    for name in (b"a", b"b"):
        assert store.put((name,), one, epoch=0)
    assert store.find((b"a",), any_variant)
    assert store.put((b"c",), one, epoch=0)
    assert [store.find((name,), any_variant) is not None for name in (b"a", b"b", b"c")] == [
        True,
        False,
        True,
    ]
    assert store.used == one.size * 2
    assert not store.put((b"d",), replace(one, body=b"x" * 5000), epoch=0)


def test_the_store_keeps_one_answer_a_variant_and_few_variants() -> None:
    store = CacheStore(room=1_000_000)
    for number in range(20):
        for body in (b"old", b"new"):
            store.put((b"a",), replace(kept(""), vary=((b"accept", b"%d" % number),), body=body), epoch=0)
    assert len(store) == 8
    found = store.find((b"a",), lambda stored: stored.vary == ((b"accept", b"19"),))
    assert found is not None
    assert found.body == b"new"


def test_what_was_asked_for_before_the_store_was_emptied_is_not_kept() -> None:
    store = CacheStore(room=100_000)
    epoch = store.epoch
    store.clear()
    assert not store.put((b"a",), kept(""), epoch=epoch)
    assert store.put((b"a",), kept(""), epoch=store.epoch)
    store.clear()
    assert (len(store), store.used) == (0, 0)


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("{fresh: -1}", "greater than or equal to 0"),
        ("{room: 100000, largest: 200000}", "largest is more than room"),
        ("{ignore_cookies: [sessionid]}", "who somebody is"),
        ("{tables: ['a;b']}", "schema.table"),
        ("{forever: true}", "forever"),
    ],
)
def test_a_faulty_section_is_refused_with_its_place(cache: str, words: str) -> None:
    with pytest.raises(InvalidFileError) as raised:
        parse_routes(routes_text(1, 2, group=f"cache: {cache}"), "routes.yaml")
    (problem,) = raised.value.problems
    assert problem.line
    assert words in f"{problem.field} {problem.message}"


def test_groups_are_found_by_their_tables() -> None:
    routes = parse_routes(routes_text(1, 2, group="cache: {tables: [product, other.stock]}"), "routes.yaml")
    for tables in (["product"], ["public.product"], ["other.stock", "x"]):
        assert routes.groups_with(tables=tables, names=[]) == ["catalog"]
    assert routes.groups_with(tables=["stock"], names=["monolith"]) == []
    assert routes.groups_with(tables=[], names=["catalog"]) == ["catalog"]


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("Cache-Control: max-age=1", True),
        ("Cache-Control: max-age=1, must-revalidate", False),
        ("Cache-Control: max-age=1, proxy-revalidate", False),
        ("Cache-Control: s-maxage=1", False),  # it says proxy-revalidate too (§5.2.2.10)
    ],
)
def test_a_stale_answer_is_served_only_where_its_sender_allows_it(said: str, allowed: bool) -> None:
    stored = kept(said, now=0.0)
    assert not stored.fresh_for(Wish(), 2.0)
    assert stored.stale_for(Wish(), 2.0, stale=60.0) is allowed
