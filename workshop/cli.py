"""The commands of the workshop: `strangler up`, `strangler down`, `strangler demo`.

They are found by the entry-point group `strangler.commands`, because the rest of the CLI may not import
upward. Exit codes are those of docs/reference/contracts.md.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from chassis import logs
from chassis.problems import InvalidFileError
from workshop import background
from workshop.background import AlreadyRunningError, State
from workshop.layout import Layout, Ports, Seed
from workshop.stack import StackConfig
from workshop.supervisor import Happening, StackError

_DONE, _CHECK_SAYS_NO, _INTERRUPTED = 0, 4, 130
_CODES: Mapping[background.Fault, int] = {
    "": 1,
    "failed": 1,
    "refused-file": 3,
    "unfit": _CHECK_SAYS_NO,
    "conflict": 5,
    "unreachable": 6,
}

_PORT = click.IntRange(1, 65535)


def stack_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command which starts a stack takes."""
    options = [
        click.option(
            "--var", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), show_default=True,
            help="Directory of data, logs and secrets.",
        ),
        click.option("--port", "proxy", type=_PORT, help="Port of the shop (the proxy).  [default: 8000]"),
        click.option("--admin-port", "admin", type=_PORT, help="Admin port of the proxy.  [default: 8010]"),
        click.option("--monolith-port", "monolith", type=_PORT, help="Of the monolith.  [default: 8001]"),
        click.option("--catalog-port", "catalog", type=_PORT, help="Port of the service.  [default: 8101]"),
        click.option("--postgres-port", "postgres", type=_PORT, help="Port of PostgreSQL.  [default: 5440]"),
        click.option(
            "--dsn", envvar="STRANGLER_POSTGRES_DSN", metavar="DSN",
            help="Use this PostgreSQL (16 or newer, wal_level=logical, as a superuser or one who may create "
            "databases, roles and replication) instead of an embedded one. Also: STRANGLER_POSTGRES_DSN.",
        ),
        click.option(
            "--routes", type=click.Path(dir_okay=False, path_type=Path), envvar="STRANGLER_ROUTES",
            help="Routes file.  [default: routes.yaml]",
        ),
        click.option(
            "--plan", type=click.Path(dir_okay=False, path_type=Path),
            help="Plan file.  [default: the shop's catalogue]",
        ),
        click.option(
            "--engine", type=click.Choice(["python", "envoy"]), default="python", show_default=True,
            help="What carries the traffic. What Envoy has not is left out of a copy of the routes file.",
        ),
        click.option(
            "--cdc", type=click.Choice(["slot", "kafka"]), default="slot", show_default=True,
            help="What carries the changes: the write-ahead log read directly, or Debezium and Kafka, started "
            "as well (Java 17 and Maven are needed).",
        ),
        click.option("--products", type=click.IntRange(1), default=Seed().products, show_default=True),
        click.option("--users", type=click.IntRange(1), default=Seed().users, show_default=True),
        click.option("--orders", type=click.IntRange(0), default=Seed().orders, show_default=True),
        click.option("--seed", type=int, default=Seed().seed, show_default=True),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def default_routes() -> Path:
    """`routes.yaml` of the current directory, else the one beside the installed source tree."""
    here = Path("routes.yaml")
    return here if here.exists() else Path(__file__).resolve().parents[1] / "routes.yaml"


def default_plan() -> Path:
    """The shop's plan in the current directory, else the installed one."""
    here = Path("migration_plans/plans/catalog.yaml")
    return here if here.exists() else Path(__file__).resolve().parents[1] / here


@click.command()
@stack_options
@click.option("--foreground", is_flag=True, help="Stay; Ctrl-C ends everything.")
@click.option("--reset", is_flag=True, help="Wipe the data of an earlier run first (asks).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def up(
    *, var: Path, dsn: str | None, routes: Path | None, plan: Path | None, engine: str, cdc: str, products: int,
    users: int, orders: int, seed: int, foreground: bool, reset: bool, yes: bool, as_json: bool, **ports: int | None,
) -> None:  # fmt: skip
    """Start the shop, the service, the change stream, the proxy and the controller.

    Waits until all of it is ready and prints where to look. Nothing is moved yet: that is `strangler start`.

    \b
    Examples:
      strangler up
      strangler up --foreground --products 10000
      strangler up --dsn postgresql://postgres@localhost/postgres
      strangler up --engine envoy
      strangler up --cdc kafka
      strangler up --reset --yes
    """
    layout = Layout(var.resolve())
    if reset and not yes:
        click.confirm(f"Wipe the databases of the workshop in {layout.var}?", abort=True, err=True)
    config = StackConfig(
        layout=layout,
        ports=Ports().with_chosen(ports),
        seed=Seed(products=products, users=users, orders=orders, seed=seed),
        routes=(routes or default_routes()).resolve(),
        plan=(plan or default_plan()).resolve(),
        postgres_dsn=dsn,
        engine=engine,
        cdc=cdc,
        fresh=reset,
    )
    say = _quiet if as_json else _say
    try:
        if foreground:
            logs.configure("supervisor", stream=_log_file(layout))
            state = asyncio.run(background.serve(config, tell=_teller(say)))
            if state.phase == "stopped":
                return
        else:
            state = background.start(config, tell=say)
    except (StackError, InvalidFileError, OSError) as error:
        _fail(error)
    except KeyboardInterrupt:
        click.echo("interrupted; everything that was started has been stopped", err=True)
        sys.exit(_INTERRUPTED)
    if as_json:
        shown = {"phase": state.phase, "pid": state.pid, "urls": dict(state.urls), "message": state.message}
        click.echo(json.dumps({**shown, "environment": str(layout.environment)}))
    if state.phase == "failed":
        click.echo(state.message, err=True)
        sys.exit(_CODES[state.fault])
    if not as_json:
        _print_urls(state, layout)


@click.command()
@click.option(
    "--var", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), show_default=True,
    help="Directory given to `strangler up`.",
)  # fmt: skip
@click.option(
    "--wipe", is_flag=True, help="Delete the embedded databases and what was written beside them (asks)."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def down(*, var: Path, wipe: bool, yes: bool, as_json: bool) -> None:
    """Stop what `strangler up` started and make sure that nothing of it is left. Data stay, unless wiped.

    \b
    Examples:
      strangler down
      strangler down --var /tmp/workshop --wipe --yes
    """
    layout = Layout(var.resolve())
    if wipe and not yes:
        click.confirm(
            f"Delete the databases, pictures, mails and secrets in {layout.var}?", abort=True, err=True
        )
    try:
        stopped = background.stop(layout)
        if wipe:
            background.wipe(layout)
    except (StackError, OSError) as error:
        _fail(error)
    if as_json:
        shown = {"was_running": stopped.was_running, "left": [], "given_up": dict(stopped.given_up)}
        click.echo(json.dumps(shown))
        return
    for reason in stopped.given_up.values():
        click.echo(f"had been given up: {reason}", err=True)
    click.echo(
        "stopped; nothing is left running" if stopped.was_running else f"nothing is running in {layout.var}"
    )


@click.command()
@stack_options
@click.option(
    "--rate", type=click.FloatRange(1), help="Requests a second.  [default: what this machine can carry]"
)
@click.option(
    "--seconds-per-stage", type=click.FloatRange(1), default=7.0, show_default=True,
    help="How long a percentage soaks at least; in life these are hours or days.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the databases for `strangler up --var VAR/demo`.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON; the story goes to stderr.")
def demo(
    *, var: Path, dsn: str | None, routes: Path | None, plan: Path | None, engine: str, cdc: str, products: int,
    users: int, orders: int, seed: int, rate: float | None, seconds_per_stage: float, keep: bool, plain: bool,
    as_json: bool, **ports: int | None,
) -> None:  # fmt: skip
    """Move the shop's catalogue to its service under traffic, with a fault on the way, and judge the run.

    Starts everything afresh, walks the plan's stages, breaks the service at 25 %, watches it being rolled
    back, heals it, watches it go on to 100 %, compares both databases row by row, stops everything. Takes
    about 75 seconds. Exit code 0 only when every check holds; the report is in VAR/demo/report.html.

    \b
    Examples:
      strangler demo
      strangler demo --seconds-per-stage 10 --rate 60
      strangler demo --engine envoy
      strangler demo --cdc kafka
      strangler demo --json > report.json
    """
    # only the demo needs matplotlib and the rest
    from workshop import demo_command  # noqa: PLC0415

    stack = demo_command.stack_config(
        Layout((var / "demo").resolve()),
        chosen_ports=ports,
        seed=Seed(products=products, users=users, orders=orders, seed=seed),
        routes=(routes or default_routes()).resolve(),
        plan=(plan or default_plan()).resolve(),
        dsn=dsn,
        engine=engine,
        cdc=cdc,
        seconds_per_stage=seconds_per_stage,
    )
    try:
        passed = demo_command.run(stack, rate=rate, keep=keep, plain=plain, as_json=as_json)
    except (StackError, InvalidFileError, OSError) as error:
        _fail(error)
    except (demo_command.InterruptedDemoError, KeyboardInterrupt):
        click.echo("interrupted; everything that was started has been stopped", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(_DONE if passed else _CHECK_SAYS_NO)


def _teller(say: Callable[[str], None]) -> Callable[[Happening], None]:
    return lambda happening: say(happening.text)


def _say(text: str) -> None:
    click.echo(f"  {text}", err=True)


def _quiet(_text: str) -> None:
    return None


def _log_file(layout: Layout) -> Any:
    layout.logs.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(layout.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), "w")


def _fail(error: StackError | InvalidFileError | OSError) -> NoReturn:
    match error:
        case OSError(filename=name, strerror=reason) if name:
            text = f"{name}: {reason}; `--var DIR` names another directory for data, logs and reports"
        case _:
            text = str(error)
    click.echo(text, err=True)
    match error:
        case AlreadyRunningError():
            sys.exit(_CODES["conflict"])
        case _:
            sys.exit(_CODES[background.fault_of(error)])


def _print_urls(state: State, layout: Layout) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, url in state.urls.items():
        table.add_row(name, url)
    Console().print(table)
    click.echo(
        f"\nlogs: {layout.logs}\nfor commands in this shell: . {layout.environment}\nstop: strangler down"
    )
