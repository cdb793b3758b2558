"""A few seeded runs of `make chaos`: every fault once, on one pair of servers."""

from collections.abc import Iterator

import pytest

from tests.chaos.pair import Pair, can_mount
from tests.chaos.run_seed import run_seed
from tests.chaos.scenario import FORKS, LOSES_LOG, PAIRS, STOPS, Ending, Fault, Step, expect, scenario

STEPS = {
    Fault.KILL_STREAM: Step.MID_LARGE,
    Fault.KILL_SOURCE: Step.SLOT_CREATED,
    Fault.KILL_TARGET: Step.APPLIED_BEFORE_CONFIRM,
    Fault.RESTART_TARGET: Step.SNAPSHOT_BEFORE_COMMIT,
    Fault.SILENCE_SOURCE: Step.MID_SNAPSHOT,
    Fault.RESET_TARGET: Step.ROWS_BEFORE_POSITION,
    Fault.RESET_SOURCE: Step.MID_BATCH,
}
"""Where a fault comes when `make test` has it once; the others come at any time."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault, ids=str)
def test_the_stream_comes_through_or_says_why_not(
    fault: Fault, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if fault is Fault.FULL_DISK and not can_mount(tmp_path_factory.mktemp("probe")):
        return  # no small disk without the right to mount one; `make chaos` says so
    seed = PAIRS.index((fault, STEPS.get(fault, Step.ANY_TIME)))
    outcome = run_seed(scenario(seed), pair)
    assert outcome.ending is (Ending.STOPPED if fault in STOPS else Ending.EQUAL)
    assert outcome.rows > 0


def test_every_pair_of_fault_and_step_has_a_seed_of_its_own() -> None:
    planned = [scenario(seed) for seed in range(len(PAIRS))]
    assert [(each.fault, each.step) for each in planned] == list(PAIRS)
    assert {each.step for each in planned} == set(Step)
    assert scenario(12345) == scenario(12345)


def test_only_what_loses_log_or_forks_may_end_in_a_stop() -> None:
    for fault in Fault:
        assert (expect(fault, stored=True) is Ending.STOPPED) == (fault in LOSES_LOG | FORKS)
        assert (expect(fault, stored=False) is Ending.EITHER) == (fault in LOSES_LOG)
