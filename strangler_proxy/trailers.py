"""Trailer fields: which may be passed on after a chunked body. Pure.

RFC 9110 §6.5.1 forbids fields there that are needed before the body: for framing, routing, authentication, for
what controls or modifies the message or tells how to handle its content. Whatever `headers.py` does not simply
pass on in a head is not passed on here either.
"""

from strangler_proxy.headers import Kind, RawHeaders, kind_of

MOST = 100
LONGEST = 32_768  # bytes of all of them
_FORBIDDEN = frozenset(
    b"accept accept-charset accept-encoding accept-language age allow authorization cache-control connection "
    b"content-encoding content-language content-location content-range content-type cookie date etag expect expires "
    b"from if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards "
    b"origin pragma proxy-authenticate proxy-authorization range referer retry-after set-cookie trailer user-agent "
    b"vary via warning www-authenticate".split()
)


class TrailersTooLargeError(Exception):
    """More, or longer, trailer fields than are taken."""


def trailer_lines(trailers: RawHeaders) -> bytes:
    """The lines to send after the last chunk, each with its CRLF."""
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in trailers
        if kind_of(name) is Kind.PASS and name.lower() not in _FORBIDDEN
    )


def check_size(trailers: RawHeaders) -> None:
    """Raises TrailersTooLargeError."""
    size = sum(len(name) + len(value) + 4 for name, value in trailers)
    if len(trailers) > MOST or size > LONGEST:
        raise TrailersTooLargeError
