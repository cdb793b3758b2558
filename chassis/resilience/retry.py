"""Whether, and when, to try again.

`decide` looks at one failure; `RetryBudget` looks at all of them, because retries that are each sensible
together can triple the load of a service that is already failing.

Sources: exponential back-off with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS
Architecture Blog, 2015); the budget is gRPC's retry throttling (gRFC A6).
"""

from dataclasses import dataclass, replace
from enum import Enum


class GaveUp(Enum):
    """Why there is no further try."""

    NOT_RETRYABLE = "the failure would repeat, or the request may already have had its effect"
    ATTEMPTS_USED = "every attempt the policy allows was made"
    NO_TIME_LEFT = "the deadline passes before the next try could start"
    BUDGET_EMPTY = "too many retries lately: more would add load to what is failing"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` tries in all; the n-th wait is drawn from 0 … min(`cap`, `base`·2ⁿ⁻¹) seconds."""

    attempts: int = 3
    base: float = 0.05
    cap: float = 1.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.base < 0 or self.cap < 0:
            raise ValueError(f"a retry policy needs attempts ≥ 1, base ≥ 0 and cap ≥ 0, got {self}")

    def longest_wait(self, attempt: int) -> float:
        """Upper bound, in seconds, of the wait after try number `attempt` (from 1)."""
        # the exponent is bounded: 2.0**1024 would overflow long after the cap has won
        return float(min(self.cap, self.base * 2.0 ** min(attempt - 1, 60)))


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """`wait` seconds, then try again; or None and the reason for giving up."""

    wait: float | None
    gave_up: GaveUp | None = None


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Tokens: a failure takes one, a success gives `per_success` back. Retries only above half."""

    tokens: float
    capacity: float = 10.0
    per_success: float = 0.1

    @classmethod
    def full(cls, capacity: float = 10.0, per_success: float = 0.1) -> "RetryBudget":
        """A budget nobody has drawn on yet."""
        return cls(capacity, capacity, per_success)

    @property
    def allows(self) -> bool:
        """Whether a retry may be made now."""
        return self.tokens > self.capacity / 2

    def succeeded(self) -> "RetryBudget":
        """The budget after a success."""
        return replace(self, tokens=min(self.capacity, self.tokens + self.per_success))

    def failed(self) -> "RetryBudget":
        """The budget after a failure."""
        return replace(self, tokens=max(0.0, self.tokens - 1.0))


def decide(
    policy: RetryPolicy,
    *,
    attempt: int,
    dice: float,
    retryable: bool,
    seconds_left: float,
    budget: RetryBudget,
) -> RetryDecision:
    """What follows the failure of try number `attempt` (from 1).

    `dice` is drawn by the caller from [0, 1); `seconds_left` is what remains of its deadline; `retryable`
    says that the failure is passing and repeating the request is safe.
    """
    if not retryable:
        return RetryDecision(None, GaveUp.NOT_RETRYABLE)
    if attempt >= policy.attempts:
        return RetryDecision(None, GaveUp.ATTEMPTS_USED)
    if not budget.allows:
        return RetryDecision(None, GaveUp.BUDGET_EMPTY)
    wait = dice * policy.longest_wait(attempt)
    if wait >= seconds_left:
        return RetryDecision(None, GaveUp.NO_TIME_LEFT)
    return RetryDecision(wait)
