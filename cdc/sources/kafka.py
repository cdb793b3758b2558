"""Read what Debezium wrote into Kafka: one topic, one partition, the write-ahead log's transactions in commit order.

    consumer ─► decode.debezium ─► assembly ─► Transactions, Watermarks

Where to go on is decided by the position in the target alone; the consumer group's offset only spares reading again. It
is committed after the target is, and never past a transaction that is not durable there, so a crash between the two
repeats records and loses none. With it stands the position it belongs to: where the target holds less (it was restored
from a backup), or the group's offset has expired, the topic is read from its first record, and what the target has is
left out. A topic that has lost its beginning serves only whom the first commit it still holds is no news to.

A topic that was deleted and made anew begins at offset 0 like a fresh one. Its id tells the two apart: the target keeps
the one it was filled through, and while the stream runs it is asked for every few seconds.

A gap in a transaction is waited out: a connector that could not send a record fails, and when it works again it sends
everything from there anew (`cdc.assembly`). One that goes on without doing so has lost it for good.

The partition is assigned, not subscribed to: the stream's lock in the target keeps a second reader out, and a killed
one need not be waited for. kafka-python reconnects by itself; a broker that stays away shows as silence.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Protocol

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from cdc.assembly import Assembly, GapError
from cdc.changes import Event, Lsn, TableName, Watermark
from cdc.connect import RECONNECT_MS
from cdc.decode.debezium import Decoder, Kind, Record, Table, UnknownColumnsError
from cdc.decode.debezium_values import DebeziumError, Modes
from cdc.lineage import Topic, judge_topic
from cdc.seams import BEGIN_ANEW, AwayError, StreamError
from cdc.sources.topic import TopicIds

_RECORDS_A_READ = 5_000
_BYTES_A_FETCH = 8_000_000
_COMMIT_EVERY = 0.5  # seconds
_LOOK_EVERY = 5.0  # seconds between two looks at the source's catalogue
_REPEATED_WITHIN = 30_000  # milliseconds a connector may go on after a record that it could not send
_TOPIC_SECONDS = 60.0  # that a new connector may take to write its first record


class Memory(Protocol):
    """What the target remembers of its topic (`cdc.origin.TopicMemory`)."""

    def check(self, found: Topic | None, *, position: Lsn) -> None:
        """Raises StreamError when what the target holds up to `position` did not come through `found`."""


ReadTables = Callable[[], Mapping[TableName, Table]]


def resume_at(committed: OffsetAndMetadata | None, *, first: int, after: Lsn) -> int | None:
    """The offset to go on from, or None to read from the topic's `first` record. Pure. `committed` bears in its
    metadata the position that lies just before it, as `KafkaSource` writes it.
    """
    if committed is None or committed.offset < first:
        return None
    try:
        contained = Lsn.parse(committed.metadata) <= after
    except ValueError:
        return None  # not written by us
    return int(committed.offset) if contained else None


def truncated(topic: str, error: Exception) -> StreamError:
    """The brokers have lost records that were read already, and others took their offsets."""
    return StreamError(
        f"topic {topic} lost records at its end that had been read ({error}), as it does when a broker without them "
        f"took over: which of those that stand there now were read cannot be told; {BEGIN_ANEW}"
    )


class KafkaSource:
    """Transactions of `topic` on the brokers `bootstrap`; see `cdc.seams.Source`.

    `read_tables` reads the tables from the source's catalogue, which records without schemas do not tell; it may raise
    psycopg.OperationalError. `group` names the committed offsets. `modes`: the settings that the connector writes with.
    `memory` knows the topic through which the target was filled; it is used by `start` alone.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        topic: str,
        group: str,
        read_tables: ReadTables,
        modes: Modes,
        memory: Memory | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic, 0)
        self._group = group
        self._read_tables = read_tables
        self._modes = modes
        self._memory = memory
        self._topic: Topic | None = None
        self._ids = TopicIds(bootstrap, topic)
        self._consumer: KafkaConsumer | None = None
        self._decoder = Decoder({}, modes)
        self._assembly = Assembly(Lsn(0))
        self._looked_at = 0.0
        self._guard = Lock()
        self._confirmed = Lsn(0)
        self._ends: deque[tuple[Lsn, int]] = deque()  # position of a transaction and the offset behind it
        self._to_commit: tuple[Lsn, int] | None = None
        self._unproven: str | None = (
            None  # why changes may be missing before the first commit that will be read
        )
        self._committed_at = 0.0
        self._lacking_since: int | None = (
            None  # time of the record that showed a gap, milliseconds since 1970
        )

    def start(self, after: Lsn) -> None:
        """Begin at the committed offset where `after` contains what lies before it, or with the first record. Raises
        AwayError when the brokers do not answer, StreamError when the topic is another than before or is compacted.
        That it no longer holds what comes next shows with the first commit: `read` then raises StreamError.
        """
        try:
            self._consumer = consumer = KafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=self._group,
                client_id=f"strangler-{self._group}",
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,  # the connector makes it; one that was deleted is news
                max_poll_records=_RECORDS_A_READ,
                fetch_max_wait_ms=50,
                fetch_min_bytes=1,
                reconnect_backoff_max_ms=RECONNECT_MS,
                # a megabyte, the default, is gone before the next one can be asked for
                max_partition_fetch_bytes=_BYTES_A_FETCH,
            )
            self._await_topic(consumer, after)
            self._topic = self._ids.find()
            self._ids.refuse_compaction()
            if self._memory is not None and self._topic is not None:
                self._memory.check(self._topic, position=after)
            consumer.assign([self._partition])
            first = consumer.beginning_offsets([self._partition])[self._partition]
            offset = resume_at(consumer.committed(self._partition, metadata=True), first=first, after=after)
            consumer.seek(self._partition, first if offset is None else offset)
        except KafkaError as error:
            raise AwayError(f"Kafka at {self._bootstrap}: {error!r}") from error
        self._decoder = Decoder(self._read_tables(), self._modes)
        self._looked_at = time.monotonic()
        self._assembly = Assembly(after)
        self._lacking_since = None
        self._unproven = f"its first record is number {first}" if offset is None and first > 0 else None
        with self._guard:
            self._confirmed = after
            self._ends.clear()
            self._to_commit = None

    def read(self, timeout: float) -> list[Event]:
        """The transactions that have become whole; waits up to `timeout` seconds for records."""
        consumer = self._started()
        self.answer()
        if time.monotonic() - self._looked_at > _LOOK_EVERY:
            # a widened column shows in the catalogue alone
            self._learn()
            self._same_topic()
        try:
            batch = consumer.poll(timeout_ms=round(timeout * 1000), max_records=_RECORDS_A_READ)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            self._same_topic()
            raise self._cut_off(str(error)) from error
        except LogTruncationError as error:
            self._same_topic(gone_too=True)
            raise truncated(self._partition.topic, error) from error
        except KafkaError as error:
            raise AwayError(f"Kafka at {self._bootstrap}: {error!r}") from error
        events: list[Event] = []
        for message in batch.get(self._partition, ()):
            try:
                record = self._decode(message.key, message.value, message.headers)
                if self._unproven is not None and record.kind is Kind.END:
                    self._prove(record)
                for event in self._assembly.feed(record):
                    events.append(event)
                    self._lacking_since = None
                    if isinstance(event, Watermark) or not event.more:
                        with self._guard:
                            self._ends.append((event.position, message.offset + 1))
            except GapError as error:
                self._await_again(error, message.offset, message.timestamp)
            except DebeziumError as error:
                raise StreamError(
                    f"topic {self._partition.topic}, record {message.offset}: {error}; what was stored stays, and with "
                    "a mapping that leaves it out the stream goes on at this record"
                ) from error
        return events

    def confirm(self, position: Lsn) -> None:
        """Remember; the reading thread commits the offset."""
        with self._guard:
            self._confirmed = max(self._confirmed, position)
            while self._ends and self._ends[0][0] <= self._confirmed:
                self._to_commit = self._ends.popleft()

    def answer(self) -> None:
        """Commit the offset that was confirmed. An assigned partition needs no sign of life."""
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY:
            self._commit(wait=False)

    def close(self) -> None:
        """Commit and leave."""
        self._ids.close()
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            self._commit(wait=True, consumer=consumer)
            consumer.close(autocommit=False)
        except KafkaError as error:
            # only reading again is lost
            structlog.get_logger().warning("offset_not_committed", error=repr(error))

    def _commit(self, *, wait: bool, consumer: KafkaConsumer | None = None) -> None:
        with self._guard:
            reached, self._to_commit = self._to_commit, None
        if reached is None:
            return
        self._committed_at = time.monotonic()
        consumer = consumer or self._started()
        position, offset = reached
        offsets = {self._partition: OffsetAndMetadata(offset, str(position), -1)}
        if wait:
            consumer.commit(offsets, timeout_ms=5_000)
        else:
            consumer.commit_async(offsets)

    def _prove(self, end: Record) -> None:
        """The first commit that is read. Commits come in order: a target that has it has what was before."""
        why, self._unproven = self._unproven, None
        if end.position > self._confirmed:
            raise self._cut_off(f"{why}, and its first commit, at {end.position}, is not in the target")

    def _await_again(self, gap: GapError, offset: int, now: int) -> None:
        """A connector that failed to send a record sends it again, with all that follows, once it works: in the topic
        that is before anything newer. `now`: when the record at `offset` was written.
        """
        if self._lacking_since is None:
            self._lacking_since = now
            structlog.get_logger().warning(
                "records_missing",
                stream=self._group,
                offset=offset,
                reason=str(gap),
                next="the connector sends them again when it works; `strangler cdc connector status` says how it is",
            )
        if now - self._lacking_since > _REPEATED_WITHIN:
            raise StreamError(
                f"topic {self._partition.topic}, record {offset}: {gap}, and the connector went on for "
                f"{(now - self._lacking_since) // 1000} s without sending them again; {BEGIN_ANEW}"
            ) from gap

    def _decode(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> Record:
        try:
            return self._decoder.decode(key, value, headers)
        except UnknownColumnsError:
            self._learn()
        try:
            return self._decoder.decode(key, value, headers)
        except UnknownColumnsError as error:
            # written before the table got its present shape
            self._decoder.accept(error)
            return self._decoder.decode(key, value, headers)

    def _learn(self) -> None:
        self._decoder.learn(self._read_tables())
        self._looked_at = time.monotonic()

    def _same_topic(self, *, gone_too: bool = False) -> None:
        """Raises StreamError when the topic was made anew since `start`; one that is gone is waited for there, unless
        `gone_too`.
        """
        try:
            found = self._ids.find()
        except KafkaError:
            return  # the consumer looks for the broker too, and once that is back this is asked again
        if found is not None or gone_too:
            judge_topic(self._topic, found, stream=self._group, position=self._confirmed)

    def _await_topic(self, consumer: KafkaConsumer, after: Lsn) -> None:
        deadline = time.monotonic() + _TOPIC_SECONDS
        while not (found := consumer.partitions_for_topic(self._partition.topic)):
            if time.monotonic() > deadline:
                if self._memory is not None:
                    self._memory.check(None, position=after)
                raise AwayError(
                    f"Kafka at {self._bootstrap} has no topic {self._partition.topic}: the connector has written "
                    "nothing yet; `strangler cdc connector status` says how it is"
                )
            time.sleep(0.1)
        if len(found) > 1:
            raise StreamError(
                f"topic {self._partition.topic} has {len(found)} partitions, so transactions are not in one piece: say "
                f"`partitions: {len(found)}` under stream.kafka, or {BEGIN_ANEW}"
            )

    def _started(self) -> KafkaConsumer:
        assert self._consumer is not None, "start() comes before read()"
        return self._consumer

    def _cut_off(self, what: str) -> StreamError:
        return StreamError(
            f"topic {self._partition.topic} does not hold the next change any more ({what}): its retention was "
            "shorter than the stream's pause; tear the stream down and prepare it again, the snapshot then copies "
            "everything anew"
        )
