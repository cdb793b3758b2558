"""Laws of the heads: whatever a client or backend writes, nothing of the hop and nothing internal passes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strangler_proxy.headers import (
    BadHeadError,
    Peer,
    origin_of,
    read_request,
    read_response,
    request_bytes,
)
from strangler_proxy.via import Via

HOP = [
    b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authenticate", b"Proxy-Authorization", b"TE",
    b"Upgrade",
]  # fmt: skip
INTERNAL = [b"X-Strangler-User", b"X-Strangler-Arm", b"X-Strangler-", b"x_strangler_user"]
FORWARDED = [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Forwarded", b"X_Forwarded_For"]

TOKENS = st.from_regex(rb"\A[!#$%&'*+.^`|~0-9A-Za-z-]{1,20}\Z")
VALUES = st.from_regex(rb"\A[!-~]([ -~]{0,30}[!-~])?\Z")


def any_case(names: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of `names`, in any letter case."""
    return st.sampled_from(names).flatmap(
        lambda name: st.sampled_from([name, name.lower(), name.upper(), name.swapcase()])
    )


HEADERS = st.lists(
    st.one_of(
        st.tuples(TOKENS, VALUES),
        st.tuples(any_case([*HOP[1:], *INTERNAL, *FORWARDED]), VALUES),
        st.tuples(any_case([b"Connection"]), st.lists(TOKENS, max_size=3).map(b", ".join)),
    ),
    max_size=20,
)


def names_in(head: bytes) -> list[bytes]:
    """Lower-case header names of a serialised head."""
    return [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line]


def named_by_connection(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """What the Connection headers list."""
    values = [value for name, value in headers if name.lower() == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}


OURS = {
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-request-id",
    b"forwarded",
    b"via",
}


@settings(max_examples=60, deadline=None)
@given(headers=HEADERS)
def test_nothing_of_the_hop_and_nothing_internal_goes_upstream(headers: list[tuple[bytes, bytes]]) -> None:
    given_headers = [(b"Host", b"shop.test"), *headers]
    try:
        head = read_request(given_headers, http11=True)
    except BadHeadError:
        return
    origin = origin_of(Peer(b"10.0.0.1"), head.host, head.forwarded, via=Via().line)
    sent = request_bytes(
        method=b"GET", target=b"/", lines=head.lines, head=head, origin=origin, request_id=b"id"
    )
    assert sent.endswith(b"\r\n\r\n")
    names = names_in(sent)
    forbidden = {name.lower() for name in HOP} | (
        named_by_connection(headers) - OURS - {b"keep-alive", b"close"}
    )
    assert forbidden.isdisjoint(names)
    assert not any(name.replace(b"_", b"-").startswith(b"x-strangler-") for name in names)
    for name in OURS:
        assert names.count(name) == 1
    assert names.count(b"forwarded") == 1
    assert b"x_forwarded_for" not in names
    assert b"X-Forwarded-For: 10.0.0.1\r\n" in sent


@settings(max_examples=60, deadline=None)
@given(headers=HEADERS)
def test_everything_else_goes_upstream_in_order_and_as_written(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        head = read_request([(b"Host", b"shop.test"), *headers], http11=True)
    except BadHeadError:
        return
    dropped = named_by_connection(headers)
    special = {name.lower() for name in [*HOP, *INTERNAL, *FORWARDED]} | {b"content-length", b"host"}
    special |= {b"expect", b"transfer-encoding", b"x-request-id", b"http2-settings"}
    plain = [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name.lower() not in special | dropped
        and not name.lower().startswith((b"x-strangler-", b"x-forwarded-"))
    ]
    assert head.lines == plain


@settings(max_examples=60, deadline=None)
@given(headers=HEADERS)
def test_nothing_of_the_hop_and_nothing_internal_goes_to_the_client(
    headers: list[tuple[bytes, bytes]],
) -> None:
    numbers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    head = read_response(numbers)
    names = names_in(b"start\r\n" + b"".join(head.lines))
    forbidden = {name.lower() for name in HOP} | (named_by_connection(headers) - {b"keep-alive", b"close"})
    assert forbidden.isdisjoint(set(names) - {b"host"})
    assert not any(name.replace(b"_", b"-").startswith(b"x-strangler-") for name in names)


def test_connection_cannot_take_the_frame_or_the_host_away() -> None:
    head = read_request(
        [(b"Host", b"a"), (b"Connection", b"Host, Content-Length, X-Request-ID"), (b"Content-Length", b"5")],
        http11=True,
    )
    sent = request_bytes(
        method=b"PUT",
        target=b"/",
        lines=head.lines,
        head=head,
        origin=origin_of(Peer(b"::1"), b"a", None),
        request_id=b"id",
    )
    assert {b"host", b"content-length", b"x-request-id"} <= set(names_in(sent))


@pytest.mark.parametrize(
    ("chain", "address"), [(b"1.1.1.1, 2.2.2.2", b"2.2.2.2"), (b"3.3.3.3", b"3.3.3.3"), (b"", b"10.0.0.1")]
)
def test_a_trusted_proxys_last_word_is_the_clients_address(chain: bytes, address: bytes) -> None:
    forwarded = [(b"X-Forwarded-For", chain), (b"X-Forwarded-Proto", b"https")]
    origin = origin_of(Peer(b"10.0.0.1", trusted=True), b"shop", forwarded)
    assert origin.address == address
    assert origin.secure
    assert not origin_of(Peer(b"10.0.0.1"), b"shop", forwarded).secure
