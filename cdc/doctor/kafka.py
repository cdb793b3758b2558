"""Where Debezium carries the changes: Kafka Connect must answer and know the connector."""

from collections.abc import Iterator
from dataclasses import dataclass

from cdc.findings import Finding, Place, Rule, Severity

CONNECT_AWAY = Rule(
    "connect-unreachable",
    Severity.UNKNOWN,
    "Kafka Connect does not answer at the plan's address",
    "without it nothing reads the source's log",
    "start it, or correct the address in the plan's variable",
)
CONNECT_LACKS = Rule(
    "connect-lacks-debezium",
    Severity.ERROR,
    "Kafka Connect has no Debezium connector for PostgreSQL",
    "the stream's connector cannot be made",
    "put Debezium's PostgreSQL connector into the worker's plugin.path and restart it",
)
KAFKA_RULES = (CONNECT_AWAY, CONNECT_LACKS)


@dataclass(frozen=True, slots=True)
class ConnectFacts:
    """What Kafka Connect at `url` answered: the version of its Debezium connector for PostgreSQL, None when it has
    none; or the `fault` with which it did not answer.
    """

    url: str
    debezium: str | None = None
    fault: str = ""


def judge_connect(facts: ConnectFacts) -> Iterator[Finding]:
    """Connect answers, and has the connector."""
    path = ("stream", "kafka", "connect_env")
    if facts.fault:
        yield CONNECT_AWAY.unknown(facts.fault, place=Place(), path=path, remedy=CONNECT_AWAY.repair)
    elif facts.debezium is None:
        message = f"Kafka Connect at {facts.url} has no Debezium connector for PostgreSQL"
        yield CONNECT_LACKS.found(message, place=Place(), path=path)
