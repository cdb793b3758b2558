"""A broker and a Connect worker of our own, with a relay between the broker and the stream's process.

They live over many runs, each with a topic, a slot and a connector of its own. Clients of a broker go where it tells
them to, so the relay is what the broker advertises on a second listener; Connect comes by the first one.
"""

import signal
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from cdc.changes import Lsn
from cdc.connect import KafkaSettings
from tests.chaos.cut import Cut
from tests.kafka_lab import JARS, PASSWORD, PASSWORD_VARIABLE
from workshop.kafka import ConnectWorker, KafkaBroker, jars
from workshop.postgres import free_port

_STARTS_WITHIN = 120.0  # seconds


class KafkaSide:
    """Both and the relay while the `with` block runs. Enter it in the main thread."""

    def __init__(self, directory: Path) -> None:
        found = jars(JARS)
        inner, outer, controller = free_port(), free_port(), free_port()
        self.cut = Cut(outer)
        self.broker = KafkaBroker(
            directory / "broker",
            found,
            port=inner,
            settings={
                "listeners": f"PLAINTEXT://127.0.0.1:{inner},RELAYED://127.0.0.1:{outer},"
                f"CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{inner},RELAYED://127.0.0.1:{self.cut.port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,RELAYED:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            },
            quick=True,
        )
        self.connect = ConnectWorker(
            directory / "connect",
            found,
            broker=self.broker.address,
            environment={PASSWORD_VARIABLE: PASSWORD},
            quick=True,
            # what a killed worker had is given to its successor as soon as the broker allows
            settings={
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 2000,
                "scheduled.rebalance.max.delay.ms": 0,
            },
        )
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(self.cut)
            for server in (self.broker, self.connect):
                exits.callback(server.stop, how=signal.SIGKILL)
                server.start(timeout=_STARTS_WITHIN)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def settings(self, topic: str) -> KafkaSettings:
        """What the stream of `topic` is told: the relay."""
        return KafkaSettings(f"127.0.0.1:{self.cut.port}", self.connect.url, topic)

    def kill(self, server: KafkaBroker | ConnectWorker) -> None:
        """SIGKILL."""
        server.stop(how=signal.SIGKILL)

    def repair(self, *, forget: bool = False) -> None:
        """Start what is down, let everything through; `forget`: but not on the connections that there are."""
        self.cut.heal(forget=forget)
        for server in (self.broker, self.connect):
            if server.pid is None:
                server.start(timeout=_STARTS_WITHIN)


class TopicLook:
    """What stands in one topic and what its group has noted, asked past the relay."""

    def __init__(self, side: KafkaSide, topic: str) -> None:
        self._address = side.broker.address
        self._partition = TopicPartition(topic, 0)
        self._consumer = KafkaConsumer(
            bootstrap_servers=self._address, group_id=topic, enable_auto_commit=False
        )

    def close(self) -> None:
        """Let go."""
        self._consumer.close(autocommit=False)

    def end(self) -> int:
        """The offset behind the last record."""
        return int(self._consumer.end_offsets([self._partition])[self._partition])

    def has(self, records: int) -> bool:
        """Whether it has come to this offset."""
        return self.end() >= records

    def committed(self) -> Lsn | None:
        """The position that lies before the group's offset."""
        found = self._consumer.committed(self._partition, metadata=True)
        return None if found is None else Lsn.parse(found.metadata)

    def truncate(self) -> None:
        """What retention does in time: all records that there are now are gone."""
        admin = KafkaAdminClient(bootstrap_servers=self._address)
        admin.delete_records({self._partition: self.end()})
        admin.close()

    def delete(self) -> None:
        """The topic is gone; whoever writes to it makes it anew."""
        admin = KafkaAdminClient(bootstrap_servers=self._address)
        admin.delete_topics([self._partition.topic], timeout_ms=10_000)
        admin.close()
