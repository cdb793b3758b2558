"""A few seeded runs of `make chaos`: every fault once, and some through Kafka, on one pair of servers."""

from collections.abc import Iterator

import pytest

from tests.chaos.kafka_scenario import KAFKA_PAIRS, KafkaFault, KafkaScenario, KafkaStep
from tests.chaos.kafka_side import KafkaSide
from tests.chaos.pair import Pair, can_mount
from tests.chaos.plan import plan, seed_of
from tests.chaos.run_kafka_seed import run_kafka_seed
from tests.chaos.run_seed import run_seed
from tests.chaos.scenario import FORKS, LOSES_LOG, PAIRS, STOPS, Ending, Fault, Scenario, Step, expect

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


THROUGH_KAFKA = (
    (KafkaFault.KILL_CONSUMER, KafkaStep.ROWS_BEFORE_POSITION, Ending.EQUAL),
    (KafkaFault.CONNECTOR_DELETED, KafkaStep.MID_LARGE_AT_CONNECTOR, Ending.EQUAL),
    (KafkaFault.TOPIC_TRUNCATED, KafkaStep.MID_BATCH, Ending.STOPPED),
    (KafkaFault.FAILOVER_BEHIND, KafkaStep.ANY_TIME, Ending.STOPPED),
)
"""What `make test` has of the runs through Kafka."""


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
    planned = plan(seed_of(fault, STEPS.get(fault, Step.ANY_TIME)))
    assert isinstance(planned, Scenario)
    outcome = run_seed(planned, pair)
    assert outcome.ending is (Ending.STOPPED if fault in STOPS else Ending.EQUAL)
    assert outcome.rows > 0


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSide]:
    with KafkaSide(tmp_path_factory.mktemp("kafka")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fault", "step", "ending"), THROUGH_KAFKA, ids=str)
def test_the_stream_through_kafka_comes_through_or_says_why_not(
    fault: KafkaFault, step: KafkaStep, ending: Ending, pair: Pair, side: KafkaSide
) -> None:
    planned = plan(seed_of(fault, step))
    assert isinstance(planned, KafkaScenario)
    outcome = run_kafka_seed(planned, pair, side)
    assert outcome.ending is ending
    assert outcome.rows > 0


def test_every_pair_of_fault_and_step_has_a_seed_of_its_own() -> None:
    planned = [plan(seed) for seed in range(500)]
    slots = [(each.fault, each.step) for each in planned if isinstance(each, Scenario)]
    kafka = [(each.fault, each.step) for each in planned if isinstance(each, KafkaScenario)]
    assert slots[: len(PAIRS)] == list(PAIRS)
    assert kafka[: len(KAFKA_PAIRS)] == list(KAFKA_PAIRS)
    assert {step for _, step in PAIRS} == set(Step)
    assert {step for _, step in KAFKA_PAIRS} == set(KafkaStep)
    assert plan(12345) == plan(12345)
    for seed, each in enumerate(map(plan, range(400))):
        assert seed_of(each.fault, each.step) <= seed
        again = plan(seed_of(each.fault, each.step))
        assert (again.fault, again.step) == (each.fault, each.step)


def test_only_what_loses_log_or_forks_may_end_in_a_stop() -> None:
    for fault in Fault:
        assert (expect(fault, stored=True) is Ending.STOPPED) == (fault in LOSES_LOG | FORKS)
        assert (expect(fault, stored=False) is Ending.EITHER) == (fault in LOSES_LOG)
