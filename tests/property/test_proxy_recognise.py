"""The law of the recogniser: whatever it accepts means the same to llhttp and `headers.py`."""

import re
from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strangler_proxy.headers import (
    Peer,
    RequestHead,
    ResponseHead,
    origin_of,
    read_request,
    read_response,
    request_bytes,
)
from strangler_proxy.recognise import recognise_request, recognise_response

FIREFOX = (
    b"GET /api/products/17?page=3&q=lamp HTTP/1.1\r\nHost: shop.example:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate\r\nReferer: http://shop.example/\r\nConnection: keep-alive\r\n"
    b"Cookie: csrftoken=abc; strangler_id=x.y\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"
)
CURL = b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
SERVICE = b"OPTIONS /a HTTP/1.1\r\nhost: a\r\nx-request-id: r-1\r\ntraceparent: 00-ab-cd-01\r\n\r\n"
UVICORN = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 05:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/html; charset=utf-8\r\ncontent-length: 5\r\nvary: Cookie\r\n"
    b"X-Strangler-User: 42\r\nx-request-id: r-1\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\r\nhello"
)
NGINX = (
    b"HTTP/1.1 404 Not Found\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 05:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n"
    b"Cache-Control: public, max-age=3\r\n\r\nno"
)


@dataclass(slots=True)
class Heard:
    """What llhttp says of some bytes, as httptools' callbacks tell it."""

    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    begun: int = 0
    whole: int = 0
    keep_alive: bool = False
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole += 1
        assert self.parser is not None
        self.keep_alive = self.parser.should_keep_alive()  # it forgets after the message


def lines_of(head: bytes) -> list[bytes]:
    """The header lines of a serialised head."""
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]


def check_request(data: bytes) -> bool:
    """Hold the law for `data`; was it recognised?"""
    found = recognise_request(data)
    if found is None:
        return False
    heard = Heard()
    parser = heard.parser = httptools.HttpRequestParser(heard)
    parser.feed_data(data)
    assert (heard.begun, heard.whole, heard.body) == (1, 1, b"")
    assert (parser.get_http_version(), parser.should_upgrade()) == ("1.1", False)
    assert heard.keep_alive
    head = read_request(heard.headers, http11=True)
    assert found.method == parser.get_method()
    assert found.target == heard.target
    assert found.path == heard.target.partition(b"?")[0]
    assert found.path.startswith(b"/")
    assert b"#" not in found.target
    assert found.headers == heard.headers
    assert found.lines() == head.lines
    assert found.keep_alive
    assert found.http11
    assert head.connection in (b"", b"keep-alive")
    assert found.head == RequestHead(
        host=head.host,
        cookies=head.cookies,
        request_id=head.request_id,
        via=head.via,
        ready=found.head.ready,
    )
    assert (head.length, head.chunked, head.expects_continue, head.forwarded) == (None, False, False, None)
    origin = origin_of(Peer(b"10.0.0.1"), head.host, None)
    request_id = head.request_id or b"made-here"
    as_one, as_lines = (
        request_bytes(
            method=found.method,
            target=found.target,
            lines=lines,
            head=each,
            origin=origin,
            request_id=request_id,
        )
        for lines, each in ((None, found.head), (head.lines, head))
    )
    assert as_one.split(b"\r\n")[0] == as_lines.split(b"\r\n")[0]
    assert sorted(_named_alike(lines_of(as_one))) == sorted(_named_alike(lines_of(as_lines)))
    return True


def _named_alike(lines: list[bytes]) -> list[bytes]:
    """Host and X-Request-ID are written anew by one way, and left as the client spelt them by the other."""
    return [re.sub(rb"(?i)^(host|x-request-id):", lambda name: name[0].lower(), line) for line in lines]


def check_response(data: bytes) -> bool:
    """Hold the law for `data`; was its head recognised?"""
    found = recognise_response(data)
    if found is None:
        return False
    heard = Heard()
    parser = heard.parser = httptools.HttpResponseParser(heard)
    assert found.head.length is not None
    parser.feed_data(data[: found.body + found.head.length])
    assert parser.get_status_code() == found.status
    assert parser.get_http_version() == "1.1"
    assert heard.body == data[found.body : found.body + found.head.length]
    assert heard.whole == (len(data) >= found.body + found.head.length)
    if heard.whole:
        assert heard.keep_alive
    head = read_response(heard.headers)
    lines = [line + b"\r\n" for line in lines_of(found.head.ready + b"\r\n")]
    assert [line for line in lines if not line.lower().startswith(b"content-length:")] == head.lines
    assert sum(line.lower().startswith(b"content-length:") for line in lines) == 1
    assert (head.chunked, head.foreign_coding, head.close) == (False, False, False)
    assert found.head == ResponseHead(
        length=head.length,
        html=head.html,
        shared_cacheable=head.shared_cacheable,
        user=head.user,
        ready=found.head.ready,
    )
    return True


NAMES = st.one_of(
    st.sampled_from(
        [
            *(b"Host", b"Cookie", b"Connection", b"X-Request-ID", b"Content-Length", b"Transfer-Encoding", b"TE"),
            *(b"Upgrade", b"Expect", b"Forwarded", b"X-Forwarded-For", b"X-Strangler-User", b"X-Strangler-Side"),
            *(b"Keep-Alive", b"Proxy-Connection", b"HTTP2-Settings", b"Trailer", b"Content-Type", b"Cache-Control"),
            *(b"Accept", b"X-Trace", b"Te-x", b"Cookie2", b"Hosts", b"X_Forwarded_For", b"Content_Length"),
        ]
    ).flatmap(lambda name: st.sampled_from([name, name.lower(), name.upper()])),
    st.from_regex(rb"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}\Z"),
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            b"keep-alive",
            b"close",
            b"5",
            b"0",
            b"05",
            b"chunked",
            b"public",
            b"text/html",
            b"100-continue",
            b"a.b:80",
        ]
    ),
    st.from_regex(rb"\A[!-~\x80-\xff]([\t -~\x80-\xff]{0,12}[!-~\x80-\xff])?\Z"),
)
HEADERS = st.lists(st.tuples(NAMES, VALUES).map(b": ".join), max_size=8)
METHODS = st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"POST", b"get", b"CONNECT"])
TARGETS = st.one_of(
    st.sampled_from([b"/", b"*", b"http://a/b", b"/a?b?c", b"//a", b"/a#b"]),
    st.from_regex(rb"\A/[!-~]{0,20}\Z"),
)
BODIES = st.binary(max_size=8)
CUTS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 2),
        st.sampled_from(
            [
                b"",
                b"\r",
                b"\n",
                b"\r\n",
                b" ",
                b"\t",
                b":",
                b"\0",
                b"\x7f",
                b"\x80",
                b"_",
                b"#",
                b"?",
                b",",
                b"0",
                b"a",
            ]
        ),
    ),
    max_size=3,
)


def mutated(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    """`data` with pieces taken out and nasty bytes put in."""
    for place, gone, put in cuts:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + gone :]
    return data


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(method=METHODS, target=TARGETS, headers=HEADERS, cuts=CUTS)
def test_a_recognised_request_means_the_same_to_llhttp(
    method: bytes, target: bytes, headers: list[bytes], cuts: list[tuple[int, int, bytes]]
) -> None:
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: a", *headers, b"", b""])
    check_request(head)
    check_request(mutated(head, cuts))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    status=st.sampled_from(
        [b"200 OK", b"204 No Content", b"304 Not Modified", b"100 Continue", b"500 ", b"599 x"]
    ),
    headers=HEADERS,
    length=st.integers(0, 9),
    body=BODIES,
    cuts=CUTS,
)
def test_a_recognised_answer_means_the_same_to_llhttp(
    status: bytes, headers: list[bytes], length: int, body: bytes, cuts: list[tuple[int, int, bytes]]
) -> None:
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % length, b"", b""]
    data = b"\r\n".join(lines)
    check_response(data + body)
    check_response(mutated(data, cuts) + body)


@pytest.mark.parametrize("data", [FIREFOX, CURL, SERVICE])
@given(cuts=CUTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everyday_requests_are_recognised_and_their_mutations_mean_the_same(
    data: bytes, cuts: list[tuple[int, int, bytes]]
) -> None:
    assert check_request(data)
    check_request(mutated(data, cuts))


@pytest.mark.parametrize("data", [UVICORN, NGINX])
@given(cuts=CUTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everyday_answers_are_recognised_and_their_mutations_mean_the_same(
    data: bytes, cuts: list[tuple[int, int, bytes]]
) -> None:
    assert check_response(data)
    check_response(mutated(data, cuts))


@pytest.mark.parametrize(
    "lines",
    [
        b"",  # no Host
        b"Host: a\r\nHost: b\r\n",
        b"Host: a\r\nContent-Length: 0\r\n",
        b"Host: a\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\nConnection: close\r\n",
        b"Host: a\r\nConnection: keep-alive, X-A\r\n",
        b"Host: a\r\nConnection: keep-alive\r\nConnection: keep-alive\r\n",
        b"Host: a\r\nUpgrade: websocket\r\n",
        b"Host: a\r\nExpect: 100-continue\r\n",
        b"Host: a\r\nTE: trailers\r\n",
        b"Host: a\r\nX-Forwarded-For: 1.2.3.4\r\n",
        b"Host: a\r\nx-strangler-side: canary\r\n",
        b"Host: a\r\nX_Strangler_User: 1\r\n",
        b"Host: a\r\nCookie: a=b\r\nCookie: c=d\r\n",
        b"Host: a\r\nX-Request-ID: a b\r\n",
        b"Host: a\r\nA : b\r\n",
        b"Host: a\r\nA:b\r\n",
        b"Host: a\r\nA: \r\n",
        b"Host: a\r\nA: b \r\n",
        b"Host: a\r\nA: b\r\n c\r\n",
        b"Host: a\r\nA: b\n",
        b"Host: a\r\nA: b\0c\r\n",
        b"Host: a/b\r\n",
        b"Host: a\r\n" + b"A: b\r\n" * 64,
        b"Host: a\r\nA: %b\r\n" % (b"x" * 8192),
    ],
)
def test_what_has_to_be_judged_is_left_to_the_parser(lines: bytes) -> None:
    assert recognise_request(b"GET / HTTP/1.1\r\n%b\r\n" % lines) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Strangler-Position: 0/1\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n",
    ],
)
def test_answers_framed_in_another_way_are_left_to_the_parser(head: bytes) -> None:
    assert recognise_response(head + b"\r\nabc") is None


def test_two_requests_in_one_read_are_left_to_the_parser() -> None:
    assert recognise_request(CURL + CURL) is None
    assert recognise_request(CURL[:-2]) is None
