"""Which request this is: the identifiers that travel with it from process to process.

`X-Request-ID` is ours and is returned to the client; `traceparent` is W3C Trace Context (Level 1, 2020)
and is only read here, so that log lines can be joined with traces.
"""

import re
import uuid

_SANE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_NO_TRACE = "0" * 32
_NO_PARENT = "0" * 16


def request_id(given: str | None) -> str:
    """`given` when it is a sane token (at most 128 visible ASCII characters), else a new identifier."""
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a `traceparent` header names, None when there is none or it is malformed."""
    if traceparent is None:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_PARENT:
        return None
    return match[1]
