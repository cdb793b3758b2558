"""Copy what is already there, exactly as of the point where the stream begins.

Creating the replication slot yields a *consistent point* in the log and a snapshot that sees just what
committed before it. The rows are copied under that snapshot, through the mapping's expressions, and the
point is stored as the stream's position in the same target transaction: no gap, no overlap, and after a
crash either all of it or nothing. What is left over then is a slot without a position; the next start drops
it and begins anew.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

import select
import time
from collections.abc import Callable, Generator
from contextlib import closing
from threading import Event as StopEvent
from typing import Any

import psycopg
from psycopg import pq

from cdc import statements
from cdc.changes import Lsn
from cdc.copyformat import binary_fits
from cdc.mapping import Mapping, TableMapping
from cdc.meter import SnapshotProgress, TableProgress
from cdc.origin import write_origin
from cdc.seams import StreamError
from cdc.sessions import connect, failure
from cdc.sinks.postgres import ApplyError
from cdc.sources.slot import SlotTimeoutError, created_slot

_BLOCK = 256 * 1024  # bytes handed to the target at a time
_REPORT_EVERY = 0.1  # seconds
_PATIENCE = 0.25  # seconds without a row until `stop` is looked at
_COUNT_BELOW = 100_000  # tables estimated smaller than this are counted instead


class StoppedError(Exception):
    """The snapshot was told to stop; nothing of it remains in the target."""


class TargetNotEmptyError(StreamError):
    """A target table holds rows although the stream has not begun: somebody else's."""


def take_snapshot(
    *,
    source_dsn: str,
    target: psycopg.Connection[Any],
    defer: bool,
    mapping: Mapping,
    slot: str,
    replace_target: bool,
    stop: StopEvent,
    report: Callable[[SnapshotProgress], None],
) -> Lsn:
    """Create `slot`, fill the target tables, store the position and its origin; returns the position.

    `target`: the applier's session (psycopg.RawCursor). `defer`: check foreign keys at the end, they cannot
    be switched off. `replace_target`: delete what the target tables hold. Raises TargetNotEmptyError,
    StoppedError, ApplyError, psycopg.Error.
    """
    if not replace_target:
        _refuse_rows(target, mapping)
    try:
        with (
            created_slot(source_dsn, slot, stop=stop) as created,
            connect(source_dsn, name=f"strangler_cdc snapshot {slot}", autocommit=False) as source,
        ):
            source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            source.read_only = True
            source.execute(f"SET TRANSACTION SNAPSHOT '{created.snapshot}'".encode())
            progress = _Progress(mapping, source, report)
            with target.transaction():
                # costly to lose; the applier's commits need not be on disk at once, this one shall
                target.execute("SET LOCAL synchronous_commit = on")
                if defer:
                    target.execute("SET CONSTRAINTS ALL DEFERRED")
                if replace_target:
                    for table in reversed(mapping.tables):
                        target.execute(statements.wipe(table).encode())
                for table in mapping.tables:
                    _copy(source, target, table, progress, stop)
                progress.tell(force=True)
                target.execute(
                    "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn, snapshot_rows, tables)"
                    " VALUES ($1, $2::text::pg_lsn, $2::text::pg_lsn, $3, $4)",
                    [
                        slot,
                        str(created.consistent_point),
                        progress.rows(),
                        [f"{table.schema}.{table.name}" for table in mapping.sources()],
                    ],
                )
                write_origin(target, slot, created.origin)
            return created.consistent_point
    except SlotTimeoutError as error:
        # without a timeout only `stop` ends the waiting
        raise StoppedError(str(error)) from error


def _refuse_rows(target: psycopg.Connection[Any], mapping: Mapping) -> None:
    for table in mapping.tables:
        row = target.execute(f"SELECT EXISTS (SELECT FROM {table.target.sql})".encode()).fetchone()
        if row and row[0]:
            raise TargetNotEmptyError(
                f"target table {table.target} is not empty although the stream has not begun; empty it, or "
                "let "
                f"the snapshot replace its rows (replace_target)"
            )


def _copy(
    source: psycopg.Connection[Any],
    target: psycopg.Connection[Any],
    table: TableMapping,
    progress: "_Progress",
    stop: StopEvent,
) -> None:
    count = 0
    try:
        select = statements.snapshot_select(table)
        binary = binary_fits(_types(source, select), _types(target, statements.target_select(table)))
        with (
            closing(_blocks(source, select, binary=binary)) as blocks,
            target.cursor().copy(statements.copy_target(table, binary=binary).encode()) as sink,
        ):
            for rows, block in blocks:
                if stop.is_set():
                    raise StoppedError("the snapshot was stopped")
                sink.write(block)
                count += rows
                progress.copied(table, count)
        progress.copied(table, count, done=True)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        where = error.diag.context or ""
        raise ApplyError(
            f"the snapshot failed: {error.diag.message_primary or error} {where}".strip(),
            table=table.source,
            column=error.diag.column_name or "",
            remedy="change the mapping, the row or the target table, then start again from the beginning",
        ) from error


def _types(connection: psycopg.Connection[Any], query: str) -> list[int]:
    """The OIDs of what `query` returns; no row is read."""
    found = connection.execute(f"{query} LIMIT 0".encode())
    return [column.type_code for column in found.description or ()]


def _blocks(source: psycopg.Connection[Any], query: str, *, binary: bool) -> Generator[tuple[int, bytes]]:
    """The rows of `query` as COPY writes them, in blocks of many rows, each with its number of rows.

    One message of the protocol is one row. psycopg's own COPY goes through its waiting machinery for each;
    here the messages that are already there are taken in a tight loop (a third less processor time for the whole
    snapshot, measured). Left before its end, the session is closed. An empty block says that nothing has come.
    """
    pgconn = source.pgconn
    result = pgconn.exec_(f"COPY ({query}) TO STDOUT{' (FORMAT binary)' if binary else ''}".encode())
    if result.status != pq.ExecStatus.COPY_OUT:
        raise failure(result)
    finished = False
    try:
        rows: list[bytes] = []
        held = 0
        while True:
            size, data = pgconn.get_copy_data(1)
            if size > 0:
                rows.append(bytes(data))
                held += size
                if held >= _BLOCK:
                    yield len(rows), b"".join(rows)
                    rows, held = [], 0
            elif size == 0:
                if not select.select([pgconn.socket], [], [], _PATIENCE)[0]:
                    yield 0, b""
                pgconn.consume_input()
            else:
                break
        result = pgconn.get_result() or result
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise failure(result)
        while pgconn.get_result() is not None:
            pass  # the session is free for the next command only then
        finished = True
        # the end of the binary form is a message without a row; its header comes with the first message
        yield len(rows) - binary, b"".join(rows)
    finally:
        if not finished:
            source.close()


class _Progress:
    def __init__(
        self, mapping: Mapping, source: psycopg.Connection[Any], report: Callable[[SnapshotProgress], None]
    ) -> None:
        self._report = report
        self._began = time.monotonic()
        self._told = 0.0
        self._tables = {
            table.source: TableProgress(str(table.source), 0, _estimate(source, table))
            for table in mapping.tables
        }

    def copied(self, table: TableMapping, rows: int, *, done: bool = False) -> None:
        name = str(table.source)
        total = rows if done else self._tables[table.source].total
        self._tables[table.source] = TableProgress(name, rows, total, done)
        self.tell(force=done)

    def tell(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._told >= _REPORT_EVERY:
            self._told = now
            self._report(SnapshotProgress(tuple(self._tables.values()), now - self._began))

    def rows(self) -> int:
        return sum(table.rows for table in self._tables.values())


def _estimate(source: psycopg.Connection[Any], table: TableMapping) -> int:
    row = source.execute(
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", [table.source.sql]
    ).fetchone()
    estimate = int(row[0]) if row else 0
    if estimate < _COUNT_BELOW:
        counted = source.execute(f"SELECT count(*) FROM {table.source.sql}".encode()).fetchone()
        estimate = int(counted[0]) if counted else 0
    return estimate
