"""Store how far the whole stream has come; the instance that has partition 0 does it. See `claim` for why it is true.

A thread of its own: Connect's answer takes its time, and the lanes need not wait for it. Connect is asked when the
slot's confirmed position has moved, which Debezium does right after Connect has committed an offset.
"""

from collections.abc import Callable
from threading import Event as StopEvent
from threading import Thread
from typing import Any

import psycopg
import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from cdc.changes import Lsn
from cdc.connect import RECONNECT_MS, Connect, KafkaSettings
from cdc.seams import AwayError, StreamError
from cdc.sessions import connect
from cdc.sharded.claim import Claim, partition_stream
from cdc.sharded.fence import end_holder, name_session, partitions
from cdc.sharded.patience import PATIENCE, TAKEN
from cdc.sinks.session import AlreadyRunningError, lock_stream

_LOOK_EVERY = 0.25  # seconds
_LOOK_AT_OFFSETS_EVERY = 0.05  # seconds, while a claim is not borne out
_AFTER_FAULT = 1.0  # seconds
_FENCE = 5.0  # seconds before the session of an earlier keeper is ended

_STORE = """
UPDATE strangler_cdc.position p SET lsn = %(lsn)s::pg_lsn, applied_at = clock_timestamp(),
    commit_time = greatest(p.commit_time, parts.commit_time), transactions = parts.transactions, changes = parts.changes
FROM (SELECT max(commit_time) AS commit_time, sum(transactions) AS transactions, sum(changes) AS changes
      FROM strangler_cdc.position WHERE starts_with(stream, %(parts)s)) parts
WHERE stream = %(stream)s AND lsn < %(lsn)s::pg_lsn
"""


# what was refused for good and is parked does not count, as ever
_ASIDE = """
SELECT EXISTS (SELECT FROM strangler_cdc.parked WHERE starts_with(stream, %s) AND sqlstate = ANY(%s)
    AND parked_at > clock_timestamp() - make_interval(secs => %s))
"""


class Keeper:
    """Keeps the position of `stream`. `reached` is told each position that is stored."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        stream: str,
        source_dsn: str,
        target_dsn: str,
        reached: Callable[[Lsn], None],
    ) -> None:
        self._kafka = kafka
        self._stream = stream
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._reached = reached
        self._ended = StopEvent()
        self._log = structlog.get_logger().bind(stream=stream)
        self._thread = Thread(target=self._run, name="cdc-keeper", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and let the stream's lock go."""
        self._ended.set()
        self._thread.join(timeout=30.0)

    def _run(self) -> None:
        said = ""
        while not self._ended.is_set():
            try:
                self._keep()
            except (psycopg.OperationalError, AwayError, KafkaError, StreamError) as error:
                # the lanes meet the same fault, or it passes; the position stays behind, which is true as well
                if str(error) != said:
                    said = str(error)
                    self._log.warning("position_not_kept", error=said.strip())
                self._ended.wait(_AFTER_FAULT)
            except Exception as error:  # not lost: the stream's thread raises it
                self.error = error
                return

    def _keep(self) -> None:
        with (
            connect(self._target_dsn, name=f"strangler_cdc keep {self._stream}") as target,
            connect(self._source_dsn, name=f"strangler_cdc keep {self._stream}") as source,
            Connect(self._kafka.connect) as door,
        ):
            if not self._lock(target):
                return
            consumer = KafkaConsumer(
                bootstrap_servers=self._kafka.bootstrap, reconnect_backoff_max_ms=RECONNECT_MS
            )
            try:
                self._follow(source, target, door, consumer)
            finally:
                consumer.close()

    def _lock(self, target: psycopg.Connection[Any]) -> bool:
        """Take the stream's lock, so that everybody sees that the stream runs."""
        name_session(target)
        for attempt in range(1_000):
            try:
                lock_stream(target, self._stream)
            except AlreadyRunningError:
                if attempt * _LOOK_AT_OFFSETS_EVERY >= _FENCE:
                    end_holder(target, self._stream)
                if self._ended.wait(_LOOK_AT_OFFSETS_EVERY):
                    return False
            else:
                return True
        raise AwayError(f"the lock of stream {self._stream} is held by somebody who does not let it go")

    def _set_aside(self, target: psycopg.Connection[Any]) -> bool:
        """Whether a change waits for another partition, although the offset is stored past it."""
        row = target.execute(
            _ASIDE, [partition_stream(self._stream, 0)[:-1], sorted(TAKEN), PATIENCE]
        ).fetchone()
        return row is not None and bool(row[0])

    def _follow(
        self,
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        door: Connect,
        consumer: KafkaConsumer,
    ) -> None:
        topic = [TopicPartition(self._kafka.topic, number) for number in range(self._kafka.partitions)]
        row = target.execute(
            "SELECT lsn::text FROM strangler_cdc.position WHERE stream = %s", [self._stream]
        ).fetchone()
        stored = Lsn.parse(row[0]) if row else Lsn(0)
        self._reached(stored)
        seen = ""
        while not self._ended.wait(_LOOK_EVERY):
            row = source.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
                [self._stream],
            ).fetchone()
            if row is None or row[0] == seen:
                continue
            delivered = door.delivered(self._stream)
            if delivered is None or delivered <= stored:
                continue
            seen = row[0]
            ends = consumer.end_offsets(topic)
            claim = Claim(delivered, {each.partition: end for each, end in ends.items()})
            while not claim.holds(partitions(target, self._stream)) or self._set_aside(target):
                if self._ended.wait(_LOOK_AT_OFFSETS_EVERY):
                    return
            target.execute(
                _STORE,
                {
                    "lsn": str(delivered),
                    "stream": self._stream,
                    "parts": partition_stream(self._stream, 0)[:-1],
                },
            )
            stored = delivered
            self._reached(stored)
