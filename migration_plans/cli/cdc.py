"""`strangler cdc`: run the change stream of a plan, or ask how it is."""

import logging
import os
import signal
import threading
from dataclasses import asdict
from typing import Any

import click
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cdc.garbage import rows_left_alone
from cdc.meter import SnapshotProgress
from cdc.pipeline import StreamError
from cdc.pipeline import run as run_stream
from cdc.sinks.session import AlreadyRunningError
from cdc.snapshot import TargetNotEmptyError
from chassis import logs
from migration_plans.cli.answer import show
from migration_plans.cli.connector import connector
from migration_plans.cli.exits import InTheWayError, NeededError, SaysNoError
from migration_plans.cli.parked_keys import parked, retry, skip
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.cli.stream_tail import tail
from migration_plans.drivers.cache_notices import cache_notices
from migration_plans.drivers.cdc_stream import CdcStream
from migration_plans.ledger import LedgerUnreachableError
from migration_plans.plan import Plan
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin
from migration_plans.quantities import format_bytes, format_seconds
from migration_plans.record import Record
from migration_plans.stages import Kind, State

_EVERY = 0.25


@click.group()
def cdc() -> None:
    """Run the change stream, or ask how it is.

    \b
    Example:
      strangler cdc run catalog
      strangler cdc status catalog --json
    """


@cdc.command()
@with_session
@click.option("--now", is_flag=True, help="Do not wait until the ledger reaches stage `snapshot`.")
def run(*, session: Session, now: bool) -> None:
    """Wait until PLAN has reached stage `snapshot`, copy its tables, then follow the changes until SIGTERM.

    \b
    Example:
      strangler cdc run catalog
    """
    logs.configure("change-stream")
    for chatty in ("httpx", "kafka"):  # a line for every request, and for every connection
        logging.getLogger(chatty).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not now:
        _await_stage(session, stop)
    if stop.is_set():
        return
    config = CdcStream(session.plan).running_config()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        tasks: dict[str, Any] = {}

        def progress(seen: SnapshotProgress) -> None:
            for table in seen.tables:
                name = table.table
                if name not in tasks:
                    tasks[name] = bar.add_task(name, rate="")
                rate = table.rows / seen.seconds if seen.seconds else 0
                bar.update(
                    tasks[name],
                    completed=table.rows,
                    total=max(table.total, table.rows),
                    rate=f"{rate:,.0f} rows/s",
                )

        try:
            token = os.environ.get(TOKEN_VARIABLE, "")
            with (
                ProxyAdmin(session.plan.proxy_admin, token=token) as admin,
                cache_notices(admin) as changed,
                rows_left_alone(),
            ):
                run_stream(config, stop, on_progress=progress, on_applied=changed)
        except (StreamError, TargetNotEmptyError) as error:
            raise SaysNoError(str(error)) from error
        except AlreadyRunningError as error:
            raise InTheWayError(str(error)) from error


def reached(record: Record | None, plan: Plan) -> bool:
    """Whether the migration has come to its snapshot, so that a change stream may run."""
    if record is None or record.state is State.PLANNED:
        return False
    kinds = [planned.stage.kind for planned in plan.stages]
    return record.stage >= kinds.index(Kind.SNAPSHOT) if Kind.SNAPSHOT in kinds else True


def _await_stage(session: Session, stop: threading.Event) -> None:
    log = structlog.get_logger("strangler.cdc")
    said = ""
    while not stop.is_set():
        try:
            record = session.record()
            if reached(record, session.plan):
                session.ledger.close()
                return
            why = "the migration has not reached stage snapshot"
        except LedgerUnreachableError as error:
            why = str(error)
        if why != said:
            log.info("waiting", reason=why)
            said = why
        stop.wait(_EVERY)


@cdc.command()
@with_session
@json_option
def status(*, session: Session, as_json: bool) -> None:
    """Show phase, position and lag of PLAN's change stream. Exit code 6 when there is none.

    \b
    Example:
      strangler cdc status catalog
    """
    stream = CdcStream(session.plan)
    seen = stream.status()
    stream.close()
    if seen is None:
        raise NeededError(
            f"there is no change stream yet; `strangler cdc run {session.plan.file}` is what makes it"
        )
    body = asdict(seen)
    body |= {
        "phase": seen.phase.value,
        "position": None if seen.position is None else str(seen.position),
        "applied": None if seen.applied is None else str(seen.applied),
        "source_position": None if seen.source_position is None else str(seen.source_position),
    }
    behind = "lag not known"
    if seen.lag_seconds is not None and seen.lag_bytes is not None:
        behind = f"{format_seconds(seen.lag_seconds)} and {format_bytes(seen.lag_bytes)} behind"
    lines = [
        f"{seen.stream}: {seen.phase.value}, {behind}, position {seen.position}",
        f"{seen.changes} changes in {seen.transactions} transactions, {seen.snapshot_rows} rows by snapshot",
        f"heartbeat {format_seconds(seen.heartbeat_age)} ago" + ("" if seen.running else ": not running"),
    ]
    lines += [
        f"partition {part.number}: offset {part.offset}, {part.instance or 'nobody has it'}"
        for part in seen.partitions
    ]
    if seen.latency_ms_p50 is not None:
        lines.append(f"commit to applied: p50 {seen.latency_ms_p50} ms, p99 {seen.latency_ms_p99} ms")
    if seen.parked:
        lines.append(f"{seen.parked} keys parked; `strangler cdc parked {session.plan.file}` says why")
    if seen.warning:
        lines.append(f"warning: {seen.warning}")
    if seen.error:
        lines.append(f"error: {seen.error}")
    show(body, "\n".join(lines), as_json=as_json)


cdc.add_command(connector)
cdc.add_command(parked)
cdc.add_command(tail)
cdc.add_command(retry)
cdc.add_command(skip)
