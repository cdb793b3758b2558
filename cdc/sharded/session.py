"""One instance's life: the first one begins the stream, the others wait for it; then all are members of the group."""

from collections.abc import Callable, Mapping
from threading import Event as StopEvent
from typing import TYPE_CHECKING

from cdc.announce import Announce
from cdc.connect import forget, register
from cdc.lineage import Origin
from cdc.meter import Meter
from cdc.parked import OnRefused
from cdc.sharded.beginning import begun, divide
from cdc.sharded.group import Instance, ReadTables, Shared
from cdc.sinks.postgres import PostgresSink

if TYPE_CHECKING:
    from cdc.pipeline import StreamConfig


def shared_session(
    config: "StreamConfig",
    stop: StopEvent,
    ours: StopEvent,
    meter: Meter,
    *,
    begin: Callable[[PostgresSink], Origin],
    registered: Callable[[PostgresSink], None],
    only_sink: Callable[[], PostgresSink],
    connector: Mapping[str, str],
    read_tables: ReadTables,
    announce: Announce | None,
) -> None:
    """Apply partitions until `stop` is set. `begin` takes the snapshot where there is none yet, and checks that the
    stream can go on; `registered` that its connector does; `only_sink` waits for the stream's lock. Raises as
    `cdc.pipeline.run` does.
    """
    kafka = config.kafka
    assert kafka is not None, "partitions are Kafka's"
    look = PostgresSink(config.target_dsn, stream=config.slot, mapping=config.mapping, applier=False)
    try:
        goes_on = begun(look.connection, config.slot, kafka.partitions)
        if goes_on:
            origin = begin(look)
    finally:
        look.close()
    if not goes_on:
        sink = only_sink()
        try:
            ours.set()
            if sink.position() is None:
                # partitions begin with their first record, which shall be ours
                forget(kafka, name=config.slot)
            origin = begin(sink)
            divide(sink.connection, config.slot, kafka.partitions)
        finally:
            ours.clear()
            sink.close()
    register(kafka, name=config.slot, stream=connector)
    look = PostgresSink(config.target_dsn, stream=config.slot, mapping=config.mapping, applier=False)
    try:
        registered(look)
    finally:
        look.close()
    if announce is not None:
        announce(frozenset(config.mapping.sources()))
    shared = Shared(
        stream=config.slot,
        mapping=config.mapping,
        kafka=kafka,
        connector=connector,
        origin=origin,
        source_dsn=config.source_dsn,
        target_dsn=config.target_dsn,
        read_tables=read_tables,
        max_batch=config.max_batch_changes,
        max_waiting=config.max_waiting_changes,
        max_parked=config.max_parked if config.on_refused is OnRefused.PARK else None,
    )
    Instance(shared, stop, ours, meter, announce=announce).run()
