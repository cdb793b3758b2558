"""Recognises the everyday head, so that it is forwarded as the bytes it came in.

Nearly every request is a whole head in one read, without a body, in the plainest form HTTP/1.1 has; nearly
every answer is a head with one Content-Length. One regular expression accepts just that, a strict and
unambiguous subset, and tells where the few headers stand that the proxy reads or takes out. Everything else
is left to llhttp and `headers.py`: other methods and versions, any other framing, any spelling that a second
parser might read differently (space around values, `_` in names, empty values), every header that must be
judged rather than passed on.

The law, held by property and mutation tests: what is recognised here means the same to llhttp and
`headers.py`, header by header. The reverse is not wanted: None is always a right answer. No quantifier gives
back what it took (all are possessive), so the time is linear in the head's length.

Grammar: RFC 9112 §3 to §5; RFC 9110 §5.6.2 (token), §5.5 (field values). Pure: bytes in, values out.
"""

import re

from strangler_proxy.headers import RequestHead, ResponseHead
from strangler_proxy.request import Request

LONGEST = 8192  # bytes of a read; what is longer is rare, and has llhttp's limits for a judge
_MOST_HEADERS = 64


def _any_case(name: bytes) -> bytes:
    """A pattern for `name` in any letter case; a plain `(?i:...)` would cost the engine its quick look at
    the first letter."""
    return b"".join(
        b"[%c%c]" % (char, char - 32) if chr(char).isalpha() else re.escape(b"%c" % char) for char in name
    )


def _one_of(names: tuple[bytes, ...]) -> bytes:
    """Any of `names` (lower case), told apart by the first letter before anything else."""
    firsts = sorted({name[:1] for name in names})
    branches = (
        _any_case(first)
        + b"(?:"
        + b"|".join(_any_case(name[1:]) for name in names if name[:1] == first)
        + b")"
        for first in firsts
    )
    return b"(?:" + b"|".join(branches) + b")"


def _head(
    start: bytes, special: tuple[bytes, ...], lines: tuple[tuple[bytes, bytes], ...]
) -> re.Pattern[bytes]:
    """A whole head: `start`, then any of `lines` (name and value), each at most once, among headers that begin
    with none of `special`. Each of `lines` makes two groups, the line and its value, after those of `start`.
    """
    either = [b"(?!" + _one_of(special) + b")" + _NAME + b": " + _VALUE + b"\\r\\n"]
    number = re.compile(start).groups + 1
    for name, value in lines:
        either.append(b"(?(%d)(?!))(%b: (%b)\\r\\n)" % (number, _any_case(name), value))
        number += 2
    return re.compile(start + b"(?:" + b"|".join(either) + b"){1,%d}+\\r\\n" % _MOST_HEADERS)


_NAME = rb"[!#$%&'*+.^`|~0-9A-Za-z-]++"
_VALUE = rb"[!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ])"
_HOP = (
    b"connection:", b"keep-alive:", b"proxy-", b"te:", b"trailer:", b"transfer-encoding:", b"upgrade:",
    b"http2-settings:",
)  # fmt: skip
_REQUEST = _head(
    rb"(GET|HEAD|OPTIONS) ((/[!\"$->@-~]*+)(?:\?[!\"$-~]*+)?) HTTP/1\.1\r\n",
    (
        *_HOP, b"content-length:", b"cookie:", b"expect:", b"forwarded:", b"host:", b"x-forwarded-",
        b"x-request-id:", b"x-strangler-", b"via:",
    ),
    (  # groups from 4
        (b"host", rb"[A-Za-z0-9._~:\[\]%!$&'()*+,;=-]++"),
        (b"cookie", _VALUE),
        (b"connection", _any_case(b"keep-alive")),
        (b"x-request-id", rb"[!-~]{1,128}+"),
        (b"via", _VALUE),
    ),
)  # fmt: skip
_RESPONSE = _head(
    rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9]) [ -~]*+\r\n",
    (
        *_HOP, b"cache-control:", b"content-length:", b"content-type:", b"expect:", b"x-request-id:",
        b"x-strangler-",
    ),
    (  # groups from 2
        (b"content-length", rb"[0-9]{1,15}+"),
        (b"content-type", _VALUE),
        (b"cache-control", _VALUE),
        (b"connection", _any_case(b"keep-alive")),
        (b"x-request-id", _VALUE),
        (b"x-strangler-user", _VALUE),
        (b"x-strangler-lsn", _VALUE),
        (b"x-strangler-applied", _VALUE),
    ),
)  # fmt: skip


def recognise_request(data: bytes) -> Request | None:
    """The request that `data` is, when it is just one whole head of the everyday kind."""
    if len(data) > LONGEST:
        return None
    match = _REQUEST.fullmatch(data)
    if match is None:
        return None
    method, target, path, host, cookies, connection, request_id, via = match.group(1, 2, 3, 5, 7, 8, 11, 13)
    if host is None:
        return None
    if connection is None:
        ready = data[:-2]
    else:
        start, end = match.span(8)
        ready = data[:start] + data[end:-2]
    head = RequestHead([], host, cookies or b"", request_id or b"", via=via or b"", ready=ready)
    return Request(method, target, path, None, head, http11=True, keep_alive=True, raw=data)


class Answer:
    """An answer's head, and where in the bytes its body begins."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: ResponseHead, body: int) -> None:
        self.status = status
        self.head = head
        self.body = body


def recognise_response(data: bytes) -> Answer | None:
    """The answer that `data` begins with, when its head is of the everyday kind. Not for answers to HEAD."""
    match = _RESPONSE.match(data, 0, LONGEST)
    if match is None:
        return None
    status, length, kind, cache, connection, request_id, user, position, applied = match.group(
        1, 3, 5, 7, 8, 10, 13, 15, 17
    )
    if length is None:
        return None
    end = match.end()
    internal = user is not None or position is not None or applied is not None
    if internal or request_id is not None:
        ready = _without(match, end - 2)
    elif connection is not None:  # nginx says it with every answer
        start, after = match.span(8)
        ready = data[:start] + data[after : end - 2]
    else:
        ready = data[: end - 2]
    head = ResponseHead(ready=ready, length=int(length), user=user)
    if internal:
        head.position, head.applied = position or b"", applied or b""
    if kind is not None:
        head.html = kind[:9].lower() == b"text/html"
    if cache is not None:
        cache = cache.lower()
        head.shared_cacheable = b"public" in cache or b"s-maxage" in cache
    return Answer(int(status), head, end)


def _without(match: re.Match[bytes], end: int) -> bytes:
    """The head up to `end` without the lines that are not passed on."""
    data = match.string
    kept: list[bytes] = []
    start = 0
    for gone in sorted(map(match.span, (8, 10, 12, 14, 16))):
        if gone[0] >= 0:
            kept.append(data[start : gone[0]])
            start = gone[1]
    kept.append(data[start:end])
    return b"".join(kept)
