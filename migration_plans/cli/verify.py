"""`strangler verify`: compare both sides row by row at one log position, while writes go on."""

import time

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, json_option, show, with_session


@click.command()
@with_session
@json_option
def verify(*, session: Session, as_json: bool) -> None:
    """Compare source and target of PLAN through its mapping; name key and column of every difference.

    Writes go on meanwhile. Exit code 4 when rows differ.

    \b
    Example:
      strangler verify catalog
      strangler verify catalog --json
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("comparing", total=None, rate="")
        began = time.monotonic()

        def progress(table: str, done: int, total: int, rows: int) -> None:
            rate = rows / max(time.monotonic() - began, 1e-3)
            bar.update(
                task, description=f"compared {table}", completed=done, total=total, rate=f"{rate:,.0f} rows/s"
            )

        found = session.world.stream.compare(progress)
    lines = [f"compared at {found.position}"]
    for table, counts in found.detail["tables"].items():
        lines.append(f"  {table}: {counts['rows']} rows, {counts['differing']} differing")
        lines += [f"    {difference['text']}" for difference in counts.get("differences", ())]
    show(found.detail, "\n".join(lines), as_json=as_json)
    if found.differing:
        raise SaysNoError(
            f"{found.differing} of {found.rows} rows differ; repair the mapping or the rows, then compare again"
        )
