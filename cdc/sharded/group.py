"""One instance of a stream over several partitions: a member of the consumer group, with a lane for each partition.

    group ──assigned──► open: lock, stored offset, seek ──► lane ──revoked──► close (what was not stored is forgotten)

The broker's rebalance callbacks run on the client's own thread, so they only note what is wanted; the one loop here
opens and closes lanes, reads, and lets each lane write in turn. Where a lane goes on is decided by the offset in the
target; the group's committed offset only tells others how far we are.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event as StopEvent
from threading import Lock
from typing import Any

import psycopg
import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from cdc.announce import Announce
from cdc.changes import Lsn, TableName
from cdc.connect import RECONNECT_MS, Connect, KafkaSettings
from cdc.connector_watch import watching
from cdc.decode.debezium import Decoder, Record, Table, UnknownColumnsError
from cdc.lineage import Origin, Topic, judge_topic
from cdc.mapping import Mapping as TableMappings
from cdc.meter import Meter, Phase
from cdc.origin import TopicMemory
from cdc.seams import BEGIN_ANEW, AwayError, StreamError
from cdc.sessions import connect
from cdc.sharded.claim import partition_stream
from cdc.sharded.fence import end_holder, instance_name, name_session
from cdc.sharded.holding import Holding
from cdc.sharded.keeper import Keeper
from cdc.sharded.lane import Lane
from cdc.sharded.missing import SourceRows
from cdc.sinks.postgres import PostgresSink
from cdc.sinks.session import AlreadyRunningError
from cdc.sources.kafka import truncated
from cdc.sources.topic import TopicIds

_RECORDS_A_READ = 5_000
_IDLE_MS = 20  # milliseconds that a poll waits; also how soon a request to hold is seen on an idle stream
_COMMIT_EVERY = 0.5  # seconds
_LOOK_EVERY = 5.0  # seconds between two looks at the source's catalogue
_TOPIC_SECONDS = 60.0  # that a new connector may take to write its first record
_SESSION_MS = 6_000  # milliseconds without a heartbeat after which the group takes an instance for dead
_BUSY_MS = 60_000  # milliseconds that one turn of the loop may take
_ASIDE_AT_MOST = 10_000  # keys of a partition whose unique values another partition has not released yet
_FENCE = 5.0  # seconds that an earlier owner may take to let a partition go

ReadTables = Callable[[], Mapping[TableName, Table]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What an instance needs to know. Names as in `cdc.pipeline.StreamConfig`."""

    stream: str
    mapping: TableMappings
    kafka: KafkaSettings
    connector: Mapping[str, str]
    origin: Origin
    source_dsn: str
    target_dsn: str
    read_tables: ReadTables
    max_batch: int
    max_waiting: int
    max_parked: int | None


@dataclass(slots=True)
class _Wanted(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """What the group says this instance shall have. Told on the client's thread, read by the loop."""

    consumer: KafkaConsumer
    guard: Lock = field(default_factory=Lock)
    generation: int = 0
    partitions: dict[int, int] = field(default_factory=dict)  # partition: generation of its assignment

    def on_partitions_revoked(self, revoked: Any) -> None:
        """They are to be closed; until the loop does, nobody else gets the lock."""
        with self.guard:
            for each in revoked:
                self.partitions.pop(each.partition, None)

    def on_partitions_lost(self, lost: Any) -> None:
        """As revoked: the group has taken this instance for dead."""
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing is read of them until the loop has opened them."""
        with self.guard:
            self.generation += 1
            for each in assigned:
                self.consumer.pause(each)
                self.consumer.seek(
                    each, 0
                )  # or the client would look for a committed offset, of which there may be none
                self.partitions[each.partition] = self.generation

    def now(self) -> dict[int, int]:
        """A copy."""
        with self.guard:
            return dict(self.partitions)


class Instance:
    """One member of the group. Raises StreamError, AwayError, psycopg.OperationalError out of `run`."""

    def __init__(
        self, shared: Shared, stop: StopEvent, ours: StopEvent, meter: Meter, *, announce: Announce | None
    ) -> None:
        """`ours` is set while this instance speaks for the stream: while it has partition 0."""
        self._shared = shared
        self._stop = stop
        self._ours = ours
        self._meter = meter
        self._announce = announce
        self._log = structlog.get_logger().bind(stream=shared.stream, instance=instance_name())
        self._lanes: dict[int, Lane] = {}
        self._since: dict[int, int] = {}  # the generation a lane was opened in
        self._awaited: dict[int, float] = {}  # since when the lock of a partition has been waited for
        self._decoder = Decoder(shared.read_tables(), halves=True)
        self._looked_at = time.monotonic()
        self._committed_at = 0.0
        self._committed: dict[int, int] = {}
        self._full: set[int] = set()
        self._ids = TopicIds(shared.kafka.bootstrap, shared.kafka.topic)
        self._topic: Topic | None = None
        self._came_to = Lsn(0)  # the stream, when a partition was last opened
        self._rows = SourceRows(
            shared.source_dsn,
            stream=shared.stream,
            keys={table.source: tuple(part.source for part in table.key) for table in shared.mapping.tables},
        )
        self._office = ExitStack()  # what only the owner of partition 0 does
        self._keeper: Keeper | None = None
        self._watcher: Any = None

    def run(self) -> None:
        """Apply what the group gives us until `stop` is set."""
        shared = self._shared
        with self._consuming() as consumer, connect(shared.target_dsn, name="strangler_cdc") as control:
            name_session(control)
            wanted = _Wanted(consumer)
            consumer.subscribe([shared.kafka.topic], listener=wanted)
            self._await_topic(consumer)
            holding = Holding(control, shared.stream, delivered=lambda: self._delivered(consumer))
            try:
                while not self._stop.is_set():
                    self._reconcile(wanted, consumer, control)
                    self._turn(consumer, holding, wanted)
            finally:
                self._leave(consumer)

    def _turn(self, consumer: KafkaConsumer, holding: Holding, wanted: _Wanted) -> None:
        if time.monotonic() - self._looked_at > _LOOK_EVERY:
            # a widened column shows in the catalogue alone
            self._learn()
            self._same_topic()
        holding.look()
        self._meter.enter(Phase.HELD if holding.held else Phase.STREAMING)
        now = time.monotonic()
        busy = not holding.held and any(lane.ready(now) for lane in self._lanes.values())
        for part, messages in self._poll(consumer, 0 if busy else _IDLE_MS).items():
            lane = self._lanes.get(part.partition)
            if lane is not None and self._since[part.partition] == wanted.now().get(part.partition):
                lane.take(messages)
        for lane in self._lanes.values():
            holding.step(lane, time.monotonic())
            lane.retry(time.monotonic())
        self._throttle(consumer)
        if now - self._committed_at >= _COMMIT_EVERY:
            self._committed_at = now
            self._commit(consumer)
        for office in (self._keeper, self._watcher):
            if office is not None and office.error is not None:
                raise office.error

    def _poll(
        self, consumer: KafkaConsumer, milliseconds: int
    ) -> Mapping[TopicPartition, list[ConsumerRecord]]:
        try:
            return consumer.poll(timeout_ms=milliseconds, max_records=_RECORDS_A_READ)  # type: ignore[no-any-return]
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            raise StreamError(
                f"topic {self._shared.kafka.topic} does not hold the next change any more ({error}); {BEGIN_ANEW}"
            ) from error
        except LogTruncationError as error:
            self._same_topic()
            raise truncated(self._shared.kafka.topic, error) from error

    def _throttle(self, consumer: KafkaConsumer) -> None:
        """Read no more of a partition while much of it waits."""
        for number, lane in self._lanes.items():
            part = TopicPartition(self._shared.kafka.topic, number)
            full = lane.waiting >= self._shared.max_waiting
            if full and number not in self._full:
                consumer.pause(part)
                self._full.add(number)
            elif not full and number in self._full:
                consumer.resume(part)
                self._full.discard(number)

    def _reconcile(self, wanted: _Wanted, consumer: KafkaConsumer, control: psycopg.Connection[Any]) -> None:
        now = wanted.now()
        for number in [each for each in self._lanes if now.get(each) != self._since[each]]:
            self._close_lane(number)
        self._awaited = {each: since for each, since in self._awaited.items() if each in now}
        for number, generation in now.items():
            if number not in self._lanes:
                self._try_open(number, generation, consumer, control)

    def _try_open(
        self, number: int, generation: int, consumer: KafkaConsumer, control: psycopg.Connection[Any]
    ) -> None:
        name = partition_stream(self._shared.stream, number)
        try:
            sink = PostgresSink(
                self._shared.target_dsn,
                stream=name,
                mapping=self._shared.mapping,
                max_parked=self._shared.max_parked or _ASIDE_AT_MOST,
            )
        except AlreadyRunningError:
            since = self._awaited.setdefault(number, time.monotonic())
            if time.monotonic() - since >= _FENCE:
                ended = end_holder(control, name)
                self._log.warning("earlier_owner_ended", partition=number, owner=ended and ended.instance)
            return
        try:
            self._open(sink, number, generation, consumer)
        except BaseException:
            sink.close()
            raise

    def _open(self, sink: PostgresSink, number: int, generation: int, consumer: KafkaConsumer) -> None:
        shared = self._shared
        if not sink.replica_role:
            raise StreamError(
                "the stream's role may not set session_replication_role in the target, so foreign keys would be "
                "checked between partitions that know nothing of each other; as a superuser run GRANT SET ON PARAMETER "
                "session_replication_role TO it, or use `partitions: 1`"
            )
        name_session(sink.connection)
        self._check_topic(sink)
        lane = Lane(
            sink,
            stream=shared.stream,
            topic=shared.kafka.topic,
            partition=number,
            decode=self._decode,
            rows=self._rows,
            meter=self._meter,
            max_batch=shared.max_batch,
            parks=shared.max_parked is not None,
            replayer=lambda: PostgresSink(
                shared.target_dsn,
                stream=partition_stream(shared.stream, number),
                mapping=shared.mapping,
                applier=False,
            ),
            announce=self._announce,
        )
        part = TopicPartition(shared.kafka.topic, number)
        first = consumer.beginning_offsets([part])[part]
        end = consumer.end_offsets([part])[part]
        if not first <= lane.stored <= end:
            raise StreamError(
                f"topic {part.topic}, partition {number} holds records {first} to {end}, but the target goes on from "
                f"{lane.stored}: its retention was shorter than the stream's pause, or it was made anew; {BEGIN_ANEW}"
            )
        consumer.seek(part, max(first, lane.begins_at))
        consumer.resume(part)
        self._lanes[number], self._since[number] = lane, generation
        self._awaited.pop(number, None)
        self._log.info("partition_opened", partition=number, offset=lane.stored)
        if number == 0:
            self._take_office()

    def _close_lane(self, number: int) -> None:
        lane = self._lanes.pop(number)
        del self._since[number]
        self._full.discard(number)
        self._committed.pop(number, None)
        if number == 0:
            self._leave_office()
        lane.close()
        self._log.info("partition_closed", partition=number, offset=lane.stored)

    def _take_office(self) -> None:
        shared = self._shared
        self._watcher = self._office.enter_context(
            watching(
                url=shared.kafka.connect,
                name=shared.stream,
                source_dsn=shared.source_dsn,
                config=shared.connector,
                origin=shared.origin,
                meter=self._meter,
            )
        )
        self._keeper = Keeper(
            shared.kafka,
            stream=shared.stream,
            source_dsn=shared.source_dsn,
            target_dsn=shared.target_dsn,
            reached=self._meter.reached,
        )
        self._office.callback(self._keeper.close)
        self._keeper.start()
        self._ours.set()

    def _leave_office(self) -> None:
        self._ours.clear()
        self._keeper = self._watcher = None
        self._office.close()

    def _leave(self, consumer: KafkaConsumer) -> None:
        try:
            self._commit(consumer)
        finally:
            for number in list(self._lanes):
                lane = self._lanes.pop(number)
                lane.close()
            # the last word of the status is still ours
            self._keeper = self._watcher = None
            self._office.close()
            self._rows.close()
            self._ids.close()

    def _commit(self, consumer: KafkaConsumer) -> None:
        """Tell the group what is on the target's disk; for people and for nothing else."""
        offsets = {}
        for number, lane in self._lanes.items():
            durable = lane.sink.durable()
            if durable is not None and self._committed.get(number) != durable:
                self._committed[number] = int(durable)
                part = TopicPartition(self._shared.kafka.topic, number)
                offsets[part] = OffsetAndMetadata(int(durable), "", -1)
        if offsets:
            consumer.commit_async(offsets)

    def _delivered(self, consumer: KafkaConsumer) -> tuple[Lsn | None, Mapping[int, int]]:
        shared = self._shared
        with Connect(shared.kafka.connect) as door:
            delivered = door.delivered(shared.stream)
        parts = [TopicPartition(shared.kafka.topic, number) for number in range(shared.kafka.partitions)]
        return delivered, {part.partition: end for part, end in consumer.end_offsets(parts).items()}

    def _decode(self, message: ConsumerRecord) -> Record:
        try:
            return self._decoder.decode(message.key, message.value, message.headers)
        except UnknownColumnsError:
            self._learn()
        try:
            return self._decoder.decode(message.key, message.value, message.headers)
        except UnknownColumnsError as error:
            # written before the table got its present shape
            self._decoder.accept(error)
            return self._decoder.decode(message.key, message.value, message.headers)

    def _learn(self) -> None:
        self._decoder.learn(self._shared.read_tables())
        self._looked_at = time.monotonic()

    @contextmanager
    def _consuming(self) -> Iterator[KafkaConsumer]:
        kafka, stream = self._shared.kafka, self._shared.stream
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=kafka.bootstrap,
                group_id=stream,
                client_id=f"strangler-{instance_name()}",
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_poll_records=_RECORDS_A_READ,
                fetch_max_wait_ms=50,
                reconnect_backoff_max_ms=RECONNECT_MS,
                session_timeout_ms=_SESSION_MS,
                heartbeat_interval_ms=_SESSION_MS // 3,
                max_poll_interval_ms=_BUSY_MS,
            )
            try:
                yield consumer
            finally:
                consumer.close(autocommit=False)
        except KafkaError as error:
            raise AwayError(f"Kafka at {kafka.bootstrap}: {error!r}") from error

    def _check_topic(self, sink: PostgresSink) -> None:
        """Raises StreamError when what `sink` holds came through another topic than the one of now, or when compaction
        takes records out of it.
        """
        if self._topic is None:
            self._topic = self._ids.find()
            self._ids.refuse_compaction()
        row = sink.connection.execute(
            "SELECT lsn::text FROM strangler_cdc.position WHERE stream = $1", [self._shared.stream]
        ).fetchone()
        self._came_to = Lsn.parse(row[0]) if row else Lsn(0)
        TopicMemory(sink.connection, self._shared.stream).check(self._topic, position=self._came_to)

    def _same_topic(self) -> None:
        """Raises StreamError when the topic was made anew while we read it."""
        if self._topic is None:
            return
        try:
            found = self._ids.find()
        except KafkaError:
            return  # the consumer looks for the broker too, and once that is back this is asked again
        if found is not None:
            judge_topic(self._topic, found, stream=self._shared.stream, position=self._came_to)

    def _await_topic(self, consumer: KafkaConsumer) -> None:
        kafka = self._shared.kafka
        deadline = time.monotonic() + _TOPIC_SECONDS
        # asked for after the subscription: a member that joins before it knows the topic joins a second time
        while kafka.topic not in consumer.topics():
            if time.monotonic() > deadline or self._stop.wait(0.1):
                raise AwayError(
                    f"Kafka at {kafka.bootstrap} has no topic {kafka.topic}: the connector has written nothing yet; "
                    "`strangler cdc connector status` says how it is"
                )
        found = consumer.partitions_for_topic(kafka.topic) or ()
        if len(found) != kafka.partitions:
            raise StreamError(
                f"topic {kafka.topic} has {len(found)} partitions, the plan says {kafka.partitions}: a key's changes "
                "would not stay in one; correct `stream.kafka.partitions`, or "
                f"{BEGIN_ANEW}"
            )
