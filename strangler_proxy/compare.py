"""The only home of "same answer": do two backends answer one request alike? Pure.

    control's answer ─┐
    candidate's ──────┼─► compare ─► Comparison(verdict, differences, reason) ─► next_step
    control again? ───┘                                                          DONE, CANDIDATE_LATER, CONTROL_AGAIN

Verdicts, and what they mean to somebody who wants to move traffic:

* EQUAL; REPRESENTATION (same values in another notation: clients break on it, so it blocks too); REAL;
* STALE: they differ, and the candidate had not yet applied what the control had seen: says something about
  lag, nothing about code;
* NOISE: they differ only where the control differs from itself, or among rows that tie in the declared sort;
* CANDIDATE_ERROR: the candidate failed where the control did not, or wrote;
* NOT_COMPARED(reason): no opinion. Counted, so that it cannot hide.

The control is asked a second time only when the two differ (A-B-A). A place where it differs from itself is
masked for this one request, and its value must still look like the control's (`compare_json.Mask`). Rates of
noise are never subtracted from rates of difference, as Diffy does: a field that is noisy in 30 % of the
requests would hide a fault in 2 % of them.

Positions are those of the control's write-ahead log: `Recorded.position` is, for the control, the log's end
after it answered; for the candidate, a lower bound of what it had applied when it answered.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from strangler_proxy.compare_headers import header_differences, media_type
from strangler_proxy.compare_json import (
    NO_MASK,
    Difference,
    Mask,
    UncomparableError,
    Weight,
    What,
    differences,
    mask_of,
    parse,
)
from strangler_proxy.compare_rules import Compiled

LARGEST_BODY = 4 * 1024 * 1024  # bytes, after decompression
_MOST_NOISY = 24  # places; a control that differs from itself in more cannot judge anybody
_NO_RULES = Compiled()
_VALIDATION = frozenset({400, 422})
_CSRF = re.compile(
    rb"""(name=["']csrfmiddlewaretoken["']\s+value=["'])[^"']*|(csrf-?token["']?\s*[:=]\s*["'])[^"']*"""
    rb"""|(\snonce=["'])[^"']*""",
    re.IGNORECASE,
)


class Verdict(Enum):
    """See the module's list."""

    EQUAL = "equal"
    REPRESENTATION = "representation"
    STALE = "stale"
    NOISE = "noise"
    REAL = "real"
    CANDIDATE_ERROR = "candidate_error"
    NOT_COMPARED = "not_compared"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One answer. `failure` says why there is no whole answer (timeout, reset, …), else empty. `cut`: `body` is
    only the beginning. `position`: see the module. `wrote`: it tried to write where it may only read."""

    status: int
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    failure: str = ""
    cut: bool = False
    position: int | None = None
    wrote: bool = False

    def header(self, name: bytes) -> str:
        """The first value of header `name` (lower case), or empty."""
        return next((v.decode("latin-1").strip() for n, v in self.headers if n.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it. `reason` is given with NOT_COMPARED, CANDIDATE_ERROR, STALE and, when the control's
    second answer settled it, NOISE."""

    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    reason: str = ""


class Step(Enum):
    """What would settle a comparison that is not settled."""

    DONE = "done"
    CANDIDATE_LATER = "candidate_later"
    CONTROL_AGAIN = "control_again"


def compare(
    control: Recorded,
    candidate: Recorded,
    *,
    rules: Compiled = _NO_RULES,
    again: Recorded | None = None,
    query: str = "",
    head: bool = False,
) -> Comparison:
    """Compare two answers to one request; `again` is the control's answer to the same request, asked after the
    candidate's. `query` is the request's query string; `head`: it was a HEAD request."""
    early = _without_looking(control, candidate, again)
    if early is not None:
        return early
    pair = _Pair(rules, dict(parse_qsl(query, keep_blank_values=True)), head=head)
    try:
        found = pair.differences(control, candidate, NO_MASK)
        verdict = _verdict(found)
        if verdict in (Verdict.EQUAL, Verdict.NOISE):
            return Comparison(verdict, found)
        if behind(control, candidate):
            return Comparison(Verdict.STALE, found, "the candidate had not applied what the control had seen")
        return Comparison(verdict, found) if again is None else _settled(pair, control, candidate, again)
    except UncomparableError as error:
        return Comparison(Verdict.NOT_COMPARED, reason=str(error))


def behind(control: Recorded, candidate: Recorded) -> bool:
    """Had the candidate, as far as is known, not yet applied all that the control may have seen?"""
    if control.position is None or candidate.position is None:
        return False
    return candidate.position < control.position


def next_step(comparison: Comparison, *, waited: bool, asked_again: bool) -> Step:
    """What to do next: a candidate that is behind is asked once more later; a real difference is confirmed by
    asking the control once more."""
    match comparison.verdict:
        case Verdict.STALE if not waited:
            return Step.CANDIDATE_LATER
        case Verdict.REAL if not asked_again:
            return Step.CONTROL_AGAIN
        case _:
            return Step.DONE


def _without_looking(control: Recorded, candidate: Recorded, again: Recorded | None) -> Comparison | None:
    """The verdict, where the answers need not be looked into."""
    unfit = _unfit(control, "control") or (_unfit(again, "control asked again") if again else "")
    if unfit:
        return Comparison(Verdict.NOT_COMPARED, reason=unfit)
    if candidate.wrote:
        return Comparison(Verdict.CANDIDATE_ERROR, reason="wrote in shadow")
    if candidate.failure or candidate.status >= 500:
        return Comparison(Verdict.CANDIDATE_ERROR, reason=candidate.failure or f"status {candidate.status}")
    return None


def _unfit(answer: Recorded, who: str) -> str:
    """Why nothing can be measured by this answer of the control's, or empty."""
    if answer.failure:
        return f"{who}: {answer.failure}"
    if answer.status >= 500:
        return f"{who}: status {answer.status}"
    return ""


def _settled(pair: "_Pair", control: Recorded, candidate: Recorded, again: Recorded) -> Comparison:
    """The control was asked again: what of the differences is its own unsteadiness?"""
    newer = pair.differences(again, candidate, NO_MASK)
    if _verdict(newer) in (Verdict.EQUAL, Verdict.NOISE):
        return Comparison(Verdict.NOISE, newer, "the data changed meanwhile")
    own = pair.differences(control, again, NO_MASK)
    opaque = [item for item in own if item.what in (What.STATUS, What.BODY)]
    if opaque:
        return Comparison(Verdict.NOT_COMPARED, own, f"the control's {opaque[0].path} differs from itself")
    inside = [item for item in own if item.path.startswith("$")]
    bodies = [parse(decoded(answer)) for answer in (control, again)] if inside else []
    mask = mask_of(inside, bodies, root=pair.rules.root)
    if len(mask) > _MOST_NOISY:
        return Comparison(Verdict.NOT_COMPARED, own, "the control differs from itself in too many places")
    unsteady = frozenset(item.path for item in own if item.path.startswith("header:"))
    found = pair.differences(control, candidate, mask, unsteady)
    verdict = _verdict(found)
    if verdict in (Verdict.EQUAL, Verdict.NOISE):
        return Comparison(Verdict.NOISE, found, "the control differs from itself there too")
    return Comparison(verdict, found)


def _verdict(found: Sequence[Difference]) -> Verdict:
    weights = {item.weight for item in found}
    for weight, verdict in (
        (Weight.REAL, Verdict.REAL),
        (Weight.REPRESENTATION, Verdict.REPRESENTATION),
        (Weight.NOISE, Verdict.NOISE),
    ):
        if weight in weights:
            return verdict
    return Verdict.EQUAL


@dataclass(frozen=True, slots=True)
class _Pair:
    """How two answers to one request are compared."""

    rules: Compiled
    parameters: Mapping[str, str]
    head: bool

    def differences(
        self,
        left: Recorded,
        right: Recorded,
        mask: Mask,
        unsteady: frozenset[str] = frozenset(),
    ) -> tuple[Difference, ...]:
        """All differences. Raises UncomparableError when the bodies cannot be compared."""
        if left.status != right.status:
            both = {left.status, right.status}
            if self.rules.validation_by_class and both == _VALIDATION:
                return self._headers(left, right, unsteady | {"header:content-type"})
            weight = Weight.REAL
            return (Difference("status", "status", What.STATUS, weight, left.status, right.status),)
        found = self._headers(left, right, unsteady)
        if self.head or left.status in (204, 304):
            return found
        return (*found, *self._bodies(left, right, mask))

    def _headers(self, left: Recorded, right: Recorded, unsteady: frozenset[str]) -> tuple[Difference, ...]:
        ignored = self.rules.outside
        return tuple(
            item
            for item in header_differences(
                left.headers, right.headers, more=self.rules.headers, ignored=ignored
            )
            if item.path not in unsteady
        )

    def _bodies(self, left: Recorded, right: Recorded, mask: Mask) -> Sequence[Difference]:
        if left.cut or right.cut:
            raise UncomparableError("too large")
        one, other = decoded(left), decoded(right)
        if one == other and not mask:
            return ()
        media = media_type(left.header(b"content-type"))
        if media == "application/json" or media.endswith("+json"):
            return self._json(one, other, mask)
        if media == "text/event-stream":
            raise UncomparableError("a stream")
        if media == "text/html":
            one, other = _CSRF.sub(rb"\1\2\3", one), _CSRF.sub(rb"\1\2\3", other)
        if one == other:
            return ()
        line = _common(one, other).count(b"\n") + 1
        note = f"from line {line} on"
        return (Difference("body", "body", What.BODY, Weight.REAL, one, other, note),)

    def _json(self, one: bytes, other: bytes, mask: Mask) -> Sequence[Difference]:
        try:
            expected = parse(one)
        except ValueError:
            # The control itself sends no JSON here: the bytes are all there is to compare.
            if one == other:
                return ()
            return (
                Difference("body", "body", What.BODY, Weight.REAL, one, other, "the control's is no JSON"),
            )
        try:
            found = parse(other)
        except ValueError:
            return (Difference("body", "body", What.BODY, Weight.REAL, one, other, "no JSON"),)
        return differences(expected, found, root=self.rules.root, mask=mask, parameters=self.parameters)


def _common(one: bytes, other: bytes) -> bytes:
    """What both begin with (by bisection: comparing slices is the interpreter's fast path)."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return one[:low]


def decoded(answer: Recorded) -> bytes:
    """The body without its content coding. Raises UncomparableError for codings other than gzip and deflate
    (RFC 9110 §8.4.1), for broken ones, and for more than LARGEST_BODY bytes."""
    coding = answer.header(b"content-encoding").lower()
    body = answer.body
    match coding:
        case "" | "identity":
            pass
        case "gzip" | "x-gzip":
            body = _inflated(body, 16 + zlib.MAX_WBITS)
        case "deflate":
            # zlib as the RFC says, or raw deflate as some servers send
            body = _inflated(body, zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS)
        case _:
            raise UncomparableError(f"content-encoding {coding}")
    if len(body) > LARGEST_BODY:
        raise UncomparableError("too large")
    return body


def _inflated(body: bytes, window: int) -> bytes:
    machine = zlib.decompressobj(window)
    try:
        data = machine.decompress(body, LARGEST_BODY + 1)
    except zlib.error as error:
        raise UncomparableError("broken content-encoding") from error
    if not machine.eof and len(data) <= LARGEST_BODY:
        raise UncomparableError("broken content-encoding")
    return data
