"""`strangler demo` as a command: its defaults, its view, its report, what it prints at the end."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import structlog

from chassis import logs
from workshop import report
from workshop.background import locked
from workshop.databases import drop
from workshop.demo import DemoConfig, InterruptedDemoError, Outcome
from workshop.demo import run as run_demo
from workshop.layout import Layout, Ports, Seed
from workshop.postgres import EmbeddedPostgres
from workshop.probe import port_is_free
from workshop.stack import StackConfig
from workshop.view import choose

__all__ = ["InterruptedDemoError", "run", "stack_config"]


def stack_config(
    layout: Layout,
    *,
    chosen_ports: Mapping[str, int | None],
    seed: Seed,
    routes: Path,
    plan: Path,
    dsn: str | None,
    engine: str,
    cdc: str,
    seconds_per_stage: float,
) -> StackConfig:
    """The demo's stack: fresh data, the usual ports where they are free, gates that suit a minute.

    A port that was asked for is used as it is, and refused when it is taken.
    """
    usual = Ports().as_dict()
    free = Ports.free().as_dict()
    ports = {name: port if port_is_free(port) else free[name] for name, port in usual.items()}
    return StackConfig(
        layout=layout,
        ports=Ports(**ports).with_chosen(chosen_ports),
        seed=seed,
        routes=routes,
        plan=plan,
        plan_settings=(
            f"gates.soak={seconds_per_stage}s",
            # evidence for a minute's walk; a real plan asks for hundreds of requests
            "gates.min_requests=10",
            "rollback.retry.auto=true",
            "rollback.retry.after=1s",
            "rollback.retry.probes=3",
        ),
        postgres_dsn=dsn,
        engine=engine,
        cdc=cdc,
        durable=False,
        expose_arm=True,
        fresh=True,
    )


def run(stack: StackConfig, *, rate: float | None, keep: bool, plain: bool, as_json: bool) -> bool:
    """Run the demo, write and print its report; whether every check held.

    Raises what workshop.demo.run raises, and AlreadyRunningError when a demo runs in the same directory.
    """
    started = time.time()
    layout = stack.layout
    layout.logs.mkdir(parents=True, exist_ok=True)
    with locked(layout), layout.log("demo").open("a", encoding="utf-8") as log:
        logs.configure("demo", stream=log)
        try:
            with choose(
                started=started, plain=plain or as_json, stream=sys.stderr if as_json else sys.stdout
            ) as view:
                outcome = asyncio.run(run_demo(DemoConfig(stack=stack, rate=rate), view, started=started))
            structlog.get_logger("workshop.demo").info("demo ended", passed=outcome.passed)
        finally:
            if not keep:
                _forget(stack)
    paths = report.write(layout.var, outcome.facts, outcome.checks)
    if as_json:
        click.echo(json.dumps(report.as_json(outcome.facts, outcome.checks), indent=2))
    _print(outcome, paths, layout, to_stderr=as_json)
    return outcome.passed


def _forget(stack: StackConfig) -> None:
    """Delete the demo's databases; logs and reports stay."""
    if stack.postgres_dsn is None:
        EmbeddedPostgres(stack.layout.postgres, port=stack.ports.postgres).destroy()
    else:
        drop(stack.postgres_dsn)


def _print(outcome: Outcome, paths: tuple[Path, Path], layout: Layout, *, to_stderr: bool) -> None:
    click.echo("", err=to_stderr)
    for check in outcome.checks:
        mark = click.style("✓", fg="green") if check.passed else click.style("✗", fg="red")
        click.echo(f"  {mark} {check.name}: {check.text}", err=to_stderr)
        if not check.passed:
            click.echo(f"      look at {check.where} (logs: {layout.logs})", err=to_stderr)
    held = sum(check.passed for check in outcome.checks)
    verdict = "passed" if outcome.passed else "FAILED"
    click.echo(
        f"\n{verdict}: {held} of {len(outcome.checks)} checks held in {outcome.facts.seconds:.0f} s\n"
        f"report: {paths[1]}\n        {paths[0]}",
        err=to_stderr,
    )
