"""What a group asks for beyond forwarding: one class a duty, called by the exchange at fixed moments.

    decide ─► admit ─► send ─► request ─► answer's head ─► response ─► body … ─► end
                │
                └─► Refusal, Answer: nothing is sent      WAIT: until call.proceed() or call.refuse()

Duties are made once, when routes are applied (`build`), and shared by all requests of the group; what belongs
to one request is kept in `Call.notes`. A group without duties pays one comparison.

`admit` runs in the order of the group's duties. `end` is called once for each duty whose `admit` let the
request go on or wait, whatever became of it, so what `admit` took can be given back there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from strangler_proxy.decide import Decision
from strangler_proxy.headers import Origin, ResponseHead
from strangler_proxy.request import Client, Request
from strangler_proxy.table import Backend, Group, Routes

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

CACHED = "cached"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The proxy answers with a problem document. `lines` are further header lines, each with its CRLF;
    `retry_after` is in seconds; `kind` is the reason under which it is counted (`refused` in the outcomes), empty
    for not at all."""

    status: int
    detail: str
    lines: tuple[bytes, ...] = ()
    retry_after: float | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers with this. `lines` are header lines, each with its CRLF, without framing; `kind` is
    CACHED for an answer from memory, else as a refusal's."""

    status: int
    reason: bytes
    lines: tuple[bytes, ...]
    body: bytes
    kind: str = ""


class Waiting(Enum):
    """The only value is `WAIT`: the duty will call `call.proceed()` or `call.refuse()`, after `admit` has
    returned."""

    WAIT = "wait"


WAIT = Waiting.WAIT
Admission = Refusal | Answer | Waiting | None


@dataclass(slots=True)
class Outgoing:
    """What is about to be sent upstream. `target` and `lines` (header lines with their CRLF) may be changed;
    Host, framing, forwarding headers and X-Request-ID are added after these."""

    backend: str
    target: bytes
    lines: list[bytes]


@dataclass(slots=True)
class Call:
    """One request, as its duties see it. `answered_by` is the backend whose answer is passed on (the default
    backend's after a fallback); `subject` whom a verified token names; `notes` is for duties to keep what
    belongs to this request, by duty. `client` is the client's connection, `issue` the anonymous id that it is about
    to be given, or empty."""

    plane: DataPlane
    client: Client
    issue: bytes
    routes: Routes
    group: Group
    request: Request
    origin: Origin
    decision: Decision
    digest: int
    request_id: bytes
    _resume: Callable[[Refusal | Answer | None], None]
    answered_by: str = ""
    subject: bytes = b""
    notes: dict[Duty, Any] = field(default_factory=dict)

    def proceed(self) -> None:
        """The duty that said WAIT lets the request go on. Nothing happens when the client has left."""
        self._resume(None)

    def refuse(self, refusal: Refusal | Answer) -> None:
        """The duty that said WAIT answers in the backend's place."""
        self._resume(refusal)


class Duty:
    """A duty that does nothing; override what is needed. `taps` tells whether `body` is wanted; `rewrites` that
    `request` changes the head by the backend alone, and so is right for requests of the proxy's own too."""

    taps = False
    rewrites = False

    def admit(self, call: Call) -> Admission:
        """May the request be sent? Called once, after the decision and before a connection is sought."""
        return None

    def request(self, call: Call, outgoing: Outgoing) -> None:
        """The head is about to be sent; again for each attempt (a retry, a fallback)."""

    def response(self, call: Call, status: int, head: ResponseHead) -> None:
        """The head of the answer that is passed on; `head.lines` may be changed."""

    def body(self, call: Call, data: bytes) -> None:
        """A piece of that answer's body, without transfer coding."""

    def end(self, call: Call, *, complete: bool) -> None:
        """The request is over. `complete`: a backend's whole answer was passed on."""


class Attendance:
    """The duties of one request, asked in turn. `complete` is set when a whole answer was passed on."""

    __slots__ = ("_admitted", "_call", "_duties", "_taps", "complete")

    def __init__(self, duties: tuple[Duty, ...], call: Call) -> None:
        self._duties = duties
        self._taps = tuple(duty for duty in duties if duty.taps)
        self._call = call
        self._admitted = 0
        self.complete = False

    def admit(self) -> Admission:
        """Ask the duties that were not asked yet, until one does not simply let the request go on."""
        while self._admitted < len(self._duties):
            admission = self._duties[self._admitted].admit(self._call)
            if isinstance(admission, Refusal | Answer):
                return admission
            self._admitted += 1
            if isinstance(admission, Waiting):
                return admission
        return None

    def request(self, backend: Backend, target: bytes, lines: Sequence[bytes]) -> Outgoing:
        """The head as duties want it sent to `backend`."""
        outgoing = Outgoing(backend.name, target, list(lines))
        for duty in self._duties:
            duty.request(self._call, outgoing)
        return outgoing

    def response(self, backend: Backend, status: int, head: ResponseHead) -> None:
        """The head of the answer that is passed on."""
        self._call.answered_by = backend.name
        for duty in self._duties:
            duty.response(self._call, status, head)

    def body(self, data: bytes) -> None:
        """A piece of its body."""
        for duty in self._taps:
            duty.body(self._call, data)

    def end(self) -> None:
        """The request is over."""
        for duty in self._duties[: self._admitted]:
            duty.end(self._call, complete=self.complete)


def build(group: Group, plane: DataPlane) -> tuple[Duty, ...]:
    """The duties of `group`, in the order in which they are asked."""
    duties: list[Duty] = []
    if asks_gateway(group):
        # These modules bring their libraries with them: only who asks for them loads them.
        from strangler_proxy.gateway.assemble import gateway_duties  # noqa: PLC0415

        duties.extend(gateway_duties(group, plane))
    if group.in_flight is not None:
        from strangler_proxy.bulkhead import Bulkhead  # noqa: PLC0415  # as above

        duties.append(Bulkhead(group.in_flight, group.name, plane.under_way))
    if group.shadow is not None:  # last: what others refuse or answer is not compared
        from strangler_proxy.shadow import Shadowing  # noqa: PLC0415  # as above

        duties.append(Shadowing(group.shadow, group=group, plane=plane, recorder=plane.comparison_recorder()))
    return tuple(duties)


def asks_gateway(group: Group) -> bool:
    """Does `group` ask for anything that `strangler_proxy/gateway` does?"""
    return bool(group.rates or group.auth or group.transforms or group.cache or group.aggregate)
