"""Bring the stream to a named step and hold it there, from outside.

Most steps are held by a lock in the target that the stream has to wait for: reading goes on, writing waits. The lock's
session is let go (or dies with its server) when the fault has come.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from tests.cdc_shop import admin
from tests.chaos.pair import one
from tests.chaos.scenario import Step

LARGE = 12_000
"""Rows of a transaction that the source gives away in pieces."""

LOCKED = {
    Step.SLOT_CREATED: "category",  # the snapshot's first table
    Step.MID_SNAPSHOT: "stock",  # its last one
    Step.SNAPSHOT_BEFORE_COMMIT: "strangler_cdc.position",
    Step.MID_BATCH: "product",
    Step.ROWS_BEFORE_POSITION: "strangler_cdc.position",
}
"""The table whose lock holds the stream."""


class NotReachedError(Exception):
    """The stream did not come to its step; that is a failure of the run, not of the stream alone."""


@contextlib.contextmanager
def holding(step: Step, target_dsn: str) -> Iterator[None]:
    """Whoever comes to `step` waits while the `with` block runs."""
    with contextlib.ExitStack() as exits:
        if step in LOCKED or step is Step.MID_LARGE:
            holder = psycopg.connect(target_dsn)
            exits.callback(_let_go, holder)
            if step is Step.MID_LARGE:
                # somebody inserts a row from the middle of the large transaction and does not commit
                holder.execute("INSERT INTO stock VALUES ('L', %s, 1)", [1000 + LARGE // 2])
            else:
                # SHARE lets the stream look and makes it wait where it writes
                holder.execute(f"LOCK TABLE {LOCKED[step]} IN SHARE MODE".encode())
        yield


def _let_go(holder: psycopg.Connection[Any]) -> None:
    with contextlib.suppress(psycopg.OperationalError):  # its server has died, and the lock with it
        holder.rollback()
    holder.close()


def write_large(source_dsn: str, *, warehouse: str = "L") -> None:
    """One transaction of LARGE rows."""
    with admin(source_dsn) as source:
        source.execute(
            "INSERT INTO catalog_stock SELECT %s, g, g FROM generate_series(1000, 999 + %s) g",
            [warehouse, LARGE],
        )


def reached(
    step: Step, *, source: psycopg.Connection[Any], target: psycopg.Connection[Any], slot: str
) -> bool:
    """Whether the stream stands at `step` now."""
    match step:
        case Step.SLOT_CREATED | Step.MID_SNAPSHOT | Step.SNAPSHOT_BEFORE_COMMIT:
            return waits(target, slot) and bool(
                one(source, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", slot)
            )
        case Step.STREAM_BEGINS | Step.ANY_TIME:
            return position(target, slot) is not None
        case Step.MID_BATCH:
            return waits(target, slot)
        case Step.ROWS_BEFORE_POSITION | Step.MID_LARGE:
            return waits(target, slot, having_written=True)
        case Step.APPLIED_BEFORE_CONFIRM:
            stored = position(target, slot)
            return stored is not None and bool(
                one(
                    source,
                    "SELECT confirmed_flush_lsn < %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                    stored,
                    slot,
                )
            )


def waits(target: psycopg.Connection[Any], slot: str, *, having_written: bool = False) -> bool:
    """Whether the stream waits for a lock; `having_written`: within a transaction that has changed rows."""
    return bool(
        one(
            target,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
            " AND (backend_xid IS NOT NULL OR NOT %s)",
            f"strangler_cdc apply {slot}",
            having_written,
        )
    )


def position(target: psycopg.Connection[Any], slot: str) -> str | None:
    """What the target has stored."""
    found = one(target, "SELECT lsn::text FROM strangler_cdc.position WHERE stream = %s", slot)
    return None if found is None else str(found)


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Poll `condition`. Raises NotReachedError, naming `what`, after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotReachedError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)
