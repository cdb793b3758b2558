"""The only loop: snapshot, then transactions from a source into a sink, for ever, through crashes and
restarts.

    no position, no slot      take the snapshot, then stream
    no position, slot         a snapshot was cut off: drop the slot, take it again
    position, slot            stream from the position
    position, no slot         refuse: changes since the position are lost to us
    position of another log   refuse: what the target holds is not what the source has (`cdc.lineage`)

*Already applied* lives here: a transaction whose position is not greater than the stored one is left out. The
position is stored in the target together with the rows, and the source is told only what is stored and on disk
(`Sink.durable`), so, even after a crash of the target,

    source's memory begins ≤ stored position = exactly what the rows contain.

Whatever is killed between any two steps, starting again is the whole repair.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event as StopEvent
from typing import Any

import psycopg
import structlog

from cdc import schema
from cdc.announce import Announce, AnnouncingSink
from cdc.changes import Event, Lsn, TableName, Watermark
from cdc.columntypes import read_tables
from cdc.connect import KafkaSettings, connector_config, forget, register
from cdc.connector_begin import await_taken
from cdc.connector_watch import watched
from cdc.decode.debezium import Table
from cdc.following import Account, Following, not_yet_applied, take
from cdc.hold import ControlGate, Gate, OpenGate
from cdc.lineage import Origin
from cdc.mapping import Mapping
from cdc.meter import Meter, Phase, SnapshotProgress
from cdc.origin import TopicMemory, check_origin, read_origin, write_origin
from cdc.parked import OnRefused
from cdc.readahead import ReadAhead
from cdc.seams import BEGIN_ANEW, AwayError, Sink, Source, StreamError
from cdc.sessions import connect
from cdc.sinks.postgres import PostgresSink
from cdc.sinks.session import AlreadyRunningError
from cdc.snapshot import StoppedError, take_snapshot
from cdc.source_fit import check_copied, check_source
from cdc.sources.slot import SlotSource, drop_slot, slot_state
from cdc.start import Start, decide_start
from cdc.status import published, read_status

__all__ = [
    "OnRefused",
    "Start",
    "StreamConfig",
    "StreamError",
    "decide_start",
    "not_yet_applied",
    "pump",
    "run",
]

_CONFIRM_EVERY = 0.25  # seconds between questions how far the target is durable
_STORE_IDLE_EVERY = 1.0  # seconds between stored positions while only foreign log goes by
_BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds; the last one repeats
_WAIT_FOR_PREDECESSOR = 15.0  # seconds a killed process's sessions may linger


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream. `slot` is its name everywhere: slot in the source, row in the target's `strangler_cdc`
    tables.

    `max_batch_changes`: about so many source changes are written in one target transaction.
    `max_waiting_changes`: about so many may wait in memory. `replace_target`: the snapshot deletes rows it
    finds in the target tables. `local_only`: leave out what another stream wrote on the source. `on_refused`,
    `max_parked`: whether a change that the target refuses stops the stream or is parked, and how many keys
    may be. `kafka`: the changes travel through it. `embedded`: Debezium's engine reads the log, without a broker.
    """

    slot: str
    publication: str
    mapping: Mapping
    source_dsn: str
    target_dsn: str
    max_batch_changes: int = 5_000
    max_waiting_changes: int = 20_000
    replace_target: bool = False
    local_only: bool = False
    on_refused: OnRefused = OnRefused.STOP
    max_parked: int = 1_000
    kafka: KafkaSettings | None = None
    embedded: bool = False


def run(
    config: StreamConfig,
    stop: StopEvent,
    *,
    on_progress: Callable[[SnapshotProgress], None] | None = None,
    on_applied: Announce | None = None,
) -> None:
    """Snapshot if needed, then stream until `stop` is set. Safe to start again at any time.

    `on_applied(tables)` is told what changed once it is stored, and every table when a session begins.

    A database that goes away is waited for. Raises StreamError (also ApplyError, TargetNotEmptyError,
    LostPositionError) when a person has to act, the reason also stands in the status; AlreadyRunningError,
    of which the status, being the other process's, says nothing.
    """
    log = structlog.get_logger().bind(stream=config.slot)
    meter = Meter(_earlier_latencies(config, stop))
    ours = StopEvent()
    with published(
        meter, stream=config.slot, source_dsn=config.source_dsn, target_dsn=config.target_dsn, ours=ours
    ):
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                _session(config, stop, ours, meter, on_progress, on_applied=on_applied)
            except (psycopg.OperationalError, AwayError) as error:
                # connections, restarts, locks, full discs: all pass; what does not is another class
                failures = 0 if time.monotonic() - began > 10.0 else failures
                delay = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
                failures += 1
                log.warning("reconnecting", error=str(error).strip(), seconds=delay)
                meter.enter(Phase.RECONNECTING, str(error).strip())
                stop.wait(delay)
            except StoppedError:
                break
            except AlreadyRunningError:
                if stop.is_set():
                    break
                raise
            except Exception as error:
                meter.enter(Phase.FAILED, str(error))
                log.error("stopped", error=str(error))  # noqa: TRY400  (raised below, once is enough)
                raise
        meter.enter(Phase.STOPPED)


def pump(
    source: Source,
    sink: Sink,
    stop: StopEvent,
    *,
    gate: Gate | None = None,
    meter: Meter | None = None,
    max_batch_changes: int = 5_000,
    max_waiting_changes: int = 20_000,
    until: Lsn | None = None,
) -> None:
    """Move transactions from `source` to `sink` until `stop` is set, or everything before `until` is
    there. Stopped within a transaction in pieces it leaves it unstored; `sink.close` forgets it.
    """
    gate = gate or OpenGate()
    meter = meter or Meter()
    position = sink.position()
    if position is None:
        raise StreamError("the target holds no position: the snapshot comes before the stream")
    source.start(position)
    meter.reached(position)
    reached = position  # ≥ position: nothing that concerns us happened between the two
    stored_at = asked_at = time.monotonic()
    within = False  # a transaction has come in part: it can only go on, or be forgotten whole
    with Account(meter) as account, ReadAhead(source, max_changes=max_waiting_changes) as ahead:
        following = Following(ahead, sink, limit=max_batch_changes)
        while not stop.is_set() and not (until is not None and reached >= until):
            limit = None if within else gate.limit()
            if limit is not None:
                account.settle()
                following.put_back()
            meter.enter(Phase.STREAMING if limit is None else Phase.HELD)
            if limit is not None and (limit.upto is None or reached >= limit.upto):
                gate.arrived(reached)
                continue
            upto = limit.upto if limit is not None else None
            batch = following.claim() or take(ahead, max_batch_changes, upto=upto, position=position)
            taken, pending = batch.taken, batch.pending
            if pending:
                sink.apply(pending, meanwhile=account.first(following.after(batch, position)))
                within = pending[-1].more
                account.owe(pending, datetime.now(UTC))
                if not following.ready:
                    account.settle()
                if not within:
                    position = pending[-1].position
                    stored_at = time.monotonic()
            if within:
                continue
            reached = max(
                reached, position, _watermark(taken.events), (upto or reached) if taken.beyond else reached
            )
            meter.reached(reached)
            # Log that does not concern us must be let go too, or the source keeps it for ever; once a second is
            # enough.
            now = time.monotonic()
            if reached > position and now - stored_at >= _STORE_IDLE_EVERY:
                sink.advance(reached)
                position = reached
                stored_at = now
            if now - asked_at >= _CONFIRM_EVERY:
                _confirm(source, sink)
                asked_at = now
        if not within:
            _confirm(source, sink)


def _confirm(source: Source, sink: Sink) -> None:
    durable = sink.durable()
    if durable is not None:
        source.confirm(durable)


def _watermark(events: Sequence[Event]) -> Lsn:
    # events are in order: one before a transaction says less than that
    return events[-1].position if events and isinstance(events[-1], Watermark) else Lsn(0)


def _session(
    config: StreamConfig,
    stop: StopEvent,
    ours: StopEvent,
    meter: Meter,
    on_progress: Callable[[SnapshotProgress], None] | None,
    *,
    on_applied: Announce | None,
) -> None:
    with connect(config.target_dsn, name=f"strangler_cdc {config.slot}") as connection:
        _make_schema(connection, config)
    ours.clear()  # until we have the lock, the status may be another process's
    if config.kafka is not None and config.kafka.partitions > 1:
        from cdc.sharded.session import shared_session  # noqa: PLC0415  # costs nothing unless asked for

        def begin(sink: PostgresSink) -> Origin:
            _begin(config, sink, stop, meter, on_progress)
            return _same_log(config, sink, anew=False)

        def registered(sink: PostgresSink) -> None:
            assert config.kafka is not None
            _await_taken(config, config.kafka, sink, stop)

        shared_session(
            config, stop, ours, meter, begin=begin, registered=registered,
            only_sink=lambda: _only_sink(config, stop, wait=None),
            connector=connector(config, config.kafka), read_tables=lambda: _tables(config), announce=on_applied,
        )  # fmt: skip
        return
    sink = _only_sink(config, stop)
    ours.set()
    source: Source | None = None
    try:
        _begin(config, sink, stop, meter, on_progress)
        origin = _same_log(config, sink)
        source = _source(config, origin, sink)
        if config.kafka is not None:
            register(config.kafka, name=config.slot, stream=connector(config, config.kafka))
            _await_taken(config, config.kafka, sink, stop)
        if on_applied is not None:
            on_applied(frozenset(config.mapping.sources()))
        with _fed(config, source, origin, meter) as fed:
            pump(
                fed,
                AnnouncingSink(sink, on_applied) if on_applied is not None else sink,
                stop,
                gate=ControlGate(sink.connection, config.slot),
                meter=meter,
                max_batch_changes=config.max_batch_changes,
                max_waiting_changes=config.max_waiting_changes,
            )
    finally:
        if source is not None:
            source.close()
        sink.close()


def _await_taken(config: StreamConfig, kafka: KafkaSettings, sink: PostgresSink, stop: StopEvent) -> None:
    position = sink.position()
    assert position is not None, "the snapshot or an earlier life has stored it"
    await_taken(kafka.connect, name=config.slot, source_dsn=config.source_dsn, position=position, stop=stop)


def _fed(
    config: StreamConfig, source: Source, origin: Origin, meter: Meter
) -> AbstractContextManager[Source]:
    """`source`, while the connector that feeds it, where there is one, is watched."""
    if config.kafka is None:
        return nullcontext(source)
    return watched(
        source,
        url=config.kafka.connect,
        name=config.slot,
        source_dsn=config.source_dsn,
        config=connector(config, config.kafka),
        origin=origin,
        meter=meter,
    )


def _same_log(config: StreamConfig, sink: PostgresSink, *, anew: bool = True) -> Origin:
    """What the source is, which holds the log that the target was filled from. Raises StreamError when it does not.
    `anew`: what waits in Kafka can be read again from the slot.
    """
    position, stored = sink.position(), read_origin(sink.connection, config.slot)
    assert position is not None, "the snapshot or an earlier life has stored it"
    found = check_origin(config.source_dsn, stream=config.slot, position=position, stored=stored)
    if found == stored:
        return found
    if stored is not None and not anew:
        raise StreamError(
            f"the source went from timeline {stored.timeline} to {found.timeline}: what waits in the topic's "
            f"partitions may be of the end of the log that was abandoned; {BEGIN_ANEW}"
        )
    if stored is not None:
        structlog.get_logger().warning(
            "source_took_a_new_timeline", stream=config.slot, before=stored.timeline, now=found.timeline
        )
        if config.kafka is not None:
            raise StreamError(
                f"stream {config.slot}: the source left timeline {stored.timeline} for timeline {found.timeline}. What "
                "waits in Kafka, and the connector's place in the log, may be of an end of the old one that was "
                f"abandoned; nothing tells them apart: {BEGIN_ANEW}"
            )
    write_origin(sink.connection, config.slot, found)
    return found


def _source(config: StreamConfig, origin: Origin, sink: PostgresSink) -> Source:
    if config.embedded:
        from cdc.sources.embedded import EmbeddedSource, engine_properties  # noqa: PLC0415  # costs nothing unless asked for

        settings = connector(config, KafkaSettings("", "", config.slot))
        return EmbeddedSource(
            engine_properties(settings, config.source_dsn), read_tables=lambda: _tables(config)
        )
    if config.kafka is None:
        return SlotSource(
            config.source_dsn,
            slot=config.slot,
            publication=config.publication,
            tables=config.mapping.sources(),
            local_only=config.local_only,
            without_gap=True,
            origin=origin,
        )
    from cdc.decode.debezium_values import Modes  # noqa: PLC0415  # costs nothing unless asked for
    from cdc.sources.kafka import KafkaSource  # noqa: PLC0415  # costs nothing unless asked for

    return KafkaSource(
        config.kafka.bootstrap,
        topic=config.kafka.topic,
        group=config.slot,
        read_tables=lambda: _tables(config),
        modes=Modes.of(connector(config, config.kafka)),
        memory=TopicMemory(sink.connection, config.slot),
    )


def _tables(config: StreamConfig) -> dict[TableName, Table]:
    """The tables as the source has them now. Raises StreamError when the publication no longer carries them: Debezium
    would try for ever to read one that is missing, and says nothing of one that leaves changes out.
    """
    with connect(config.source_dsn, name=f"strangler_cdc {config.slot}") as source:
        check_source(source, config.mapping, publication=config.publication)
        return read_tables(
            source,
            {table.source: frozenset(name for name, _ in table.ignored) for table in config.mapping.tables},
        )


def connector(config: StreamConfig, kafka: KafkaSettings) -> dict[str, str]:
    """The configuration of the stream's connector. Pure."""
    return connector_config(
        name=config.slot,
        source_dsn=config.source_dsn,
        publication=config.publication,
        keys={table.source: tuple(part.source for part in table.key) for table in config.mapping.tables},
        topic=kafka.topic,
        partitions=kafka.partitions,
        max_record=kafka.max_record,
        local_only=config.local_only,
    )


def _make_schema(connection: psycopg.Connection[Any], config: StreamConfig) -> None:
    parks = config.on_refused is OnRefused.PARK or (config.kafka is not None and config.kafka.partitions > 1)
    if schema.complete(connection) if parks else schema.exists(connection):
        return
    try:
        schema.create(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StreamError(
            f"the target's schema strangler_cdc lacks {', '.join(sorted(schema.missing(connection)))} and the "
            "stream's role may not make it; prepare the stream again (as the owner), then start it"
        ) from error


def _only_sink(
    config: StreamConfig, stop: StopEvent, *, wait: float | None = _WAIT_FOR_PREDECESSOR
) -> PostgresSink:
    """The stream's sink; another process's lock is waited for `wait` seconds, None: until `stop`."""
    deadline = None if wait is None else time.monotonic() + wait
    while True:
        try:
            return PostgresSink(
                config.target_dsn,
                stream=config.slot,
                mapping=config.mapping,
                max_parked=config.max_parked if config.on_refused is OnRefused.PARK else None,
            )
        except AlreadyRunningError:
            # the sessions of a killed process live until the server notices
            if (deadline is not None and time.monotonic() > deadline) or stop.wait(0.05):
                raise


def _begin(
    config: StreamConfig,
    sink: PostgresSink,
    stop: StopEvent,
    meter: Meter,
    on_progress: Callable[[SnapshotProgress], None] | None,
) -> None:
    log = structlog.get_logger().bind(stream=config.slot)
    with connect(config.source_dsn, name=f"strangler_cdc {config.slot}") as source:
        check_source(source, config.mapping, publication=config.publication)
        state = slot_state(source, config.slot)
        start = decide_start(
            slot=config.slot,
            database=source.info.dbname,
            position=sink.position(),
            state=state,
            kept_elsewhere=config.kafka is not None,
        )
        if start == Start.STREAM:
            check_copied(sink.copied(), config.mapping)
            log.info("resuming", position=str(sink.position()))
            return
        if start == Start.SNAPSHOT_AGAIN:
            log.info("dropping_slot_of_unfinished_snapshot")
            if config.kafka is not None:
                forget(config.kafka, name=config.slot)
            drop_slot(source, config.slot)

    def report(progress: SnapshotProgress) -> None:
        meter.snapshot(progress)
        if on_progress is not None:
            on_progress(progress)

    sink.forget_parked()
    meter.enter(Phase.SNAPSHOT)
    log.info("snapshot_begins", tables=[str(table) for table in config.mapping.sources()])
    try:
        point = take_snapshot(
            source_dsn=config.source_dsn,
            target=sink.connection,
            defer=not sink.replica_role,
            mapping=config.mapping,
            slot=config.slot,
            replace_target=config.replace_target,
            stop=stop,
            report=report,
        )
    except psycopg.OperationalError:
        # The target may have committed and only the news of it was lost: then the stream begins at this
        # slot. The next attempt knows; it drops the slot if there is no position.
        raise
    except Exception:
        _let_go_of_slot(config)
        raise
    log.info("snapshot_done", position=str(point))
    sink.learn_sizes()
    # Nobody holds the slot while rows are copied. Was it dropped or made anew meanwhile, the server would silently
    # begin where the slot does.
    with connect(config.source_dsn, name=f"strangler_cdc {config.slot}") as source:
        decide_start(
            slot=config.slot,
            database=source.info.dbname,
            position=point,
            state=slot_state(source, config.slot),
        )


def _let_go_of_slot(config: StreamConfig) -> None:
    """After a failed snapshot: a slot that nobody reads would make the source keep its log for ever."""
    try:
        with connect(config.source_dsn, name=f"strangler_cdc {config.slot}") as source:
            drop_slot(source, config.slot, timeout=2.0)
    except psycopg.Error as error:
        # not the cause, and not fatal: the next start drops it
        structlog.get_logger().warning("slot_left_behind", stream=config.slot, error=str(error).strip())


def _earlier_latencies(config: StreamConfig, stop: StopEvent) -> tuple[int, ...]:
    """Continue the histogram of the process before us; without one if the target is not there yet."""
    try:
        status = None if stop.is_set() else read_status(config.target_dsn, stream=config.slot)
    except psycopg.Error:
        return ()
    return status.latencies if status else ()
