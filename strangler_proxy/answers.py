"""The proxy's own answers: what it says when it has no backend's answer to pass on (RFC 9457 problem
details)."""

import json
from http import HTTPStatus

from strangler_proxy.outcomes import Failure


def answer(
    *,
    status: int,
    detail: str,
    request_id: bytes,
    close: bool,
    body: bool = True,
    retry_after: float | None = None,
    lines: tuple[bytes, ...] = (),
) -> bytes:
    """A whole response. `body` is False for HEAD; `retry_after` is in seconds; `lines` are further header
    lines, each with its CRLF."""
    phrase = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
    if request_id:
        problem["request_id"] = request_id.decode("ascii")
    content = json.dumps(problem).encode()
    texts = [
        f"HTTP/1.1 {status} {phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
    ]
    if request_id:
        texts.append(f"X-Request-ID: {request_id.decode('ascii')}")
    if retry_after is not None:
        texts.append(f"Retry-After: {max(1, round(retry_after + 0.5))}")
    if close:
        texts.append("Connection: close")
    head = ("\r\n".join(texts) + "\r\n").encode("ascii") + b"".join(lines) + b"\r\n"
    return head + content if body else head


def describe(failure: Failure) -> str:
    """What a backend did, in words for the client."""
    match failure:
        case Failure.STATUS:
            return "answered with an error"
        case Failure.TIMEOUT:
            return "did not answer in time"
        case Failure.REFUSED:
            return "cannot be reached"
        case Failure.RESET:
            return "broke the connection"
        case Failure.PROTOCOL:
            return "did not speak HTTP"
