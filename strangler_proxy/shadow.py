"""The duty of comparing: after the answer went out, the other side is asked the same, and the two are compared.

    user's answer goes out ─► end ─► other side asked ─► compare ─┬─► recorded
                                                          ▲       ├─► candidate behind: wait, ask it once more ─┐
                                                          └───────┴─► they differ: ask the control once more ───┘

Whoever answered the user, control or candidate, the other side is the one that is asked. Nothing of it reaches
the user or the outcomes that rollback is decided by; it has counts of its own (`comparisons.py`).

It spares everybody: so many at once for each worker, and what is more is dropped, never queued; bodies up to a
size; a deadline of its own; nothing while the control is slower than usual, while a breaker is open, or when
comparing would take more than a quarter of this worker's time.

The proxy's own requests carry `X-Strangler-Shadow: 1`: a service must not write then, and says
`X-Strangler-Side-Effect` when it tried. `X-Strangler-Position: wanted` asks the control for the position of its
log (`X-Strangler-LSN`); it goes with the user's own request too, or nobody could tell a stale answer from a
wrong one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import structlog

from strangler_proxy.compare import Comparison, Recorded, Step, Verdict, compare, next_step
from strangler_proxy.compare_rules import Compiled, Rules, compile_rules
from strangler_proxy.comparisons import Occasion, Recorder
from strangler_proxy.duties import Admission, Call, Duty, Outgoing
from strangler_proxy.fetch import Fetch, Fetched
from strangler_proxy.headers import RawHeaders, ResponseHead, value_of
from strangler_proxy.shadow_policy import LatencyWatch, Sampler, Shadow, Templates, lsn_of, query_shape
from strangler_proxy.table import Backend, Group

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

MARKER = b"X-Strangler-Shadow: 1\r\n"
POSITION_WANTED = b"X-Strangler-Position: wanted\r\n"
_REST = 3.0  # times as long as a comparison took, no other begins: a quarter of the time at most
_CONDITIONS = (b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"range")


@dataclass(slots=True)
class _Drawn:
    """What is kept of the answer to a request that was drawn (and, of one that was not, when it began)."""

    began: float
    drawn: bool
    template: str = ""
    status: int = 0
    headers: RawHeaders = ()
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Shadowing(Duty):
    """Compares requests of one group, as `shadow` says."""

    taps = True

    def __init__(self, shadow: Shadow, *, group: Group, plane: DataPlane, recorder: Recorder) -> None:
        self.shadow = shadow
        self.plane = plane
        self.recorder = recorder
        self.rest_until = 0.0
        self._group = group
        self._default = plane.routes.default
        self._sampler = Sampler(shadow.percent)
        self._templates = Templates(shadow.rules, group.paths)
        self._watch = LatencyWatch()
        self._rules: dict[str, Rules] = {rules.template: rules for rules in shadow.rules}
        self._compiled: dict[str, Compiled] = {}
        self._compiled_on: date | None = None

    # Duty

    def admit(self, call: Call) -> Admission:
        """Draw."""
        request = call.request
        if request.method not in (b"GET", b"HEAD") or not call.decision.evidence:
            return None
        now = self.plane.loop.time()
        template = self._templates.of(request.path.decode("latin-1"))
        query = request.target.partition(b"?")[2].decode("latin-1")
        known = "known" if b"sessionid=" in request.head.cookies else "anonymous"
        drawn = self._sampler.takes(f"{template} {known} {query_shape(query)}", call.request_id)
        call.notes[self] = _Drawn(now, drawn, template)
        return None

    def request(self, call: Call, outgoing: Outgoing) -> None:
        """The control is asked how far its log is."""
        noted = call.notes.get(self)
        if noted is not None and noted.drawn and outgoing.backend == self._default:
            outgoing.lines.append(POSITION_WANTED)

    def response(self, call: Call, status: int, head: ResponseHead) -> None:
        """Keep the head that is passed on."""
        noted = call.notes.get(self)
        if noted is not None:
            noted.status, noted.headers = status, head.raw

    def body(self, call: Call, data: bytes) -> None:
        """Keep the body, up to the largest that is compared."""
        noted = call.notes.get(self)
        if noted is None or not noted.drawn:
            return
        if noted.size < self.shadow.max_body:
            noted.pieces.append(data[: self.shadow.max_body - noted.size])
        noted.size += len(data)

    def end(self, call: Call, *, complete: bool) -> None:
        """The answer went out."""
        noted: _Drawn | None = call.notes.pop(self, None)
        if noted is None:
            return
        if complete and call.answered_by == self._default:
            self._watch.answered(self.plane.loop.time() - noted.began)
        if not noted.drawn:
            return
        occasion = Occasion(
            group=self._group.name,
            template=noted.template,
            method=call.request.method.decode("ascii"),
            target=call.request.target.decode("latin-1"),
            request_id=call.request_id.decode("ascii"),
            at_ns=time.time_ns(),
        )
        unfit = self._unfit(call, noted, complete=complete)
        if unfit:
            self.recorder.not_compared(occasion, unfit)
        elif reason := self._spares():
            self.recorder.dropped(self._group.name, reason)
        else:
            _Shadowed(self, call, noted, occasion).begin()
            return
        self.plane.outcome_recorded(urgent=False)

    # What is left out

    @staticmethod
    def _unfit(call: Call, noted: _Drawn, *, complete: bool) -> str:
        """Why this request says nothing, or empty."""
        request = call.request
        if not noted.status:
            return "answered by the proxy"
        if not complete:
            return "the client left"
        if call.answered_by != call.decision.backend:
            return "fallback"
        if request.head.chunked or request.head.length:
            return "request with a body"
        if any(value_of(request.headers, name) for name in _CONDITIONS):
            return "conditional request"
        return ""

    def _spares(self) -> str:
        """Whom a comparison would burden too much now, or empty."""
        plane = self.plane
        backends = [plane.routes.backends.get(name) for name in (self._default, self._group.backend)]
        if plane.draining:
            return "draining"
        if self.recorder.running[self._group.name] >= self.shadow.concurrency:
            return "concurrency"
        if self._watch.strained:
            return "control slow"
        if plane.loop.time() < self.rest_until:
            return "worker busy"
        if any(backend is None or plane.breaker_pause(backend) > 0 for backend in backends):
            return "breaker open"
        return ""

    # For the comparison under way

    def rules(self, template: str) -> Compiled:
        """The rules of a template as they stand today (UTC)."""
        today = datetime.now(UTC).date()
        if today != self._compiled_on:
            self._compiled_on = today
            self._compiled.clear()
        compiled = self._compiled.get(template)
        if compiled is None:
            declared = self._rules.get(template) or Rules(template)
            compiled = self._compiled[template] = compile_rules(declared, today=today)
            for ignore in compiled.expired:
                structlog.get_logger().warning(
                    "an ignored place counts again",
                    group=self._group.name,
                    template=template,
                    path=ignore.path,
                    owner=ignore.owner,
                    until=ignore.until.isoformat(),
                )
        return compiled

    def control_answered(self, seconds: float) -> None:
        """The control took `seconds` for a request of ours."""
        self._watch.answered(seconds)


class _Shadowed:
    """One comparison under way. It counts as running from `begin` to `_settle`, exactly once."""

    def __init__(self, duty: Shadowing, call: Call, noted: _Drawn, occasion: Occasion) -> None:
        self._duty = duty
        self._call = call
        self._occasion = occasion
        backends = call.routes.backends
        self._control_backend = backends[call.routes.default]
        self._candidate_backend = backends[call.group.backend]
        body = b"".join(noted.pieces)
        cut = noted.size > duty.shadow.max_body
        answered = _recorded(noted.status, noted.headers, body, cut=cut)
        self._control: Recorded | None = None
        self._candidate: Recorded | None = None
        if call.answered_by == call.routes.default:
            self._control = answered
        else:
            self._candidate = answered
        self._again: Recorded | None = None
        self._waited = False

    def begin(self) -> None:
        """Ask the other side."""
        self._duty.recorder.running[self._occasion.group] += 1
        if self._control is None:
            self._ask(self._control_backend, self._control_came)
        else:
            self._ask(self._candidate_backend, self._candidate_came)

    def _ask(self, backend: Backend, done: _Came) -> None:
        duty, call = self._duty, self._call
        request = call.request
        outgoing = Outgoing(backend.name, request.target, request.lines())
        for other in duty.plane.duties.get(call.group.name, ()):
            if other.rewrites:
                other.request(call, outgoing)
        position = POSITION_WANTED if backend is self._control_backend else b""
        own = (b"Host: %b\r\n" % request.head.host, call.origin.lines, MARKER, position)
        Fetch(
            duty.plane,
            backend=backend,
            method=request.method,
            target=outgoing.target,
            lines=[*own, b"X-Request-ID: %b\r\n" % call.request_id, *outgoing.lines],
            seconds=duty.shadow.timeout,
            max_body=duty.shadow.max_body,
            done=done,
        ).start()

    def _control_came(self, fetched: Fetched) -> None:
        self._control = self._of_control(fetched)
        self._judge()

    def _candidate_came(self, fetched: Fetched) -> None:
        self._candidate = _of(fetched)
        self._judge()

    def _control_came_again(self, fetched: Fetched) -> None:
        self._again = self._of_control(fetched)
        self._judge()

    def _of_control(self, fetched: Fetched) -> Recorded:
        self._duty.control_answered(fetched.seconds)
        return _of(fetched)

    def _judge(self) -> None:
        """Compare what there is, and settle it or ask for what is missing."""
        plane = self._duty.plane
        if plane.draining:
            self._leave()
            return
        result = self._compare()
        match next_step(result, waited=self._waited, asked_again=self._again is not None):
            case Step.CANDIDATE_LATER:
                self._waited = True
                plane.loop.call_later(self._duty.shadow.patience, self._ask_later)
            case Step.CONTROL_AGAIN:
                self._ask(self._control_backend, self._control_came_again)
            case Step.DONE:
                self._settle(result)

    def _ask_later(self) -> None:
        if self._duty.plane.draining:
            self._leave()
        else:
            self._ask(self._candidate_backend, self._candidate_came)

    def _compare(self) -> Comparison:
        assert self._control is not None
        assert self._candidate is not None
        loop = self._duty.plane.loop
        began = loop.time()
        try:
            result = compare(
                self._control,
                self._candidate,
                rules=self._duty.rules(self._occasion.template),
                again=self._again,
                query=self._occasion.target.partition("?")[2],
                head=self._occasion.method == "HEAD",
            )
        except Exception:  # a fault of the comparison is nobody's but ours, and no request's
            structlog.get_logger().exception("comparison failed", request_id=self._occasion.request_id)
            result = Comparison(Verdict.NOT_COMPARED, reason="the comparison failed: see the proxy's log")
        ended = loop.time()
        self._duty.rest_until = ended + _REST * (ended - began)
        return result

    def _settle(self, result: Comparison) -> None:
        duty = self._duty
        duty.recorder.compared(result, self._occasion, full=duty.shadow.full_examples)
        self._leave()
        duty.plane.outcome_recorded(urgent=False)

    def _leave(self) -> None:
        self._duty.recorder.running[self._occasion.group] -= 1


_Came = Callable[[Fetched], None]


def _of(fetched: Fetched) -> Recorded:
    failure = fetched.failure.value if fetched.failure is not None else ""
    return _recorded(fetched.status, fetched.headers, fetched.body, cut=fetched.cut, failure=failure)


def _recorded(status: int, headers: RawHeaders, body: bytes, *, cut: bool, failure: str = "") -> Recorded:
    """An answer as the comparison takes it; its position is the log's (control) or the one applied."""
    position = value_of(headers, b"x-strangler-lsn") or value_of(headers, b"x-strangler-applied")
    return Recorded(
        status=status,
        headers=headers,
        body=body,
        failure=failure,
        cut=cut,
        position=lsn_of(position),
        wrote=bool(value_of(headers, b"x-strangler-side-effect")),
    )
