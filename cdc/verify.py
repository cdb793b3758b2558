"""Is the target the image of the source? Row by row, at log positions, while both go on living.

    round: both sides at one position (`verify_align`) ──► what was suspected, once more (`verify_table`)
           ──► stretch after stretch of the keys (`verify_chunk`), until the round's time is over ──► let go
    rounds follow each other until everything is compared and nothing is only suspected

A round is short because a snapshot that lives long keeps dead rows from being cleaned away on both sides. Between
rounds, and after each stretch, the comparison makes way (`verify_pace`); how far it has come is kept in the target
(`verify_memory`). The method is that of Vitess' VDiff; the comparison itself is `compare_sql`.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as MappingOf
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event as StopEvent
from threading import Thread
from typing import Any

import psycopg

from cdc import compare_sql, schema
from cdc.changes import Lsn, TableName
from cdc.mapping import TableMapping
from cdc.pipeline import StreamConfig
from cdc.sessions import connect
from cdc.status import read_status
from cdc.tableshape import read_shape
from cdc.verify_align import STOPPED, VerifyError, align
from cdc.verify_chunk import ChunkComparison, Difference, Kind
from cdc.verify_memory import Memory, fingerprint
from cdc.verify_order import choose_order, read_collations
from cdc.verify_pace import Limits, first_chunk, must_wait, next_chunk, pause_after, remembered
from cdc.verify_table import TableReport, TableWork

__all__ = [
    "Difference",
    "Kind",
    "Limits",
    "TableReport",
    "VerifyError",
    "VerifyProgress",
    "VerifyReport",
    "verify",
]

_ROUND_SECONDS = 30.0
_SAVE_EVERY = 1.0  # seconds
_LOOK_AT_LAG_EVERY = 1.0  # seconds
_NEAR_BYTES = 1 << 20  # an applier that is so near arrives in milliseconds
_CATCH_UP_AT_MOST = 2.0  # seconds; a source that writes all the time is never nearer
_MANY_SUSPECTED = 10_000  # rows; more would fill the memory: look at them again first
_STOP_LOOK = 0.2  # seconds between two looks at `stop` while queries run


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The comparison. `position` is that of the last round, `rounds` how many there were, `applier_held_ms` the
    longest hold of one. `tables` by target table; times in milliseconds and seconds. `resumed`: an earlier process
    compared that many of the rows.
    """

    position: Lsn
    tables: MappingOf[str, TableReport] = field(default_factory=dict)
    applier_held_ms: float = 0.0
    seconds: float = 0.0
    rounds: int = 1
    resumed: int = 0

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
    """A stretch of `table` has been compared; so far `rows` rows, `resumed` of them by an earlier process, in
    `tables_done` of `tables` tables.

    `expected` is an estimate of all rows. `found` are the differences proved since the last progress. `waiting`
    says why the comparison pauses, if it does.
    """

    table: str
    tables_done: int
    tables: int
    rows: int
    expected: int = 0
    resumed: int = 0
    round: int = 1
    position: Lsn | None = None
    found: tuple[Difference, ...] = ()
    waiting: str = ""


def verify(
    config: StreamConfig,
    *,
    timeout: float = 60.0,
    max_differences: int = 100,
    on_progress: Callable[[VerifyProgress], None] | None = None,
    stop: StopEvent | None = None,
    tables: Collection[str] = (),
    limits: Limits | None = None,
    round_seconds: float = _ROUND_SECONDS,
    resume: bool = True,
) -> VerifyReport:
    """Compare every mapped table, or those of `tables` (names of either side).

    `timeout`: seconds to bring both sides to one position, or to wait for a stream that lags. A round, with its
    snapshots, lasts about `round_seconds`. With `resume` a comparison that ended early goes on. At most about
    `max_differences` differing rows a table are looked up by column. When `stop` is set, it ends within a second
    or two (VerifyError), whatever it waits for. Raises VerifyError, psycopg.Error.
    """
    chosen = _chosen(config, tables)
    with ExitStack() as stack:
        control = stack.enter_context(connect(config.target_dsn, name="strangler_cdc verify control"))
        source, target = (
            stack.enter_context(connect(dsn, name="strangler_cdc verify", autocommit=False, jit="off"))
            for dsn in (config.source_dsn, config.target_dsn)
        )
        for connection in (source, target):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        if stop is not None:
            stack.enter_context(_cancelled_by(stop, source, target))
        threads = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="cdc-verify"))
        if not schema.exists(control):
            raise VerifyError(f"stream {config.slot} has never run: the target has no schema strangler_cdc")
        memory = Memory(control, config.slot, fingerprint(chosen, _snapshot(control, config.slot)))
        if not resume:
            memory.forget()
        run = _Run(
            config,
            control,
            source,
            target,
            memory=memory,
            comparison=ChunkComparison(source, target, threads),
            limits=limits or Limits(),
            timeout=timeout,
            round_seconds=round_seconds,
            on_progress=on_progress,
            stop=stop,
        )
        return run.through(chosen, max_differences)


class _Run:
    """One process's part of a comparison."""

    def __init__(
        self,
        config: StreamConfig,
        control: psycopg.Connection[Any],
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        *,
        memory: Memory,
        comparison: ChunkComparison,
        limits: Limits,
        timeout: float,
        round_seconds: float,
        on_progress: Callable[[VerifyProgress], None] | None,
        stop: StopEvent | None,
    ) -> None:
        self._config = config
        self._control = control
        self._source = source
        self._target = target
        self._memory = memory
        self._comparison = comparison
        self._limits = limits
        self._timeout = timeout
        self._round_seconds = round_seconds
        self._on_progress = on_progress
        self._stop = stop
        self._tables: list[TableWork] = []
        self._position = Lsn(0)
        self._rounds = 0
        self._held_ms = 0.0
        self._resumed = 0
        self._chunk = first_chunk(self._limits)
        self._answers: tuple[float, ...] = ()
        self._saved_at = self._looked_at = time.monotonic()

    def through(self, chosen: Sequence[TableMapping], most: int) -> VerifyReport:
        """Round after round until everything is compared and settled."""
        began = time.monotonic()
        try:
            while not self._tables or not all(table.finished for table in self._tables):
                self._wait_for_stream()
                self._round(chosen, most)
        except BaseException:
            with suppress(psycopg.Error):  # the target may be why we end; the last saved state is good too
                self._save()
            raise
        self._memory.forget()
        reports = {table.name: table.report() for table in self._tables}
        seconds = time.monotonic() - began
        return VerifyReport(
            self._position, reports, self._held_ms, seconds, rounds=self._rounds, resumed=self._resumed
        )

    def _round(self, chosen: Sequence[TableMapping], most: int) -> None:
        owed = 0.0
        try:
            self._position, held_ms = align(
                self._config, self._control, source=self._source, target=self._target,
                timeout=self._timeout, stop=self._stop,
            )  # fmt: skip
            self._held_ms = max(self._held_ms, held_ms)
            self._rounds += 1
            ends = time.monotonic() + self._round_seconds
            if not self._tables:
                self._begin(chosen, most)
            for table in self._tables:
                found = tuple(table.settle(self._comparison))
                if found:
                    self._tell(table, found=found)
            owed = self._walk(ends)
        finally:
            # also when it fails: a snapshot must not outlive its round
            for connection in (self._source, self._target):
                if not connection.closed:
                    connection.rollback()
        self._save()
        self._rest(owed)

    def _walk(self, ends: float) -> float:
        """Compare until the round's time is over; returns seconds that are owed to others then."""
        for table in self._tables:
            while table.left:
                began = time.monotonic()
                rows = table.step(self._comparison, self._chunk)
                took = time.monotonic() - began
                self._chunk = next_chunk(self._limits, rows=max(rows, self._chunk // 4), took=took)
                self._tell(table)
                self._save(every=_SAVE_EVERY)
                self._answers = remembered(self._answers, self._answer_ms())
                pause = pause_after(self._limits, rows=rows, took=took, answers_ms=self._answers)
                if pause.why:
                    self._tell(table, waiting=pause.why)
                late = time.monotonic() + pause.seconds >= ends
                lags = time.monotonic() - self._looked_at >= _LOOK_AT_LAG_EVERY and self._must_wait()
                if late or lags or sum(each.suspected for each in self._tables) >= _MANY_SUSPECTED:
                    return pause.seconds
                self._rest(pause.seconds)
        return 0.0

    def _begin(self, chosen: Sequence[TableMapping], most: int) -> None:
        remembered_tables = self._memory.load()
        for mapping in chosen:
            table = _work(self._source, self._target, mapping, most)
            if table.name in remembered_tables:
                table.resume(remembered_tables[table.name])
            self._tables.append(table)
        self._resumed = sum(table.rows for table in self._tables)

    def _must_wait(self) -> str:
        self._looked_at = time.monotonic()
        status = read_status(self._control, stream=self._config.slot)
        return must_wait(self._limits, status.lag_seconds if status is not None and status.running else None)

    def _wait_for_stream(self) -> None:
        deadline = time.monotonic() + self._timeout
        while why := self._must_wait():
            if self._tables:
                self._tell(next((each for each in self._tables if each.left), self._tables[-1]), waiting=why)
            if time.monotonic() > deadline:
                raise VerifyError(
                    f"{why}, and has been for {self._timeout:g} s; compare again when it has caught up"
                )
            self._rest(_LOOK_AT_LAG_EVERY)
        deadline = time.monotonic() + _CATCH_UP_AT_MOST
        while self._far_behind() and time.monotonic() < deadline:
            self._rest(_CATCH_UP_AT_MOST / 20)

    def _far_behind(self) -> bool:
        """Whether the applier would have far to go while it is held."""
        status = read_status(self._control, stream=self._config.slot)
        return status is not None and status.running and (status.lag_bytes or 0) > _NEAR_BYTES

    def _answer_ms(self) -> float:
        began = time.monotonic()
        self._source.execute("SELECT 1")
        return (time.monotonic() - began) * 1000

    def _rest(self, seconds: float) -> None:
        if self._stop is None:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise VerifyError(STOPPED)

    def _save(self, *, every: float = 0.0) -> None:
        if self._tables and time.monotonic() - self._saved_at >= every:
            self._memory.save({table.name: table.memory() for table in self._tables})
            self._saved_at = time.monotonic()

    def _tell(self, table: TableWork, *, found: tuple[Difference, ...] = (), waiting: str = "") -> None:
        if self._on_progress is None:
            return
        done = sum(not each.left for each in self._tables)
        rows = sum(each.rows for each in self._tables)
        expected = sum(each.rows if each.done else max(each.expected, each.rows) for each in self._tables)
        self._on_progress(
            VerifyProgress(
                table.name,
                done,
                len(self._tables),
                rows,
                expected=expected,
                resumed=self._resumed,
                round=self._rounds,
                position=self._position,
                found=found,
                waiting=waiting,
            )
        )


def _chosen(config: StreamConfig, names: Collection[str]) -> tuple[TableMapping, ...]:
    tables = config.mapping.tables
    known = {name for table in tables for name in (str(table.source), str(table.target))}
    unknown = sorted(set(names) - known)
    if unknown:
        raise VerifyError(f"no table {unknown[0]!r} is mapped; there are: {', '.join(sorted(known))}")
    return tuple(
        table for table in tables if not names or str(table.source) in names or str(table.target) in names
    )


def _snapshot(control: psycopg.Connection[Any], stream: str) -> str:
    row = control.execute(
        "SELECT snapshot_lsn::text FROM strangler_cdc.position WHERE stream = %s", [stream]
    ).fetchone()
    return row[0] if row else ""


def _work(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: TableMapping, most: int
) -> TableWork:
    shape = read_shape(target, table.target)
    if shape is None:
        raise VerifyError(f"the target has no table {table.target}")
    lacking = [column.name for column in table.columns if shape.column(column.name) is None]
    if lacking:
        raise VerifyError(f"target table {table.target} has no column {lacking[0]!r}")
    ours = read_shape(source, table.source)
    if ours is None:
        raise VerifyError(f"the source has no table {table.source}")
    order = choose_order(
        table,
        ours,
        shape,
        source_collations=read_collations(source, table.source, [part.source for part in table.key]),
        target_collations=read_collations(target, table.target, [part.target for part in table.key]),
    )
    pair = compare_sql.sides(
        table, shape, source_order=order.source if order else (), target_order=order.target if order else ()
    )
    return TableWork(table, pair, _estimate(source, table.source), most)


def _estimate(source: psycopg.Connection[Any], table: TableName) -> int:
    row = source.execute(
        "SELECT greatest(reltuples, relpages * 20, 0)::bigint FROM pg_class WHERE oid = to_regclass(%s)",
        [table.sql],
    ).fetchone()
    return int(row[0]) if row else 0


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
            raise VerifyError(STOPPED) from error
        raise
    finally:
        ended.set()
        watcher.join()
