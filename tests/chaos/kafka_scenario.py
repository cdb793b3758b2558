"""What happens in one seeded run through Kafka: which fault, at which step, how it may end. Pure, as `scenario.py`."""

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.scenario import Ending


class KafkaStep(StrEnum):
    """Where the stream is when the fault comes. How it is held there stands in `kafka_steps.py`."""

    STREAM_BEGINS = "stream-begins"
    MID_BATCH = "mid-batch"
    ROWS_BEFORE_POSITION = "rows-before-position"
    APPLIED_BEFORE_OFFSET = "applied-before-offset"
    MID_LARGE_AT_CONNECTOR = "mid-large-at-connector"
    CONNECTOR_RESTARTS = "connector-restarts"
    ANY_TIME = "any-time"


class KafkaFault(StrEnum):
    """What is done to the stream."""

    KILL_CONSUMER = "kill-consumer"
    KILL_CONNECT = "kill-connect"
    KILL_BROKER = "kill-broker"
    KILL_SOURCE = "kill-source"
    KILL_TARGET = "kill-target"
    CLOSE_SOURCE = "close-source"
    RESET_BROKER = "reset-broker"
    SILENCE_BROKER = "silence-broker"
    CONNECTOR_DELETED = "connector-deleted"
    CONNECTOR_PAUSED = "connector-paused"
    SLOT_DROPPED = "slot-dropped"
    TOPIC_TRUNCATED = "topic-truncated"
    TOPIC_DELETED = "topic-deleted"
    FAILOVER_WITH_SLOT = "failover-with-slot"
    FAILOVER_BEHIND = "failover-behind"


LOSSES = frozenset(
    {
        KafkaFault.SLOT_DROPPED,
        KafkaFault.TOPIC_TRUNCATED,
        KafkaFault.FAILOVER_BEHIND,
        KafkaFault.FAILOVER_WITH_SLOT,
    }
)
"""After these nobody can give what the target lacks, or nobody can know it: what is in Kafka bears no timeline."""

_NEED_A_CONNECTOR = frozenset(
    {
        KafkaFault.CONNECTOR_DELETED,
        KafkaFault.CONNECTOR_PAUSED,
        KafkaFault.TOPIC_TRUNCATED,
        KafkaFault.TOPIC_DELETED,
        KafkaFault.FAILOVER_BEHIND,
    }
)


def legal(fault: KafkaFault, step: KafkaStep) -> bool:
    """Whether the fault can come at the step: when the stream begins there need be neither connector nor topic."""
    return not (fault in _NEED_A_CONNECTOR and step is KafkaStep.STREAM_BEGINS)


KAFKA_PAIRS = tuple((fault, step) for fault in KafkaFault for step in KafkaStep if legal(fault, step))


@dataclass(frozen=True, slots=True)
class KafkaScenario:
    """One run. `products`: rows at the beginning. `linger`: seconds from reaching the step to the fault. `lasts`:
    seconds from the fault to its repair.
    """

    seed: int
    fault: KafkaFault
    step: KafkaStep
    products: int
    linger: float
    lasts: float

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.fault} at {self.step} through kafka"


def kafka_scenario(seed: int, number: int) -> KafkaScenario:
    """The plan of run `seed`, the `number`th through Kafka."""
    dice = random.Random(seed)
    fault, step = KAFKA_PAIRS[number] if number < len(KAFKA_PAIRS) else dice.choice(KAFKA_PAIRS)
    return KafkaScenario(
        seed=seed,
        fault=fault,
        step=step,
        products=dice.choice((20, 200, 1000)),
        linger=dice.choice((0.0, 0.0, dice.uniform(0.0, 0.2))),
        lasts=dice.uniform(0.05, 0.6),
    )


def kafka_expect(fault: KafkaFault) -> Ending:
    """How it must end."""
    if fault in LOSSES:
        return Ending.STOPPED
    # of a topic that was deleted the target may have had everything
    return Ending.EITHER if fault is KafkaFault.TOPIC_DELETED else Ending.EQUAL
