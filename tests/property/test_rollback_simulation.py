"""The rollback rule under simulated traffic: what the issue and the field notes promise, measured.

A run of good requests only lowers every statistic, so judging after each failure is judging at every request.
"""

import math
import random
from collections.abc import Iterator
from decimal import Decimal
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_plans.outcomes import Arm, Bad, Good
from migration_plans.rollback import Limits, Ruling, Watch, fold, judge
from migration_plans.sequential import Alternatives, ChangeDetector

PERCENT = Decimal(25)


def failures(rng: random.Random, rate: float) -> Iterator[int]:
    """How many good requests lie before each failure."""
    while True:
        yield int(math.log(1 - rng.random()) / math.log(1 - rate)) if rate < 1 else 0


def requests_to_rollback(
    rate: float, *, seed: int, most: int, before: int = 0, monolith: float = 0.0
) -> int | None:
    """Canary requests until the rollback, None when there is none within `most`."""
    rng = random.Random(seed)
    watch = Watch.begin(Limits(), percent=PERCENT)
    watch = fold(watch, Good(Arm.CANARY, before, PERCENT)) if before else watch
    seen = 0
    for run in failures(rng, rate):
        seen += run + 1
        if seen > most:
            return None
        watch = fold(watch, Good(Arm.CANARY, run, PERCENT)) if run else watch
        at_ns = seen * 10_000_000
        watch = fold(watch, Bad(Arm.CANARY, "status", f"client {rng.getrandbits(40)}", at_ns, PERCENT))
        for _ in range(3):
            broken = rng.random() < monolith
            watch = fold(
                watch,
                Bad(Arm.CONTROL, "status", f"client {rng.getrandbits(40)}", at_ns, PERCENT)
                if broken
                else Good(Arm.CONTROL, 1, PERCENT),
            )
        ruling = judge(watch).ruling
        if ruling is Ruling.ROLLBACK:
            return seen
    raise AssertionError("unreachable")


def test_ten_thousand_good_enough_requests_hardly_ever_roll_back() -> None:
    false = sum(requests_to_rollback(0.005, seed=seed, most=10_000) is not None for seed in range(200))
    assert false <= 2, f"{false} of 200"


@pytest.mark.parametrize("before", [0, 40, 10_000])
def test_outage_takes_at_most_three_requests(before: int) -> None:
    needed = [requests_to_rollback(1.0, seed=seed, most=100, before=before) for seed in range(200)]
    assert max(each or 1000 for each in needed) <= 3


@pytest.mark.parametrize(("rate", "limit"), [(0.2, 25), (0.05, 225)])
def test_partial_failure_is_found_soon(rate: float, limit: float) -> None:
    needed = [requests_to_rollback(rate, seed=seed, most=20_000) for seed in range(400)]
    assert None not in needed
    assert mean(each for each in needed if each is not None) <= limit


def test_a_service_that_becomes_a_little_bad_after_good_requests_is_found_soon() -> None:
    needed = [requests_to_rollback(0.05, seed=seed, most=20_000, before=1_000) for seed in range(400)]
    assert None not in needed
    assert mean(each for each in needed if each is not None) <= 225


def test_shared_outage_pauses_and_does_not_roll_back() -> None:
    """Both arms fail every request, in random order; nearly always the monolith is seen to fail as well."""
    rolled_back = 0
    for seed in range(200):
        rng = random.Random(seed)
        watch = Watch.begin(Limits(), percent=PERCENT)
        ruling = Ruling.KEEP
        for number in range(100):
            arm = Arm.CANARY if rng.random() < 0.25 else Arm.CONTROL
            watch = fold(watch, Bad(arm, "status", f"client {number}", number, PERCENT))
            ruling = judge(watch).ruling
            if ruling is not Ruling.KEEP:
                break
        assert ruling is not Ruling.KEEP
        rolled_back += ruling is Ruling.ROLLBACK
    assert rolled_back <= 10, f"{rolled_back} of 200"


def test_bursts_of_single_clients_do_not_trip() -> None:
    """Baseline 0.2 %, each error retried four times at once by the same client."""
    tripped = 0
    for seed in range(100):
        rng = random.Random(seed)
        watch = Watch.begin(Limits(), percent=PERCENT)
        seen = 0
        for run in failures(rng, 0.002):
            seen += run + 1
            if seen > 10_000:
                break
            watch = fold(fold(watch, Good(Arm.CONTROL, 3, PERCENT)), Good(Arm.CANARY, run + 1, PERCENT))
            for retry in range(5):
                watch = fold(watch, Bad(Arm.CANARY, "status", f"c{seen}", seen * 10_000_000 + retry, PERCENT))
                watch = fold(watch, Good(Arm.CONTROL, 1, PERCENT))
            if judge(watch).ruling is Ruling.ROLLBACK:
                tripped += 1
                break
    assert tripped == 0


@given(st.lists(st.integers(0, 50), max_size=30), st.floats(0.001, 0.4))
def test_a_run_of_good_requests_is_the_same_as_one_by_one(runs: list[int], p0: float) -> None:
    alternatives = Alternatives.against(p0)
    whole = single = ChangeDetector()
    for run in runs:
        whole = whole.after_success(alternatives, run).after_failure(alternatives)
        for _ in range(run):
            single = single.after_success(alternatives)
        single = single.after_failure(alternatives)
    assert whole.log_value == pytest.approx(single.log_value, abs=1e-6)


@given(st.floats(0.001, 0.4), st.integers(0, 400), st.integers(0, 20))
@settings(max_examples=200)
def test_evidence_only_grows_with_failures_and_shrinks_with_successes(p0: float, good: int, bad: int) -> None:
    alternatives = Alternatives.against(p0)
    here = alternatives.since_start(good + bad, bad)
    assert alternatives.since_start(good + bad + 1, bad + 1) >= here
    assert alternatives.since_start(good + bad + 1, bad) <= here


@given(st.floats(0.002, 0.3))
def test_mixture_is_fair_under_the_tolerated_rate(p0: float) -> None:
    """The expectation of one more step at rate p0 is exactly one: that is what makes peeking safe."""
    alternatives = Alternatives.against(p0)
    step = p0 * math.exp(alternatives.since_start(1, 1)) + (1 - p0) * math.exp(alternatives.since_start(1, 0))
    assert step == pytest.approx(1.0)
