"""Bring a snapshot of the source and one of the target to the same log position.

    hold the applier → temporary slot, its exported snapshot shows the source at C → the applier goes
    exactly to C → open a snapshot of the target → let the applier go on → compare at leisure

Holding first is essential: an applier that is past C already would make every row it wrote look false. It
stands still only until the two snapshots are open (tens of milliseconds). Without a running applier the
stored position must already contain everything before C. A stream over several partitions (`cdc.sharded`) is held in
each of them, and must run. The method is that of Vitess' VDiff.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event as StopEvent
from typing import Any

import psycopg
from psycopg import sql

from cdc.changes import Lsn
from cdc.hold import Hold, HoldLostError
from cdc.pipeline import StreamConfig
from cdc.sessions import connect
from cdc.sharded.claim import partition_stream
from cdc.sharded.fence import partitions
from cdc.sinks.session import AlreadyRunningError, lock_stream
from cdc.sources.slot import SlotTimeoutError, created_slot, slot_state

_HOLD_AT_MOST = 2.0  # seconds the applier waits for the source's snapshot in one attempt
_LEASE = 3.0  # seconds after which the applier goes on whatever happens to us; more than _HOLD_AT_MOST
STOPPED = "the comparison was stopped before its end"


class VerifyError(Exception):
    """The two sides cannot be compared now; the message says why and what to do."""


def align(
    config: StreamConfig,
    control: psycopg.Connection[Any],
    *,
    source: psycopg.Connection[Any],
    target: psycopg.Connection[Any],
    timeout: float,
    stop: StopEvent | None,
) -> tuple[Lsn, float]:
    """Open a snapshot on both sides at one position. Returns it and how long the applier was held (ms).

    `source` and `target` are repeatable-read sessions without a transaction; `control` is autocommit, to the
    target. Raises VerifyError when it does not come about within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    reason = ""
    parts = [partition_stream(config.slot, number) for number in partitions(control, config.slot)]
    while time.monotonic() < deadline:
        try:
            with _no_applier(control, config.slot) as alone:
                if alone and parts:
                    raise HoldLostError(  # noqa: TRY301  (an owner of partition 0 is about to come)
                        f"no instance of stream {config.slot} has partition 0: start one, `strangler cdc run`"
                    )
                if alone:
                    return _align_alone(config, source, target, deadline=deadline, stop=stop)
            return _align_running(config, control, source, target, parts, deadline=deadline, stop=stop)
        except (HoldLostError, SlotTimeoutError) as error:
            if stop is not None and stop.is_set():
                raise VerifyError(STOPPED) from error
            reason = str(error)  # let the stream breathe, then try again
            source.rollback()
            target.rollback()
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
    raise VerifyError(f"both sides could not be brought to one position within {timeout:g} s: {reason}")


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
    parts: Sequence[str],
    *,
    deadline: float,
    stop: StopEvent | None,
) -> tuple[Lsn, float]:
    hold = Hold(control, config.slot, partitions=parts, lease=_LEASE, stop=stop)
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
            if parts:
                _nothing_in_progress(source)
            if not hold.go_to(position, timeout=max(0.1, deadline - time.monotonic())):
                raise HoldLostError(f"the applier did not reach {position} in time")
            stored = _open_target(target, config.slot)
            # what partitions have stored lies before their hold; the stream's own position may be past `position`
            if not hold.still_held() or stored is None or (stored > position and not parts):
                raise HoldLostError("the hold ran out while the snapshot of the target was opened")
        return position, (time.monotonic() - held_from) * 1000
    finally:
        hold.release()


def _nothing_in_progress(source: psycopg.Connection[Any]) -> None:
    """A partition knows of a change where it was written and what had committed before its transaction, not where it
    committed itself. So none may have begun before the snapshot and commit after it.
    """
    row = source.execute("SELECT count(*) FROM pg_snapshot_xip(pg_current_snapshot())").fetchone()
    if row is not None and row[0]:
        raise HoldLostError(
            f"{row[0]} transactions were in progress on the source: a stream of several partitions can be compared "
            "only at a moment when none is"
        )


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
