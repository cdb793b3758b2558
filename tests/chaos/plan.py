"""Which run a seed is: every fifth goes through Kafka, the others read the slot themselves. Pure."""

from tests.chaos.kafka_scenario import KAFKA_PAIRS, KafkaFault, KafkaScenario, KafkaStep, kafka_scenario
from tests.chaos.scenario import PAIRS, Fault, Scenario, Step, scenario

_CYCLE = 5


def plan(seed: int) -> Scenario | KafkaScenario:
    """The plan of run `seed`."""
    cycle, place = divmod(seed, _CYCLE)
    if place == _CYCLE - 1:
        return kafka_scenario(seed, cycle)
    return scenario(seed, cycle * (_CYCLE - 1) + place)


def seed_of(fault: Fault | KafkaFault, step: Step | KafkaStep) -> int:
    """The first seed with this pair. Raises ValueError when it is not legal."""
    if isinstance(fault, KafkaFault) and isinstance(step, KafkaStep):
        return KAFKA_PAIRS.index((fault, step)) * _CYCLE + _CYCLE - 1
    cycle, place = divmod(PAIRS.index((fault, step)), _CYCLE - 1)
    return cycle * _CYCLE + place
