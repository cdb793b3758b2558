"""Memory of the outcome stream: the rollback watch of the present stage, and the counts its gates ask for.

Not a decider: rollback.py and gates.py decide on what is kept here. The watch begins anew when the ledger
counts a new test (another stage, a retry, a new controller); gates count from the later of that and the
last break of the stream, for what passed while nobody looked is not evidence.

Turns run in a thread beside the reader of the stream, so every method holds the lock: an outcome that is being taken
in must not bring back the watch that a turn has just replaced.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from threading import RLock

from migration_plans.gates import CanarySignal
from migration_plans.outcomes import Arm, Good, Outcome
from migration_plans.rollback import Limits, Verdict, Watch, fold, judge


@dataclass(slots=True)
class Monitor:
    """Fed by the controller, times in Unix seconds."""

    limits: Limits
    watch: Watch | None = None
    test: int = -1
    connected_since: float | None = None
    heard_at: float | None = None
    control_requests: int = 0
    control_errors: int = 0
    _requests: int = 0
    _errors: int = 0
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)

    def watch_for(self, *, percent: Decimal, test: int, steady: bool) -> None:
        """Watch at `percent` as the `test`-th test; keeps what it has when that is what it does already."""
        with self._lock:
            if not percent:
                self.watch = None
                self.test = -1
                return
            if self.watch is None or self.test != test or self.watch.percent != percent:
                self.watch = Watch.begin(
                    self.limits,
                    percent=percent,
                    test=max(1, test),
                    steady=steady,
                    control_requests=self.control_requests,
                    control_errors=self.control_errors,
                )
                self.test = test
                self._requests = self._errors = 0
            elif steady and not self.watch.steady:
                self.watch = self.watch.settled()

    def connected(self, now: float) -> None:
        """The stream begins to speak."""
        with self._lock:
            self.connected_since = self.heard_at = now
            self._requests = self._errors = 0

    def disconnected(self) -> None:
        """The stream is cut."""
        with self._lock:
            self.connected_since = None

    def take(self, outcome: Outcome) -> Verdict | None:
        """Take in one outcome; a verdict after each that may have changed it for the worse."""
        with self._lock:
            count = outcome.count if isinstance(outcome, Good) else 1
            bad = not isinstance(outcome, Good)
            if outcome.arm is Arm.CONTROL:
                self.control_requests += count
                self.control_errors += bad
            if self.watch is None:
                return None
            if outcome.arm is Arm.CANARY and outcome.percent == self.watch.percent:
                self._requests += count
                self._errors += bad
            awaited = bool(self.watch.failing_run) and outcome.arm is Arm.CONTROL
            self.watch = fold(self.watch, outcome)
            return judge(self.watch) if bad or awaited else None

    def verdict(self) -> Verdict | None:
        """The verdict as of now."""
        with self._lock:
            return None if self.watch is None else judge(self.watch)

    def canary(self) -> CanarySignal | None:
        """What the gates ask for; None before the first word of the stream."""
        with self._lock:
            if self.watch is None or self.heard_at is None:
                return None
            return CanarySignal(self.heard_at, self._requests, self._errors, self.watch.alternatives.p0)
