"""Is the target the image of the source? Row by row, at one log position, while both go on living.

Both sides are looked at as of the same position C:

    hold the applier → temporary slot, its exported snapshot shows the source at C → the applier goes
    exactly to C → open a snapshot of the target → let the applier go on → compare at leisure

Holding first is essential: an applier that is past C already would make every row it wrote look false. It
stands still only until the two snapshots are open (tens of milliseconds). Without a running applier the
stored position must already contain everything before C. The method is that of Vitess' VDiff; the
comparison is `compare_sql`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingOf
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event as StopEvent
from threading import Thread
from typing import Any

import psycopg
from psycopg import sql

from cdc import compare_sql, schema
from cdc.changes import Lsn, TableName
from cdc.compare_sql import Side
from cdc.hold import Hold, HoldLostError
from cdc.mapping import TableMapping
from cdc.pipeline import StreamConfig
from cdc.sessions import connect
from cdc.sinks.postgres import AlreadyRunningError, lock_stream
from cdc.sources.slot import SlotTimeoutError, created_slot, slot_state
from cdc.tableshape import read_shape

_ROWS_A_BUCKET = 1_000
_MAX_BUCKETS = 65_536
_HOLD_AT_MOST = 2.0  # seconds the applier waits for the source's snapshot in one attempt
_LEASE = 10.0  # seconds after which the applier goes on whatever happens to us
_BUCKETS_AT_ONCE = 64
_STOP_LOOK = 0.2  # seconds between two looks at `stop` while queries run
_STOPPED = "the comparison was stopped before its end"


class VerifyError(Exception):
    """The two sides cannot be compared now; the message says why and what to do."""


class Kind(StrEnum):
    """What is wrong with a row of the target."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Difference:
    """One wrong value: `column` of the target row `key`, as text on both sides (None is NULL).

    For a missing or extra row `column` is empty and both values are None.
    """

    key: MappingOf[str, str | None]
    kind: Kind
    column: str = ""
    source: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class TableReport:
    """One target table. `rows` counts the source's. `differing` counts rows; a lower bound unless
    `complete`.
    """

    rows: int
    differing: int
    differences: tuple[Difference, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The comparison at `position`. `tables` by target table; times in milliseconds and seconds."""

    position: Lsn
    tables: MappingOf[str, TableReport] = field(default_factory=dict)
    applier_held_ms: float = 0.0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows compared."""
        return sum(table.rows for table in self.tables.values())

    @property
    def differing(self) -> int:
        """Rows that differ, are missing or too many."""
        return sum(table.differing for table in self.tables.values())

    @property
    def equal(self) -> bool:
        """Whether the target is the image of the source."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """`table` has been compared; so far `rows` rows in `tables_done` of `tables` tables."""

    table: str
    tables_done: int
    tables: int
    rows: int


def verify(
    config: StreamConfig,
    *,
    timeout: float = 60.0,
    max_differences: int = 100,
    on_progress: Callable[[VerifyProgress], None] | None = None,
    stop: StopEvent | None = None,
) -> VerifyReport:
    """Compare every mapped table. `timeout`: seconds to bring both sides to one position.

    At most about `max_differences` differing rows a table are looked up by column. When `stop` is set, it ends
    within a second or two (VerifyError), whatever it waits for. Raises VerifyError, psycopg.Error.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        source = stack.enter_context(
            connect(config.source_dsn, name="strangler_cdc verify", autocommit=False)
        )
        target = stack.enter_context(
            connect(config.target_dsn, name="strangler_cdc verify", autocommit=False)
        )
        for connection in (source, target):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        if stop is not None:
            stack.enter_context(_cancelled_by(stop, source, target))
        position, held_ms = _align(config, source, target, timeout, stop)
        threads = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="cdc-verify"))
        comparison = _Comparison(source, target, threads, max_differences)
        tables: dict[str, TableReport] = {}
        for table in config.mapping.tables:
            tables[str(table.target)] = comparison.compare(table)
            if on_progress is not None:
                rows = sum(report.rows for report in tables.values())
                on_progress(VerifyProgress(str(table.target), len(tables), len(config.mapping.tables), rows))
        return VerifyReport(position, tables, held_ms, time.monotonic() - began)


def _align(
    config: StreamConfig,
    source: psycopg.Connection[Any],
    target: psycopg.Connection[Any],
    timeout: float,
    stop: StopEvent | None,
) -> tuple[Lsn, float]:
    """Open a snapshot on both sides at one position. Returns it and how long the applier was held (ms)."""
    deadline = time.monotonic() + timeout
    with connect(config.target_dsn, name="strangler_cdc verify control") as control:
        if not schema.exists(control):
            raise VerifyError(f"stream {config.slot} has never run: the target has no schema strangler_cdc")
        reason = ""
        while time.monotonic() < deadline:
            try:
                with _no_applier(control, config.slot) as alone:
                    if alone:
                        return _align_alone(config, source, target, deadline=deadline, stop=stop)
                return _align_running(config, control, source, target, deadline=deadline, stop=stop)
            except (HoldLostError, SlotTimeoutError) as error:
                if stop is not None and stop.is_set():
                    raise VerifyError(_STOPPED) from error
                reason = str(error)  # let the stream breathe, then try again
                source.rollback()
                target.rollback()
                time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        raise VerifyError(f"both sides could not be brought to one position within {timeout:g} s: {reason}")


@contextmanager
def _cancelled_by(stop: StopEvent, *connections: psycopg.Connection[Any]) -> Iterator[None]:
    """Once `stop` is set, queries of `connections` are cancelled until the block ends, with VerifyError."""
    ended = StopEvent()

    def watch() -> None:
        while not ended.wait(_STOP_LOOK):
            if stop.is_set():  # again and again: a query may just be between two others
                for connection in connections:
                    with suppress(psycopg.Error):  # closed, or its server is away: it has nothing to cancel
                        connection.cancel_safe(timeout=1.0)

    watcher = Thread(target=watch, name="cdc-verify-stop")
    watcher.start()
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        if stop.is_set():
            raise VerifyError(_STOPPED) from error
        raise
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _no_applier(control: psycopg.Connection[Any], stream: str) -> Iterator[bool]:
    """Whether no applier runs; none can start inside the `with` block then."""
    try:
        lock_stream(control, stream)
    except AlreadyRunningError:
        yield False
        return
    try:
        yield True
    finally:
        control.execute("SELECT pg_advisory_unlock(hashtextextended('strangler_cdc ' || %s, 0))", [stream])


def _align_running(
    config: StreamConfig,
    control: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    target: psycopg.Connection[Any],
    *,
    deadline: float,
    stop: StopEvent | None,
) -> tuple[Lsn, float]:
    hold = Hold(control, config.slot, lease=_LEASE, stop=stop)
    held_from: float | None = None
    try:
        if not hold.ask(timeout=max(0.1, deadline - time.monotonic())):
            raise HoldLostError(
                "the applier does not answer: it is taking its snapshot, waits for a database or is busy "
                "with a "
                "long transaction"
            )
        held_from = time.monotonic()
        with _source_snapshot(config, source, _HOLD_AT_MOST, stop) as position:
            if not hold.go_to(position, timeout=max(0.1, deadline - time.monotonic())):
                raise HoldLostError(f"the applier did not reach {position} in time")
            stored = _open_target(target, config.slot)
            if not hold.still_held() or stored is None or stored > position:
                raise HoldLostError("the hold ran out while the snapshot of the target was opened")
        return position, (time.monotonic() - held_from) * 1000
    finally:
        hold.release()


def _align_alone(
    config: StreamConfig,
    source: psycopg.Connection[Any],
    target: psycopg.Connection[Any],
    *,
    deadline: float,
    stop: StopEvent | None,
) -> tuple[Lsn, float]:
    with _source_snapshot(config, source, max(0.1, deadline - time.monotonic()), stop) as position:
        stored = _open_target(target, config.slot)
        if stored is None:
            raise VerifyError(
                f"stream {config.slot} has not finished its snapshot: there is nothing to compare yet"
            )
        with connect(config.source_dsn, name="strangler_cdc verify") as look:
            if slot_state(look, config.slot) is None:
                raise VerifyError(
                    f"slot {config.slot} does not exist on the source, so it cannot be known whether the "
                    "target at "
                    f"{stored} is up to date with {position}"
                )
            if _waiting(look, config, stored, position):
                raise VerifyError(
                    f"the stream is not running and changes after {stored} wait to be applied, so the "
                    "sides cannot be "
                    f"aligned at {position}: start the stream and verify again"
                )
    return position, 0.0


def _waiting(connection: psycopg.Connection[Any], config: StreamConfig, stored: Lsn, position: Lsn) -> bool:
    """Whether the slot holds a transaction that ends in (`stored`, `position`] and touches published
    tables.
    """
    rows = connection.execute(
        "SELECT lsn::text FROM pg_logical_slot_peek_binary_changes(%s, %s::pg_lsn, NULL,"
        " 'proto_version', '1', 'publication_names', %s)"
        " WHERE get_byte(data, 0) = ascii('C') AND lsn > %s::pg_lsn AND lsn <= %s::pg_lsn LIMIT 1",
        [
            config.slot,
            str(position),
            sql.Identifier(config.publication).as_string(),
            str(stored),
            str(position),
        ],
    ).fetchall()
    return bool(rows)


@contextmanager
def _source_snapshot(
    config: StreamConfig, source: psycopg.Connection[Any], timeout: float, stop: StopEvent | None
) -> Iterator[Lsn]:
    name = f"{config.slot[:40]}_verify_{time.time_ns() % 10**9:09d}"
    with created_slot(config.source_dsn, name, temporary=True, timeout=timeout, stop=stop) as created:
        source.execute(f"SET TRANSACTION SNAPSHOT '{created.snapshot}'".encode())
        source.execute("SELECT 1")  # the snapshot is ours now; the slot may go
        yield created.consistent_point


def _open_target(target: psycopg.Connection[Any], stream: str) -> Lsn | None:
    row = target.execute(
        "SELECT lsn::text FROM strangler_cdc.position WHERE stream = %s", [stream]
    ).fetchone()
    return Lsn.parse(row[0]) if row else None


class _Comparison:
    def __init__(
        self,
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        threads: ThreadPoolExecutor,
        max_differences: int,
    ) -> None:
        self._source = source
        self._target = target
        self._threads = threads
        self._max = max_differences

    def compare(self, table: TableMapping) -> TableReport:
        shape = read_shape(self._target, table.target)
        if shape is None:
            raise VerifyError(f"the target has no table {table.target}")
        lacking = [column.name for column in table.columns if shape.column(column.name) is None]
        if lacking:
            raise VerifyError(f"target table {table.target} has no column {lacking[0]!r}")
        pair = compare_sql.sides(table, shape)
        buckets = _buckets(self._estimate(table.source))
        ours, theirs = self._both(*(compare_sql.sums(side, buckets) for side in pair))
        source_sums = {bucket: (count, total) for bucket, count, total in ours}
        target_sums = {bucket: (count, total) for bucket, count, total in theirs}
        unequal = sorted(
            bucket
            for bucket in source_sums.keys() | target_sums.keys()
            if source_sums.get(bucket) != target_sums.get(bucket)
        )
        rows = sum(count for count, _ in source_sums.values())
        return self._look_closer(pair, buckets, unequal, rows)

    def _look_closer(
        self, pair: tuple[Side, Side], buckets: int, unequal: Sequence[int], rows: int
    ) -> TableReport:
        differing = 0
        differences: list[Difference] = []
        for start in range(0, len(unequal), _BUCKETS_AT_ONCE):
            if differing >= self._max:
                # each bucket that is left differs in at least one row
                return TableReport(rows, differing + len(unequal) - start, tuple(differences), complete=False)
            wanted = unequal[start : start + _BUCKETS_AT_ONCE]
            ours, theirs = self._both(*(compare_sql.hashes(side, buckets, wanted) for side in pair))
            wrong = _unequal(ours, theirs)
            differing += sum(each.rows for each in wrong)
            shown = wrong[: max(0, self._max - len(differences))]
            differences += self._explain(pair, buckets, wanted, shown)
        return TableReport(rows, differing, tuple(differences))

    def _explain(
        self, pair: tuple[Side, Side], buckets: int, wanted: Sequence[int], wrong: Sequence["_Unequal"]
    ) -> Iterator[Difference]:
        names = pair[0]
        changed = [each.key for each in wrong if each.changed and None not in each.key]
        source_rows, target_rows = {}, {}
        if changed:
            ours, theirs = self._both(*(compare_sql.values(side, buckets, wanted, changed) for side in pair))
            source_rows = {tuple(key): row for key, row in ours}
            target_rows = {tuple(key): row for key, row in theirs}
        for each in wrong:
            named = dict(zip(names.key, each.key, strict=True))
            if each.key in source_rows:
                both = zip(names.columns, source_rows[each.key], target_rows[each.key], strict=True)
                for column, want, have in both:
                    if want != have:
                        yield Difference(named, Kind.DIFFERENT, column, want, have)
                continue
            if each.missing:
                yield Difference(named, Kind.MISSING)
            if each.extra:
                yield Difference(named, Kind.EXTRA)

    def _both(self, source_query: str, target_query: str) -> tuple[list[Any], list[Any]]:
        # the two servers work at the same time; their results are small
        first = self._threads.submit(lambda: self._source.execute(source_query.encode()).fetchall())
        second = self._threads.submit(lambda: self._target.execute(target_query.encode()).fetchall())
        return first.result(), second.result()

    def _estimate(self, source: TableName) -> int:
        row = self._source.execute(
            "SELECT greatest(reltuples, relpages * 20, 0)::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            [source.sql],
        ).fetchone()
        return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class _Unequal:
    """A key, and how many of its rows only one side has."""

    key: tuple[str | None, ...]
    missing: int
    extra: int

    @property
    def changed(self) -> bool:
        return self.missing == self.extra == 1

    @property
    def rows(self) -> int:
        return max(self.missing, self.extra)


def _unequal(
    ours: Sequence[tuple[list[str | None], int]], theirs: Sequence[tuple[list[str | None], int]]
) -> list[_Unequal]:
    # counted, not looked up: where a key is NULL or lost its unique index, several rows may share it
    source = Counter((tuple(key), hashed) for key, hashed in ours)
    target = Counter((tuple(key), hashed) for key, hashed in theirs)
    missing = Counter(key for key, _ in (source - target).elements())
    extra = Counter(key for key, _ in (target - source).elements())
    keys = sorted(missing.keys() | extra.keys(), key=lambda key: [(part is None, part or "") for part in key])
    return [_Unequal(key, missing[key], extra[key]) for key in keys]


def _buckets(rows: int) -> int:
    wanted = max(1, min(_MAX_BUCKETS, rows // _ROWS_A_BUCKET))
    return 1 << (wanted - 1).bit_length()
