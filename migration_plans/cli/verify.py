"""`strangler verify`: compare both sides row by row at one log position, while writes go on.

Three ways to listen: a bar with rate and time left (a terminal), lines of JSON (`--json-lines`), the report at the
end (always). With `--continuous` one comparison follows the other, each with its summary, until it is told to stop.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from migration_plans.cli.answer import show
from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.drivers.change_stream import (
    ChangeStreamError,
    CompareProgress,
    CompareWish,
    Comparison,
)
from migration_plans.quantities import format_seconds

_LINE_EVERY = 1.0  # seconds between lines of progress


@click.command()
@with_session
@click.option(
    "--table", "tables", multiple=True, help="Only this table (its name on either side); repeatable."
)
@click.option("--rate", type=click.IntRange(min=1), help="Compare at most so many rows a second.")
@click.option("--fresh", is_flag=True, help="Begin anew where an earlier comparison was cut off.")
@click.option(
    "--show-values", "values", is_flag=True, help="Print the values that differ, not their digests."
)
@click.option("--continuous", is_flag=True, help="Compare again and again until SIGINT or SIGTERM.")
@click.option("--every", type=click.FloatRange(min=0), default=60.0, help="Seconds between comparisons.")
@click.option("--json-lines", "lines", is_flag=True, help="Print progress and findings as lines of JSON.")
@json_option
def verify(
    *,
    session: Session,
    tables: tuple[str, ...],
    rate: int | None,
    fresh: bool,
    values: bool,
    continuous: bool,
    every: float,
    lines: bool,
    as_json: bool,
) -> None:
    """Compare source and target of PLAN through its mapping; name key and column of every difference.

    Writes go on meanwhile. One that was stopped or killed goes on where it was, for an hour. Exit code 4 when
    rows differ, 1 when it was stopped, 6 when a database or the stream is away or does not let it compare.

    \b
    Example:
      strangler verify catalog
      strangler verify catalog --table review --show-values
      strangler verify catalog --continuous --rate 50000 --json-lines
    """
    if as_json and (lines or continuous):
        raise click.UsageError("--json prints one report at the end; use --json-lines here")
    known = {str(side) for table in session.plan.mapping.tables for side in (table.source, table.target)}
    if unknown := set(tables) - known:
        raise click.UsageError(f"no table {min(unknown)!r} is mapped; there are: {', '.join(sorted(known))}")
    wish = CompareWish(tables, rate, fresh, values)
    with _told_to_stop() as stop, _bar() as bar:
        listener = _Listener(bar, lines=lines, at_once=continuous)
        if continuous:
            _again_and_again(session, wish, stop, listener=listener, every=every)
            return
        listener.begin()
        try:
            found = session.world.stream.compare(listener.told, stop, wish=wish)
        except ChangeStreamError as error:
            if stop.is_set():
                raise click.ClickException(f"{error}; the same command goes on where it was") from error
            raise
    if lines:
        _line("compared", found.detail)
    else:
        show(found.detail, "\n".join(_report(found)), as_json=as_json)
    if found.differing:
        raise SaysNoError(
            f"{found.differing} of {found.rows} rows differ; repair the mapping or the rows, then compare again"
        )


def _again_and_again(
    session: Session, wish: CompareWish, stop: threading.Event, *, listener: "_Listener", every: float
) -> None:
    """Until `stop`. A database that is away for a while is told and waited for. Raises SaysNoError, and the last
    ChangeStreamError when not one comparison came to its end.
    """
    done = differing = 0
    trouble: ChangeStreamError | None = None
    while not stop.is_set():
        listener.begin()
        try:
            found = session.world.stream.compare(listener.told, stop, wish=wish)
        except ChangeStreamError as error:
            if stop.is_set():
                break
            trouble = error
            listener.say("trouble", {"text": str(error)}, f"not compared: {error}")
        else:
            done += 1
            differing += found.differing
            listener.say("compared", found.detail, _summary(found, done))
        stop.wait(every)
    if differing:
        raise SaysNoError(f"rows differed in {done} comparisons: {differing} findings, named above")
    if not done and trouble is not None:
        raise trouble


@dataclass(slots=True)
class _Listener:
    """Hands progress on: to the bar, as lines of JSON, and (`at_once`) differences as they are proved."""

    bar: Progress
    lines: bool
    at_once: bool
    task: TaskID | None = None
    began: float = field(default_factory=time.monotonic)
    said: float = 0.0

    def begin(self) -> None:
        """A comparison begins."""
        self.began = time.monotonic()
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task("comparing", total=None, told="")

    def told(self, seen: CompareProgress) -> None:
        """Progress of the comparison."""
        now = time.monotonic()
        assert self.task is not None, "begin() comes first"
        rate = (seen.rows - seen.resumed) / max(now - self.began, 1e-3)
        left = max(0, seen.expected - seen.rows) / rate if rate > 0 else None
        told = seen.waiting or f"{rate:,.0f} rows/s" + (f", {format_seconds(left)} left" if left else "")
        self.bar.update(
            self.task,
            description=f"comparing {seen.table}",
            completed=seen.rows,
            total=seen.expected,
            told=told,
        )
        for each in seen.found:
            if self.lines:
                _line("difference", each)
            elif self.at_once:
                click.echo(f"{each['table']}: {each['text']}")
        if self.lines and (now - self.said >= _LINE_EVERY or seen.waiting):
            self.said = now
            shape = {name: value for name, value in asdict(seen).items() if name != "found"}
            _line(
                "progress", {**shape, "rows_per_second": round(rate), "seconds_left": left and round(left, 1)}
            )

    def say(self, event: str, detail: dict[str, Any], text: str) -> None:
        """One line: of JSON or for people."""
        if self.lines:
            _line(event, detail)
        else:
            click.echo(text)


def _line(event: str, detail: dict[str, Any]) -> None:
    click.echo(json.dumps({"event": event, **detail}, default=str))


def _report(found: Comparison) -> Iterator[str]:
    yield f"compared at {found.position}"
    if found.detail.get("resumed"):
        yield f"  {found.detail['resumed']} rows were compared by an earlier run that was cut off"
    for table, counts in found.detail["tables"].items():
        yield f"  {table}: {counts['rows']} rows, {counts['differing']} differing"
        if counts.get("passed"):
            yield f"    {counts['passed']} rows differed at one position and no longer at a later one"
        yield from (f"    {difference['text']}" for difference in counts.get("differences", ()))


def _summary(found: Comparison, number: int) -> str:
    seconds = found.detail.get("seconds", 0.0)
    return (
        f"comparison {number} at {found.position}: {found.rows} rows, {found.differing} differing, "
        f"{seconds:.1f} s in {found.detail.get('rounds', 1)} rounds, applier held at most "
        f"{found.detail.get('applier_held_ms', 0.0):.0f} ms"
    )


@contextmanager
def _bar() -> Iterator[Progress]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        yield bar


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Set by the first SIGINT or SIGTERM; a second one ends the process as usual."""
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def heard(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
