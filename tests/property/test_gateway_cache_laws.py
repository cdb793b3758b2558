"""Our cache against another implementation of RFC 9111: what we keep and serve, hishel would keep and serve too.

The other way round does not hold and need not: ours is stricter on purpose.
"""

import time
import uuid

from hishel import (
    CacheMiss,
    CacheOptions,
    Entry,
    FromCache,
    Headers,
    IdleClient,
    Request,
    Response,
    StoreAndUse,
)
from hypothesis import event, given
from hypothesis import strategies as st

from strangler_proxy.gateway.rfc9111 import (
    CachePolicy,
    meaningful_cookies,
    selecting,
    stored_of,
    wish_of,
)

Pairs = list[tuple[bytes, bytes]]
NUMBER = st.sampled_from(["0", "1", "5", "600", "-1", "x", "1.5", "99999999999"])
DIRECTIVE = st.one_of(
    st.sampled_from(
        ["no-store", "private", "no-cache", "public", "must-revalidate", 'private="x"', "immutable"]
    ),
    st.builds(
        "{}={}".format,
        st.sampled_from(["max-age", "s-maxage", "MAX-AGE", "stale-if-error", "max-stale"]),
        NUMBER,
    ),
)
CONTROL = st.lists(DIRECTIVE, max_size=3).map(lambda said: (b"Cache-Control", ", ".join(said).encode()))
DATE = st.sampled_from(
    [b"Thu, 01 Jan 1970 00:00:00 GMT", b"Fri, 01 Jan 2100 00:00:00 GMT", b"0", b"tomorrow", b""]
)
RESPONSE = st.lists(
    st.one_of(
        CONTROL,
        DATE.map(lambda date: (b"Expires", date)),
        st.sampled_from([b"0", b"3", b"700", b"x"]).map(lambda age: (b"Age", age)),
        st.sampled_from([b"Accept", b"*", b"Accept, Accept-Language"]).map(lambda names: (b"Vary", names)),
        st.just((b"ETag", b'"a"')),
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
)
REQUEST = st.lists(
    st.one_of(
        CONTROL,
        st.sampled_from([b"a", b"b"]).map(lambda value: (b"Accept", value)),
        st.just((b"Authorization", b"Bearer x")),
        st.just((b"Range", b"bytes=0-1")),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)


def theirs(pairs: Pairs) -> Headers:
    return Headers({name.decode(): value.decode() for name, value in pairs})


@given(
    status=st.sampled_from([200, 203, 206, 301, 302, 404, 410, 500]),
    said=RESPONSE,
    first=REQUEST,
    second=REQUEST,
)
def test_what_we_keep_and_serve_another_cache_would_too(
    status: int, said: Pairs, first: Pairs, second: Pairs
) -> None:
    wish = wish_of(b"GET", first, b"")
    if wish is None or wish.no_store:
        return
    now = time.time()
    stored = stored_of(
        status=status, reason=b"", headers=said, request=first, cookies=b"", policy=CachePolicy(),
        now=0.0, wall=now, waited=0.0,
    )  # fmt: skip
    if stored is None:
        return
    options = CacheOptions(shared=True)
    asked = Request("GET", "https://shop.test/x", theirs(first))
    answer = Response(status, theirs(said))
    assert isinstance(CacheMiss(options, asked).next(answer), StoreAndUse)
    again = wish_of(b"GET", second, b"")
    names = [name for name, _ in stored.vary]
    if again is None or selecting(second, names, b"") != stored.vary or not stored.fresh_for(again, 0.0):
        return
    event("served")
    entry = Entry(uuid.uuid4(), asked, answer)
    assert isinstance(IdleClient(options).next(Request("GET", asked.url, theirs(second)), [entry]), FromCache)


@given(
    cookies=st.lists(
        st.sampled_from(["a=1", "_ga=x", "strangler_id=y", "b", "_ga", " _ga = z ", ""]), max_size=5
    )
)
def test_only_ignored_cookies_are_left_out(cookies: list[str]) -> None:
    ignored = frozenset({b"_ga", b"strangler_id"})
    kept = meaningful_cookies(";".join(cookies).encode(), ignored)
    wanted = [item.strip() for item in cookies if item.strip().partition("=")[0].strip() in ("a", "b")]
    assert kept == "; ".join(wanted).encode()
