"""Laws of the resilience cores: whatever happens in whatever order, these hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.resilience.bulkhead import Bulkhead, Entry
from chassis.resilience.deadline import Deadline, DeadlineExceededError
from chassis.resilience.limiter import Limiter, Rate, take
from chassis.resilience.retry import GaveUp, RetryBudget, RetryPolicy, decide

seconds = st.floats(0, 1e6, allow_nan=False)


@given(now=seconds, allowed=seconds, step=seconds, later=seconds)
def test_no_step_goes_past_the_deadline(now: float, allowed: float, step: float, later: float) -> None:
    deadline = Deadline.after(allowed, now=now)
    assert deadline.remaining(later) >= 0
    if deadline.expired(later):
        with pytest.raises(DeadlineExceededError):
            deadline.timeout(step, now=later)
    else:
        assert later + deadline.timeout(step, now=later) <= deadline.at + 1e-6
        assert deadline.timeout(step, now=later) <= step


@given(seconds, seconds)
def test_a_callee_can_only_shorten_its_callers_deadline(one: float, other: float) -> None:
    assert Deadline(one).no_later_than(Deadline(other)).at == min(one, other)


@given(limit=st.integers(1, 4), queue=st.integers(0, 3), events=st.lists(st.sampled_from("ela"), max_size=60))
def test_a_bulkhead_agrees_with_counting(limit: int, queue: int, events: list[str]) -> None:
    bulkhead, running, waiting = Bulkhead(limit, queue), 0, 0
    for event in events:
        match event:
            case "e":
                bulkhead, entry = bulkhead.enter()
                if running < limit:
                    running, expected = running + 1, Entry.ADMITTED
                elif waiting < queue:
                    waiting, expected = waiting + 1, Entry.QUEUED
                else:
                    expected = Entry.REFUSED
                assert entry is expected
            case "l" if running:
                bulkhead, promoted = bulkhead.leave()
                assert promoted == (waiting > 0)
                running, waiting = (running, waiting - 1) if promoted else (running - 1, waiting)
            case "a" if waiting:
                bulkhead, waiting = bulkhead.abandon(), waiting - 1
            case "l":
                with pytest.raises(ValueError, match="nobody"):
                    bulkhead.leave()
            case _:
                with pytest.raises(ValueError, match="nobody"):
                    bulkhead.abandon()
        assert (bulkhead.running, bulkhead.waiting) == (running, waiting)


@given(
    per_second=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=80),
)
def test_no_window_holds_more_than_burst_and_rate(per_second: float, burst: int, gaps: list[float]) -> None:
    limiter, rate, now = Limiter(), Rate(per_second, burst), 0.0
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        limiter, taken = take(limiter, rate, now)
        if taken.allowed:
            admitted.append(now)
        else:
            _, again = take(limiter, rate, now + taken.retry_after * (1 + 1e-9) + 1e-9)
            assert again.allowed, "who waits as long as told is let in"
    for first, start in enumerate(admitted):
        for last, end in enumerate(admitted[first:], first):
            assert last - first + 1 <= burst + per_second * (end - start) + 1e-6


@given(st.floats(0.1, 1000), st.integers(1, 20))
def test_a_fresh_limiter_admits_its_burst_at_once(per_second: float, burst: int) -> None:
    limiter, rate = Limiter(), Rate(per_second, burst)
    answers = []
    for _ in range(burst + 1):
        limiter, taken = take(limiter, rate, 100.0)
        answers.append(taken.allowed)
    assert answers == [True] * burst + [False]


@given(
    attempts=st.integers(1, 10),
    attempt=st.integers(1, 2000),
    dice=st.floats(0, 1, exclude_max=True),
    retryable=st.booleans(),
    left=seconds,
    tokens=st.floats(0, 10),
)
def test_a_retry_waits_within_every_bound(
    *, attempts: int, attempt: int, dice: float, retryable: bool, left: float, tokens: float
) -> None:
    policy, budget = RetryPolicy(attempts, base=0.1, cap=2.0), RetryBudget(tokens)
    decision = decide(
        policy, attempt=attempt, dice=dice, retryable=retryable, seconds_left=left, budget=budget
    )
    assert (decision.wait is None) == (decision.gave_up is not None)
    if decision.wait is not None:
        assert retryable
        assert attempt < attempts
        assert budget.allows
        assert 0 <= decision.wait <= min(policy.cap, policy.longest_wait(attempt))
        assert decision.wait < left


@given(st.lists(st.booleans(), max_size=300))
def test_retries_stay_a_small_share_when_everything_fails(outcomes: list[bool]) -> None:
    budget = RetryBudget.full()
    retries = 0
    for good in outcomes:
        budget = budget.succeeded() if good else budget.failed()
        retries += not good and budget.allows
        assert 0 <= budget.tokens <= budget.capacity
    # half the budget may be spent at once, after that one retry needs ten successes
    assert retries <= 5 + 0.1 * sum(outcomes) + 1e-6


@pytest.mark.parametrize(
    ("attempt", "retryable", "left", "tokens", "reason"),
    [
        (1, False, 9.0, 10.0, GaveUp.NOT_RETRYABLE),
        (3, True, 9.0, 10.0, GaveUp.ATTEMPTS_USED),
        (1, True, 9.0, 5.0, GaveUp.BUDGET_EMPTY),
        (1, True, 0.01, 10.0, GaveUp.NO_TIME_LEFT),
    ],
)
def test_giving_up_names_its_reason(
    attempt: int, retryable: bool, left: float, tokens: float, reason: GaveUp
) -> None:
    decision = decide(
        RetryPolicy(3, base=1.0, cap=1.0),
        attempt=attempt,
        dice=0.5,
        retryable=retryable,
        seconds_left=left,
        budget=RetryBudget(tokens),
    )
    assert (decision.wait, decision.gave_up) == (None, reason)
