"""One request's life, from its head to the last byte of the answer.

    start ─► decide ─► breaker ─► connection ─► send ─► answer's head ─► body ─► end
                          │           │                     │             │
                          └───────────┴──────── failed ─────┘             └─► cut the client off
                                                  │
                                    safe, group allows it, canary's first failure?
                                       yes ─► the default backend answers     no ─► 502, 503, 504 or the 5xx

Whether a fallback is needed is known at the status line, so good answers are streamed without being held
back. A failed answer's outcome is recorded at the moment it is known, before the fallback is asked.

Everything here runs in callbacks of the event loop; there is no task and no await. The invariant: after
`_finish` an exchange holds no connection, waits in no pool and is in nobody's list.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from strangler_proxy.account import Account, count_own_answer
from strangler_proxy.answers import describe
from strangler_proxy.buckets import digest_of
from strangler_proxy.cluster.members import Tries
from strangler_proxy.decide import SAFE_METHODS, Arm, Decision, unrouted
from strangler_proxy.duties import Answer, Attendance, Call, Duty, Refusal, Waiting
from strangler_proxy.headers import Origin, RawHeaders, ResponseHead, has_body, request_bytes
from strangler_proxy.identity import anonymous_key, identify
from strangler_proxy.outcomes import Failure
from strangler_proxy.phase import (
    ADMISSION,
    ADMISSION_SECONDS,
    BUFFER_LIMIT,
    BUSY_SECONDS,
    CONNECTING,
    DONE,
    NEW,
    RUNNING,
)
from strangler_proxy.replying import Replying
from strangler_proxy.request import Client, Request
from strangler_proxy.table import Backend, Group, StickyKind, Timeouts
from strangler_proxy.trailers import trailer_lines
from strangler_proxy.upstream import Pool, UpstreamConnection

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

_CANARY: Final = Arm.CANARY


class Exchange(Replying):
    """One request and its answer. See the module's drawing."""

    __slots__ = (
        "_asked_at",
        "_body_blocked",
        "_connection",
        "_duties",
        "_head_sent",
        "_head_waits",
        "_outbox",
        "_outbox_size",
        "_phase",
        "_pool",
        "_replay",
        "_replay_size",
        "_retried",
        "_safe",
        "_timeouts",
        "_to_client",
        "_total_deadline",
        "_tries",
        "_upstream_blocked",
        "deadline",
        "limit",
    )

    def __init__(self, plane: DataPlane, client: Client, request: Request, *, complete: bool) -> None:
        self._plane = plane
        self._client = client
        self._request = request
        self._safe = request.method in SAFE_METHODS
        self._head_request = request.method == b"HEAD"
        self._phase: int = NEW
        self._outbox: list[bytes] = []
        self._outbox_size = 0
        self._replay: list[bytes] | None = []
        self._replay_size = 0
        self._to_client: list[bytes] = []
        self._connection: UpstreamConnection | None = None
        self._pool: Pool | None = None
        self._decision: Decision | None = None
        self._group: Group | None = None
        self._issue = b""
        self._account: Account | None = None
        self._falling_back = False
        self._retried = False
        self._tries: Tries | None = None  # of a backend with several instances
        self._permit: int | None = None
        self._head_sent = False
        self._head_waits = False
        self._rechunk = False
        self._close_after = False
        self._body_blocked = False
        self._upstream_blocked = False
        self._status = 0
        self._total_deadline: float | None = None
        self._request_id = request.head.request_id
        self._wrote = b""
        self._asked_at = plane.now()
        self._duties: Attendance | None = None
        self._origin: Origin
        self._timeouts: Timeouts
        self.limit: float | None = (
            None  # seconds that each attempt may take at most, whatever the routes allow
        )
        self.deadline = 0.0
        self.request_complete = complete

    # From the client's connection

    @property
    def upgrades(self) -> bool:
        """Does the client ask for another protocol?"""
        return bool(self._request.head.upgrade)

    def start(self) -> None:
        """Decide and send. May end the exchange before it returns."""
        plane, request = self._plane, self._request
        started = time.perf_counter()
        routes = self._routes = plane.routes
        self._origin = self._client.origin(routes, request.head)
        if not self._request_id:
            self._request_id = plane.new_request_id()
        group = self._group = routes.lookup(request.path)
        plane.active.add(self)
        if request.head.via and routes.via.circles(request.head.via):
            self._answer(
                508, "the request goes round in circles: a backend's address leads to the proxy itself"
            )
            return
        if group is None:
            self._timeouts = routes.backends[routes.default].timeouts
            if plane.rest_duties and routes.rest is not None:
                self._begin_duties(plane.rest_duties, routes.rest, unrouted(routes.default), 0)
            else:
                self._attempt(routes.backends[routes.default])
            return
        choices = plane.choices[group.name]
        digest = plane.digests.find(group.name, request.head.cookies) if choices.by_cookie else -1
        if digest < 0:
            digest = self._digest(group, remember=choices.by_cookie)
        decision = self._decision = choices.decide(
            safe=self._safe, digest=digest, override=request.override(group)
        )
        if plane.guard is not None and self._safe and decision.evidence:
            decision = self._decision = plane.guard.kept_fresh(decision, group, request, self._origin)
        self._account = Account(
            plane,
            group.name,
            decision=decision,
            digest=digest,
            request_id=self._request_id,
            path=request.path,
            started=started,
        )
        self._timeouts = (
            group.timeouts if decision.arm is _CANARY else routes.backends[decision.backend].timeouts
        )
        duties = plane.duties.get(group.name)
        if duties:
            self._begin_duties(duties, group, decision, digest)
        else:
            self._attempt(routes.backends[decision.backend])

    def _digest(self, group: Group, *, remember: bool) -> int:
        """Who asks, as the digest within the group; who has no identity yet is issued one."""
        plane, request = self._plane, self._request
        key = identify(
            sticky=group.sticky,
            signer=plane.signer,
            cookies=request.head.cookies,
            named_header=request.sticky_header(group),
            ip=self._origin.address,
            subject=plane.subject(request, group) if group.sticky.kind is StickyKind.JWT else b"",
        )
        if key:
            digest = digest_of(group.name, key)
            if remember:
                plane.digests.keep(group.name, request.head.cookies, digest)
            return digest
        self._issue = plane.new_anonymous_id()
        return digest_of(group.name, anonymous_key(self._issue))

    def body(self, data: bytes) -> None:
        """A piece of the request's body, without transfer coding."""
        if self._phase == DONE:
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._request.head.chunked else data
        self._queue(framed)
        if self._phase == RUNNING:
            self._await_upstream(self._routes.listen.body_timeout)

    def body_end(self, trailers: RawHeaders = ()) -> None:
        """The request is whole."""
        self.request_complete = True
        if self._phase == DONE:
            return
        if self._request.head.chunked:
            self._queue(b"0\r\n%b\r\n" % trailer_lines(trailers))
        if self._phase == RUNNING:
            self._await_upstream(self._timeouts.read)

    def flush(self) -> None:
        """Everything that was received at once has been handed over: send it."""
        if self._connection is not None and self._outbox:
            data = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
            self._outbox.clear()
            self._outbox_size = 0
            self._connection.write(data)
        self._update_body_blocked()

    def client_gone(self) -> None:
        """The client's connection is lost. Not evidence against anybody."""
        if self._phase == DONE:
            return
        self._lost()
        self._record_aborted()
        self._finish(close=True, abort=True)

    def client_fault(self, status: int, reason: str) -> None:
        """The client's request turned out to be broken, or stopped, in the middle of its body."""
        if self._phase == DONE:
            return
        self._lost()
        self._record_aborted()
        if self._head_sent:
            self._finish(close=True, abort=True)
        else:
            self._answer(status, reason)

    def client_writable(self) -> None:
        """The client takes bytes again."""
        if self._connection is not None:
            self._connection.resume()
            self._await_upstream(self._timeouts.read)

    def expired(self, now: float) -> None:
        """`deadline` has passed. Whose silence was it?"""
        if self._phase == DONE or now < self.deadline:
            return  # an end or a step that another's expiry brought about in this same moment
        running = self._phase == RUNNING
        if self._phase == ADMISSION:
            self._answer(503, "what must be asked before this request did not answer in time")
        elif running and self._client.write_blocked:
            self.client_gone()
        elif running and not self.request_complete and not self._upstream_blocked:
            self.client_fault(408, "the request's body stopped coming")
        else:
            self._drop_upstream()
            if not self._elsewhere(sent=running):
                self._failed(Failure.TIMEOUT, 0)

    # From the connection to the backend (upstream.Exchange)

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        """A connection is there: send what there is of the request."""
        self._phase = RUNNING
        self._connection = connection
        request = self._request
        # Duties work on separate lines; nobody else minds the head of the answer in one piece.
        connection.begin(
            self,
            head_request=self._head_request,
            whole=self._duties is None,
            upgrade=request.head.upgrade,
        )
        target = request.target
        lines: list[bytes] | None = None
        if self._duties is not None:
            outgoing = self._duties.request(self._backend, target, request.lines())
            target, lines = outgoing.target, outgoing.lines
        elif not request.head.ready:
            lines = request.head.lines
        head = request_bytes(
            method=request.method,
            target=target,
            lines=lines,
            head=request.head,
            origin=self._origin,
            request_id=self._request_id,
            extra=request.override_line(self._group) if self._group is not None else b"",
        )
        if self._outbox:
            self._outbox.insert(0, head)
            self.flush()
        else:
            connection.write(head)
        if self.request_complete:
            self._await_upstream(self._timeouts.read)
        else:
            self._await_upstream(self._routes.listen.body_timeout)

    def upstream_unavailable(self, failure: Failure) -> None:
        """No connection could be had."""
        self._pool = None
        if not self._elsewhere(sent=False):
            self._failed(failure, 0)

    def interim_response(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """A 1xx answer: passed on to a client that knows them."""
        if self._request.http11 and not self._falling_back:
            self._to_client.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join(head.lines)))

    def upstream_switched(self, reason: bytes, head: ResponseHead, rest: bytes) -> None:
        """101: counted now, as one good answer; what it took (a duty's, the pool's) is given back at the end."""
        connection, self._connection = self._connection, None
        assert connection is not None
        self._status = 101
        if self._duties is not None:
            self._duties.response(self._backend, 101, head)
            self._duties.complete = True
        self._to_client.append(self._response_bytes(101, reason, head))
        self._to_client.append(rest)
        self._record_answer()
        self._phase = DONE
        self._plane.active.discard(self)

        def ended() -> None:
            connection.forget()
            if self._duties is not None:
                self._duties.end()

        self._client.switch(connection.detach(), b"".join(self._to_client), ended)

    def response_head(self, status: int, reason: bytes, head: ResponseHead) -> None:
        """The answer begins: pass it on, or let the default backend answer instead."""
        self._status = status
        if status >= 500 and self._may_fall_back():
            connection, self._connection = self._connection, None
            assert connection is not None
            self._record_failure(Failure.STATUS, status)
            connection.abandon()
            self._fall_back()
            return
        if self._duties is not None:
            self._duties.response(self._backend, status, head)
        guard = self._plane.guard
        if guard is not None:
            side = self._backend.name
            asked_at = self._asked_at
            self._wrote = guard.answered(
                self._request, self._origin, side=side, head=head, issued=self._issue, asked_at=asked_at
            )
        self._to_client.append(self._response_bytes(status, reason, head))
        holds = self._replay is not None and self._duties is None
        self._head_waits = holds and has_body(status, head, head_request=self._head_request)
        self._await_upstream(self._timeouts.read)

    def response_body(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self._duties is not None:
            self._duties.body(data)
        if self._rechunk:
            self._to_client.append(b"%x\r\n" % len(data))
            self._to_client.append(data)
            self._to_client.append(b"\r\n")
        else:
            self._to_client.append(data)

    def response_flush(self) -> None:
        """Write to the client what came at once."""
        out = self._to_client
        if not out:
            return
        if self._head_waits and len(out) == 1:
            self._await_upstream(self._timeouts.read)  # until the body begins, a dead backend can be replaced
            return
        self._head_waits = False
        self._client.send(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        if self._status:  # until here an answer that breaks off can still be replaced
            self._head_sent = True
        if self._client.write_blocked and self._connection is not None:
            self._connection.pause()
            self._await_upstream(self._routes.listen.body_timeout)
        else:
            self._await_upstream(self._timeouts.read)

    def response_end(self, trailers: RawHeaders = ()) -> None:
        """The answer is whole; trailers are passed to a client that asked for them (RFC 9110 §6.5.1)."""
        self._connection = None
        if self._rechunk:
            wanted = self._request.head.trailers
            self._client.send(b"0\r\n%b\r\n" % (trailer_lines(trailers) if wanted else b""))
        if self._duties is not None:
            self._duties.complete = True
        self._record_answer()
        self._finish(close=self._close_after or not self.request_complete, abort=False)

    def upstream_failed(self, failure: Failure, *, first_byte: bool, reused: bool) -> None:
        """The connection broke. A kept-alive one that broke before any byte was just being closed: once
        again."""
        self._connection = None
        self._to_client.clear()
        if not self._head_sent:
            self._status = 0
        stale = failure is Failure.RESET and reused and not first_byte
        if stale and self._safe and not self._retried and self._replay is not None:
            self._retried = True
            self._outbox = list(self._replay)
            self._acquire(new=True)
        elif self._head_sent or failure is not Failure.RESET or not self._elsewhere(sent=True):
            self._failed(failure, 0)

    def upstream_blocked(self, *, blocked: bool) -> None:
        """The backend does not take the body as fast as it comes."""
        self._upstream_blocked = blocked
        waits_for_backend = blocked or self.request_complete
        self._await_upstream(self._timeouts.read if waits_for_backend else self._routes.listen.body_timeout)
        self._update_body_blocked()

    # Duties

    def _begin_duties(self, duties: tuple[Duty, ...], group: Group, decision: Decision, digest: int) -> None:
        self._backend = self._routes.backends[decision.backend]
        call = Call(
            plane=self._plane,
            client=self._client,
            issue=self._issue,
            routes=self._routes,
            group=group,
            request=self._request,
            origin=self._origin,
            decision=decision,
            digest=digest,
            request_id=self._request_id,
            _resume=self._resume,
        )
        self._duties = Attendance(duties, call)
        self._phase = ADMISSION
        self._await_upstream(ADMISSION_SECONDS)
        self._resume(None)

    def _resume(self, said: Refusal | Answer | None) -> None:
        if self._phase != ADMISSION:
            return  # the client has left, or waited long enough
        assert self._duties is not None
        admission = self._duties.admit() if said is None else said
        match admission:
            case None:
                self._attempt(self._backend)
            case Refusal():
                count_own_answer(self._plane, self._account, admission)
                lines, wait = admission.lines, admission.retry_after
                self._answer(admission.status, admission.detail, retry_after=wait, lines=lines)
            case Answer():
                count_own_answer(self._plane, self._account, admission)
                self._answer_with(admission)
            case Waiting():
                pass

    # Attempts

    def _attempt(self, backend: Backend) -> None:
        plane = self._plane
        counts = self._decision is None or self._decision.counts
        tries = None if backend.several is None else Tries(plane, backend, safe=self._safe, counts=counts)
        instance = backend if tries is None else tries.next()
        self._tries, self._backend = tries, instance or backend
        if counts and instance is not None:
            self._permit = plane.breaker_permits(instance)
        if instance is None or (counts and self._permit is None):
            self._rejected(plane.breaker_pause(backend))
            return
        total = self._timeouts.total
        if self.limit is not None and (total is None or self.limit < total):
            total = self.limit
        self._total_deadline = plane.now() + total if total is not None else None
        self._acquire(new=False)

    def _acquire(self, *, new: bool) -> None:
        plane = self._plane
        self._phase = CONNECTING
        self._upstream_blocked = False
        self._await_upstream(self._timeouts.connect)
        pool = self._pool = plane.pool(self._backend)
        if pool.full:  # says nothing of the backend: no evidence
            self._pool = None
            self._forget_permit()
            self._rejected(BUSY_SECONDS)
            return
        connection = pool.acquire(self, now=plane.now(), safe=self._safe, new=new)
        if connection is not None:
            self.upstream_ready(connection)

    def _elsewhere(self, *, sent: bool) -> bool:
        """Does another instance of the backend take the request over? `sent`: the last one had it."""
        if self._tries is None or self._status or (sent and self._replay is None):
            return False
        if self._total_deadline is not None and self._plane.now() >= self._total_deadline:
            return False  # it would be blamed for not answering at once
        instance = self._tries.next(sent=sent)
        if instance is None:
            return False
        counts = self._permit is not None
        self._tell_breaker(ok=False)
        if sent and self._replay is not None:
            self._outbox = list(self._replay)
        self._backend = instance
        self._permit = self._plane.breaker_permits(instance) if counts else None
        self._acquire(new=False)
        return True

    def _may_fall_back(self) -> bool:
        decision = self._decision
        return (
            decision is not None
            and decision.fallback
            and not self._falling_back
            and not self._head_sent
            and self._replay is not None
        )

    def _fall_back(self) -> None:
        assert self._replay is not None
        assert self._account is not None
        self._falling_back = self._account.falling_back = True
        self._status = 0
        self._outbox = list(self._replay)
        self._to_client.clear()
        self._timeouts = self._routes.backends[self._routes.default].timeouts
        self._attempt(self._routes.backends[self._routes.default])

    def _rejected(self, retry_after: float) -> None:
        if self._account is not None:
            self._account.rejected()
        if self._may_fall_back():
            self._fall_back()
            return
        busy = retry_after == BUSY_SECONDS
        detail = f"backend {self._backend.name} is {'busy' if busy else 'failing and is given a pause'}"
        self._answer(503, detail, retry_after=retry_after)

    def _failed(self, failure: Failure, status: int) -> None:
        """The attempt failed without an answer that could be passed on."""
        self._lost()
        self._record_failure(failure, status)
        if self._head_sent:
            self._finish(close=True, abort=True)
        elif self._may_fall_back():
            self._fall_back()
        else:
            status = 504 if failure is Failure.TIMEOUT else 502
            self._answer(status, f"backend {self._backend.name} {describe(failure)}")

    def _lost(self) -> None:
        """What was sent may have been done, though no answer says so."""
        if self._plane.guard is not None and not self._wrote and self._phase == RUNNING:
            self._plane.guard.lost(self._request, self._origin, side=self._backend.name)

    def _drop_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        elif self._pool is not None and self._phase == CONNECTING:
            self._pool.cancel(self)

    def _finish(self, *, close: bool, abort: bool) -> None:
        self._drop_upstream()
        self._phase = DONE
        self._plane.active.discard(self)
        if self._duties is not None:
            self._duties.end()
        self._client.exchange_done(close=close, abort=abort)

    # Deadlines and back-pressure

    def _await_upstream(self, seconds: float) -> None:
        deadline = self._plane.now() + seconds
        total = self._total_deadline
        self.deadline = deadline if total is None or deadline < total else total

    def _queue(self, framed: bytes) -> None:
        self._outbox.append(framed)
        self._outbox_size += len(framed)
        if self._replay is not None:
            self._replay_size += len(framed)
            if self._safe and self._replay_size <= BUFFER_LIMIT:
                self._replay.append(framed)
            else:
                self._replay = None

    def _update_body_blocked(self) -> None:
        blocked = self._upstream_blocked or self._outbox_size > BUFFER_LIMIT
        if blocked is not self._body_blocked:
            self._body_blocked = blocked
            self._client.body_blocked(blocked=blocked)
