"""Publish how a stream does, and read it.

The running process writes its meter into `strangler_cdc.status` several times a second from a thread of its
own, so that a long transaction is not taken for a dead process. `read_status` is for everybody else.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import psycopg
import structlog

from cdc import schema
from cdc.changes import Lsn
from cdc.meter import Meter, Phase, SnapshotProgress, TableProgress, as_json, quantile
from cdc.sessions import connect
from cdc.sharded.claim import partition_stream
from cdc.sharded.fence import holders, partitions

_EVERY = 0.25  # seconds
_ALIVE_WITHIN = 3.0  # seconds since the last sign of life


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition of a stream: the offset behind what is stored, and the process that has it (`host:pid`, "" when
    none does).
    """

    number: int
    offset: int
    instance: str


@dataclass(frozen=True, slots=True)
class CdcStatus:
    """A stream as its status says. `heartbeat_age` in seconds by the target's clock: how old all else is.

    `position` is what the target has stored; `applied` how far the process has come (further, when
    nothing that concerns it has happened since). `lag_bytes` and `lag_seconds` are None before the stream
    has begun; of a process that does not run any more `lag_seconds` is how long ago the target was up to
    date. `changes` and `transactions` count since the stream was made, `parked` are keys that wait
    because the target refused a change (`cdc.parked`), `latency_ms_*` run from the
    source's commit to the target's. `warning`: what is wrong outside the process while it goes on, as with
    the connector that feeds it. `running`: the process sent a sign of life within the last three
    seconds and has not ended.
    """

    stream: str
    phase: Phase
    error: str
    heartbeat_age: float
    running: bool
    position: Lsn | None
    applied: Lsn | None
    source_position: Lsn | None
    lag_bytes: int | None
    lag_seconds: float | None
    transactions: int
    changes: int
    snapshot_rows: int
    snapshot: SnapshotProgress | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    latencies: tuple[int, ...]
    parked: int = 0
    warning: str = ""
    partitions: tuple[PartitionStatus, ...] = ()


_READ = """
SELECT s.state, extract(epoch FROM clock_timestamp() - s.heartbeat)::float8, p.lsn::text,
       coalesce(p.transactions, 0), coalesce(p.changes, 0), coalesce(p.snapshot_rows, 0)
FROM (SELECT %(stream)s AS stream) wanted
LEFT JOIN strangler_cdc.status s USING (stream) LEFT JOIN strangler_cdc.position p USING (stream)
"""


def read_status(target: str | psycopg.Connection[Any], *, stream: str) -> CdcStatus | None:
    """The status of `stream` in the database `target` (a DSN or an open connection); None when there is
    none yet.

    Raises psycopg.OperationalError when the database is not reachable.
    """
    if isinstance(target, str):
        with connect(target, name="strangler_cdc status") as connection:
            return read_status(connection, stream=stream)
    absent = schema.missing(target)
    if absent and not schema.exists(target):
        return None
    row = psycopg.Cursor(target).execute(_READ, {"stream": stream}).fetchone()
    assert row is not None
    state, age, position, transactions, changes, snapshot_rows = row
    if state is None:
        return None
    phase = Phase(state["phase"])
    applied = _lsn(state["position"])
    source_position = _lsn(state["source_position"])
    lag = None if applied is None or source_position is None else max(0, source_position - applied)
    latencies = tuple(state["latencies"])
    running = age < _ALIVE_WITHIN and phase not in (Phase.STOPPED, Phase.FAILED)
    behind = state["lag_seconds"]
    if behind is not None and not running:
        behind += max(0.0, age)
    return CdcStatus(
        stream=stream,
        phase=phase,
        error=state["error"],
        heartbeat_age=max(0.0, age),
        running=running,
        position=_lsn(position),
        applied=applied,
        source_position=source_position,
        lag_bytes=lag,
        lag_seconds=behind,
        transactions=transactions,
        changes=changes,
        snapshot_rows=snapshot_rows,
        snapshot=_snapshot(state["snapshot"]),
        latency_ms_p50=quantile(latencies, 0.5),
        latency_ms_p99=quantile(latencies, 0.99),
        latencies=latencies,
        warning=state.get("warning", ""),  # a process of an earlier version writes none
        parked=0 if absent else _parked(target, stream),  # in an older schema nothing can be parked
        partitions=_partitions(target, stream),
    )


def _partitions(target: psycopg.Connection[Any], stream: str) -> tuple[PartitionStatus, ...]:
    offsets = partitions(target, stream)
    if not offsets:
        return ()
    found = holders(target, [partition_stream(stream, number) for number in offsets])
    return tuple(
        PartitionStatus(number, offset, holder.instance if holder is not None else "")
        for number, offset in sorted(offsets.items())
        for holder in [found.get(partition_stream(stream, number))]
    )


def _parked(target: psycopg.Connection[Any], stream: str) -> int:
    row = (
        psycopg.Cursor(target)
        .execute(
            "SELECT count(DISTINCT (stream, key)) FROM strangler_cdc.parked, unnest(keys) AS key"
            " WHERE stream = %(stream)s OR starts_with(stream, %(stream)s || '/')",
            {"stream": stream},
        )
        .fetchone()
    )
    assert row is not None
    return int(row[0])


def _snapshot(state: dict[str, Any] | None) -> SnapshotProgress | None:
    if state is None:
        return None
    return SnapshotProgress(tuple(TableProgress(**table) for table in state["tables"]), state["seconds"])


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)


@contextlib.contextmanager
def published(meter: Meter, *, stream: str, source_dsn: str, target_dsn: str, ours: Event) -> Iterator[None]:
    """Publish `meter` while the `with` block runs and the stream is `ours`, and once more at its end."""
    publisher = _Publisher(meter, stream, source_dsn, target_dsn, ours)
    ended = Event()
    thread = Thread(target=publisher.run, args=(ended,), name="cdc-status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=15.0)


class _Publisher:
    def __init__(self, meter: Meter, stream: str, source_dsn: str, target_dsn: str, ours: Event) -> None:
        self._meter = meter
        self._ours = ours
        self._stream = stream
        self._dsns = {"source": source_dsn, "target": target_dsn}
        self._open: dict[str, psycopg.Connection[Any]] = {}
        self._complained: dict[str, str] = {}

    def run(self, ended: Event) -> None:
        last_round = False
        while not last_round:
            last_round = ended.wait(_EVERY)
            if self._ours.is_set():
                self._try("source", self._sample)
                self._try("target", self._write)
        for connection in self._open.values():
            connection.close()

    def _try(self, side: str, work: Any) -> None:
        # A server that is away is the pipeline's business and shows in the heartbeat's age; said once here.
        try:
            connection = self._open.get(side)
            if connection is None or connection.closed:
                connection = connect(self._dsns[side], name=f"strangler_cdc status {self._stream}")
                self._open[side] = connection
            work(connection)
            self._complained.pop(side, None)
        except psycopg.Error as error:
            stale = self._open.pop(side, None)
            if stale is not None:
                stale.close()
            if self._complained.get(side) != str(error):
                self._complained[side] = str(error)
                structlog.get_logger().warning("status_not_published", side=side, error=str(error))

    def _sample(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        self._meter.sample(Lsn.parse(row[0]), time.monotonic())

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        state = json.dumps(as_json(self._meter.facts(time.monotonic())))
        connection.execute(
            "INSERT INTO strangler_cdc.status (stream, state) VALUES (%s, %s) ON CONFLICT (stream) DO UPDATE"
            " SET state = EXCLUDED.state, heartbeat = clock_timestamp()",
            [self._stream, state],
        )
