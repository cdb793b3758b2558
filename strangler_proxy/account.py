"""What one request of a group adds to the outcomes: the rules of what counts, in one place.

A request is decided once and counted once, on the arm it was decided for, whoever answered in the end;
`outcomes.py` says what is evidence. Requests that no group claims have no account.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from strangler_proxy.decide import Arm, Decision
from strangler_proxy.duties import CACHED, Answer, Refusal
from strangler_proxy.outcomes import Failure
from strangler_proxy.table import UNROUTED, Backend, Routes

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane


class Account:
    """The account of one request. `started` is a reading of `time.perf_counter`; `falling_back` is set once
    the default backend was asked in the canary's place.
    """

    __slots__ = ("decision", "digest", "falling_back", "group", "path", "plane", "request_id", "started")

    def __init__(
        self,
        plane: DataPlane,
        group: str,
        *,
        decision: Decision,
        digest: int,
        request_id: bytes,
        path: bytes,
        started: float,
    ) -> None:
        self.plane = plane
        self.group = group
        self.decision = decision
        self.digest = digest
        self.request_id = request_id
        self.path = path
        self.started = started
        self.falling_back = False

    def answered(self, status: int) -> None:
        """A whole answer with `status` was passed on."""
        decision = self.decision
        if not decision.evidence:
            self._no_evidence()
        elif self.falling_back:
            self.plane.recorder.fell_back(self.group, decision.arm, good=status < 500)
        elif status >= 500:
            self._evidence(Failure.STATUS, status)
            return
        else:
            self.plane.recorder.answered(
                self.group,
                decision.arm,
                status=status,
                latency_ms=(time.perf_counter() - self.started) * 1000,
                client=self.digest,
                weight=decision.weight_number,
            )
        self.plane.outcome_recorded(urgent=False)

    def failed(self, failure: Failure, status: int) -> None:
        """An attempt failed; `status` is the backend's, 0 when it gave none."""
        if not self.decision.evidence:
            self._no_evidence()
            self.plane.outcome_recorded(urgent=False)
        elif self.falling_back:
            self.plane.recorder.fell_back(self.group, self.decision.arm, good=False)
            self.plane.outcome_recorded(urgent=False)
        else:
            self._evidence(failure, status)

    def rejected(self) -> None:
        """An open breaker kept the request away, from the arm or from the default backend in its place."""
        if self.falling_back:
            self.plane.recorder.fell_back(self.group, self.decision.arm, good=False)
        else:
            self.plane.recorder.rejected(self.group, self.decision.arm)
        self.plane.outcome_recorded(urgent=False)

    def aborted(self) -> None:
        """The client went away, or broke its own request."""
        self.plane.recorder.aborted(self.group, self.decision.arm)
        self.plane.outcome_recorded(urgent=False)

    def _no_evidence(self) -> None:
        recorder, decision = self.plane.recorder, self.decision
        if decision.guarded:
            recorder.guarded(self.group, decision.arm)
        else:
            recorder.overridden(self.group, decision.arm)

    def _evidence(self, failure: Failure, status: int) -> None:
        self.plane.recorder.failed(
            self.group,
            self.decision.arm,
            failure=failure,
            status=status,
            latency_ms=(time.perf_counter() - self.started) * 1000,
            client=self.digest,
            weight=self.decision.weight_number,
            at_ns=time.time_ns(),
            request_id=self.request_id.decode("ascii"),
            path=self.path.decode("latin-1"),
        )
        self.plane.outcome_recorded(urgent=True)


def count_own_answer(plane: DataPlane, account: Account | None, said: Refusal | Answer) -> None:
    """The proxy answers itself, by a duty's word: no evidence for either arm. Without an account it is a request
    that no group claims."""
    group, arm = (UNROUTED, Arm.CONTROL) if account is None else (account.group, account.decision.arm)
    if said.kind == CACHED:
        plane.recorder.cached(group, arm)
    elif said.kind:
        plane.recorder.refused(group, arm, said.kind)
    else:
        return
    plane.outcome_recorded(urgent=False)


class Reporting:
    """Tells the account of a request, and the breaker of whom it was sent to, what became of it. `_permit` is the
    breaker's, None when there is nothing to tell it."""

    __slots__ = ("_account", "_backend", "_permit", "_plane", "_routes", "_status")

    _account: Account | None
    _backend: Backend
    _permit: int | None
    _plane: DataPlane
    _routes: Routes
    _status: int

    def _tell_breaker(self, *, ok: bool) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._plane.breaker_record(self._backend, ok=ok, epoch=permit)

    def _forget_permit(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._plane.breaker_forget(self._backend, epoch=permit)

    def _record_answer(self) -> None:
        status = self._status
        self._tell_breaker(ok=status < 500 or self._backend.name == self._routes.default)
        if self._account is not None:
            self._account.answered(status)

    def _record_failure(self, failure: Failure, status: int) -> None:
        # The default backend has no stand-in: only what shows that it cannot be reached opens its breaker,
        # not the 500s that some monoliths answer on some URLs all day long.
        self._tell_breaker(ok=failure is Failure.STATUS and self._backend.name == self._routes.default)
        if self._account is not None:
            self._account.failed(failure, status)

    def _record_aborted(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._plane.breaker_forget(self._backend, epoch=permit)
        if self._account is not None:
            self._account.aborted()
