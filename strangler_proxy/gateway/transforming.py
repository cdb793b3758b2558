"""The duty that changes heads and paths; what it changes is decided in `transform.py`."""

from __future__ import annotations

import re2

from strangler_proxy.duties import Call, Duty, Outgoing
from strangler_proxy.gateway.transform import PathChanges, PathRewrite, Transforms, retarget, rewriter
from strangler_proxy.headers import ResponseHead

_REGEX_MEMORY = 1 << 20  # bytes one pattern may use; RE2 stays linear in time within them


def compiled(pattern: bytes, replacement: bytes) -> PathRewrite:
    """The regular expression as a function. Raises re2.error when it is none, or too large a one."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _REGEX_MEMORY
    options.log_errors = False
    regex = re2.compile(pattern, options=options)

    def rewrite(path: bytes) -> bytes:
        found = regex.fullmatch(path)
        result: bytes = found.expand(replacement) if found is not None else path
        return result

    return rewrite


def _path_rewrite(changes: PathChanges | None) -> PathRewrite | None:
    if changes is None:
        return None
    return rewriter(
        changes, pattern=compiled(changes.pattern, changes.replacement) if changes.pattern else None
    )


class Transforming(Duty):
    """Applies `transforms` to what goes to `default` (the control side) and to any other backend."""

    rewrites = True

    def __init__(self, transforms: Transforms, *, default: str) -> None:
        self._transforms = transforms
        self._default = default
        self._paths = {side: _path_rewrite(transforms.path_of(control=side)) for side in (True, False)}

    def request(self, call: Call, outgoing: Outgoing) -> None:
        """Before each attempt: a fallback goes to the other side and gets that side's changes."""
        control = outgoing.backend == self._default
        rewrite = self._paths[control]
        if rewrite is not None:
            outgoing.target = retarget(outgoing.target, rewrite)
        for transform in self._transforms.of(control=control):
            transform.request.apply(outgoing.lines)

    def response(self, call: Call, status: int, head: ResponseHead) -> None:
        """Before the head is written to the client."""
        for transform in self._transforms.of(control=call.answered_by == self._default):
            transform.response.apply(head.lines)
            if transform.response.touches(b"cache-control"):
                head.reread_cache_control()
