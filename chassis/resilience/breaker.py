"""A circuit breaker as a pure state machine: it is told outcomes and the time, it answers yes or no.

    CLOSED ──(too many failures)──► OPEN ──(pause over)──► HALF_OPEN ──(probes good)──► CLOSED
                                      ▲                        │
                                      └──────(a probe bad)─────┘   each time with a longer pause

Two rules open it: N failures in a row, or a share of failures over the last `window` outcomes (a count
window: a quiet night does not make old evidence look fresh, it just stays). The pattern is Nygard's
("Release It!", Stability Patterns); the doubling pause bounds how often a dead backend is asked.

Callers ask `permit` before a call and report `record` (or `forget`, when a permitted call ended without
evidence) after it. A call may outlast the state it was permitted in: callers keep the `epoch` of that
moment and give it back, so that an old call neither closes the breaker nor uses up the place of a probe.
Time is in seconds of any monotonic clock and is always an argument.
"""

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """What the breaker does with the next call."""

    CLOSED = "closed"  # passes everything
    OPEN = "open"  # refuses everything until its pause is over
    HALF_OPEN = "half_open"  # passes a few probes


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open, for how long, and what closes it again. Durations in seconds."""

    consecutive: int = 10  # failures in a row that open it
    window: int = 100  # outcomes remembered for the rate rule
    rate: float = 0.5  # share of failures in a full window that opens it
    pause: float = 1.0  # first pause
    longest_pause: float = 30.0  # the pause doubles up to this
    probes: int = 1  # calls let through at once while half open; as many good ones close it


@dataclass(slots=True)
class Breaker:
    """One backend's breaker. Invariant: `probing <= policy.probes`, and it is 0 unless HALF_OPEN."""

    policy: BreakerPolicy
    state: BreakerState = BreakerState.CLOSED
    epoch: int = 0  # counts the changes of state
    _consecutive: int = 0
    _recent: int = 0  # one bit an outcome, the last one lowest; set: it failed
    _outcomes: int = 0  # how many of them there are, up to a full window
    _pause: float = 0.0
    _open_until: float = 0.0
    _probing: int = 0
    _good_probes: int = 0

    def permit(self, now: float) -> bool:
        """May a call be made now? A yes while half open takes a probe: report it by `record` or `forget`."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                if now < self._open_until:
                    return False
                self._become(BreakerState.HALF_OPEN)
                self._probing = 1
                self._good_probes = 0
                return True
            case BreakerState.HALF_OPEN:
                if self._probing + self._good_probes >= self.policy.probes:
                    return False
                self._probing += 1
                return True

    def would_permit(self, now: float) -> bool:
        """What `permit` would say. Nothing is taken: for who chooses among several."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return now >= self._open_until
            case BreakerState.HALF_OPEN:
                return self._probing + self._good_probes < self.policy.probes

    def record(self, *, ok: bool, now: float, epoch: int | None = None) -> None:
        """The outcome of a call that was permitted in `epoch`; None is the present one."""
        if epoch is not None and epoch != self.epoch:
            return
        match self.state:
            case BreakerState.CLOSED:
                self._count(ok=ok, now=now)
            case BreakerState.HALF_OPEN:
                self._probing = max(0, self._probing - 1)
                if not ok:
                    self._open(now)
                    return
                self._good_probes += 1
                if self._good_probes >= self.policy.probes:
                    self._close()
            case BreakerState.OPEN:
                pass  # a call that began before it opened; the decision is made already

    def forget(self, *, epoch: int | None = None) -> None:
        """A call permitted in `epoch` ended without evidence (the client went away): give its probe back."""
        if self.state is BreakerState.HALF_OPEN and epoch in (None, self.epoch):
            self._probing = max(0, self._probing - 1)

    def retry_after(self, now: float) -> float:
        """Seconds until the next call may be tried; 0 unless open."""
        return max(0.0, self._open_until - now) if self.state is BreakerState.OPEN else 0.0

    def _count(self, *, ok: bool, now: float) -> None:
        window = self.policy.window
        self._outcomes = min(self._outcomes + 1, window)
        if ok and not self._recent:  # nearly always: nothing to forget, and nothing to open for
            self._consecutive = 0
            return
        self._consecutive = 0 if ok else self._consecutive + 1
        self._recent = (self._recent << 1 | (not ok)) & (1 << window) - 1
        full = self._outcomes >= window
        too_many = full and self._recent.bit_count() >= self.policy.rate * window
        if self._consecutive >= self.policy.consecutive or too_many:
            self._open(now)

    def _open(self, now: float) -> None:
        self._pause = min(self._pause * 2 if self._pause else self.policy.pause, self.policy.longest_pause)
        self._open_until = now + self._pause
        self._become(BreakerState.OPEN)
        self._probing = 0
        self._good_probes = 0

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1

    def _close(self) -> None:
        self._become(BreakerState.CLOSED)
        self._consecutive = 0
        self._recent = 0
        self._outcomes = 0
        self._pause = 0.0
        self._probing = 0
        self._good_probes = 0
