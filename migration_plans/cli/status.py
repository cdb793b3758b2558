"""`strangler status`: where a migration stands, and why. The JSON shape is in docs/reference/status.md."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from migration_plans.cli.history import line
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.ledger import Entry
from migration_plans.quantities import format_bytes, format_seconds
from migration_plans.record import Record
from migration_plans.stages import NOTES, State

_EVERY = 0.5
_TAIL = 8
_STALE = 5.0


@click.command()
@with_session
@click.option("-w", "--watch", is_flag=True, help="Keep showing it, until Ctrl-C.")
@click.option(
    "--until", type=click.Choice([state.value for state in State]), help="With -w: end in this state."
)
@json_option
def status(*, session: Session, watch: bool, until: str | None, as_json: bool) -> None:
    """Show state, stage, gates, verdict, lag and the newest events of PLAN.

    \b
    Example:
      strangler status catalog
      strangler status -w catalog
      strangler status -w --until done --json catalog

    With -w and --json: one JSON object a line. With -w and no terminal: a line whenever something changes.
    """
    if not watch:
        body = report(session)
        click.echo(json.dumps(body, indent=2) if as_json else _plain(body))
        return
    if as_json or not sys.stdout.isatty():
        _follow(session, until=until, as_json=as_json)
        return
    console = Console()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            body = report(session)
            live.update(_picture(body))
            if body["state"] == until:
                return
            time.sleep(_EVERY)


def report(session: Session, *, tail: int = _TAIL) -> dict[str, Any]:
    """Everything `status` knows. Raises LedgerUnreachableError."""
    plan = session.plan
    record = session.record()
    seen = session.ledger.observation(plan.name)
    history = session.ledger.history(plan.name, last=tail)
    age, body = seen if seen is not None else (None, {})
    running = session.ledger.controlled(plan.name)
    fresh = running and age is not None and age < _STALE
    state = State.PLANNED if record is None else record.state
    return {
        "plan": plan.name,
        "file": plan.file,
        "state": state.value,
        "meaning": NOTES[state].meaning,
        "stage": None if record is None else record.stage_name,
        "stages": _stages(session, record),
        "percent": None if record is None else float(record.percent),
        "live_percent": body.get("live_percent") if fresh else None,
        "since": None
        if record is None
        else datetime.fromtimestamp(record.since, UTC).isoformat(timespec="seconds"),
        "reason": "" if record is None else record.reason,
        "next": NOTES[state].next,
        "controller": {"running": running, "age_s": None if age is None else round(age, 3)},
        # what no running controller says is old news, and old news is none
        "gates": body.get("gates", []) if fresh else [],
        "verdict": body.get("verdict") if fresh else None,
        "counts": body.get("counts", {}) if fresh else {},
        "lag": body.get("lag") if fresh else None,
        "parked": body.get("parked") if fresh else None,
        "slot": body.get("slot") if fresh else None,
        "alarms": [] if record is None else list(record.alarms),
        "probe": body.get("probe") if fresh else None,
        "problems": body.get("problems", {}) if fresh else {},
        "verified": None if record is None or record.verified is None else dict(record.verified),
        "retries": 0 if record is None else record.retries,
        "history": [entry.as_dict() for entry in history],
    }


def _stages(session: Session, record: Record | None) -> list[dict[str, Any]]:
    def place(number: int) -> str:
        if record is None or number > record.stage:
            return "ahead"
        if number == record.stage and record.state is not State.DONE:
            return "here"
        return "passed"

    return [
        {"name": planned.stage.name, "percent": float(planned.stage.percent), "place": place(number)}
        for number, planned in enumerate(session.plan.stages)
    ]


def _follow(session: Session, *, until: str | None, as_json: bool) -> None:
    shown: object = None
    while True:
        body = report(session)
        mark = (
            body["state"],
            body["stage"],
            body["live_percent"],
            len(body["history"]) and body["history"][-1]["seq"],
        )
        if as_json:
            click.echo(json.dumps(body))
        elif mark != shown:
            click.echo(f"{datetime.now(UTC):%H:%M:%S} {_headline(body)}")
            shown = mark
        sys.stdout.flush()
        if body["state"] == until:
            return
        time.sleep(_EVERY)


def _headline(body: dict[str, Any]) -> str:
    where = f", {body['stage']}" if body["stage"] else ""
    percent = "" if body["percent"] is None else f", {body['percent']:g} %"
    reason = f": {body['reason']}" if body["reason"] else ""
    return f"{body['plan']}: {body['state']}{where}{percent}{reason}"


def _plain(body: dict[str, Any]) -> str:
    lines = [_headline(body), f"  {body['meaning']}"]
    marks = {"passed": "x", "here": ">", "ahead": " "}
    lines.append("  " + "  ".join(f"[{marks[stage['place']]}] {stage['name']}" for stage in body["stages"]))
    lines += [f"  {gate['outcome']:<5} {gate['gate']:<9} {gate['text']}" for gate in body["gates"]]
    lines += [f"  {text}" for text in _numbers(body)]
    lines += [f"  problem ({what}): {text}" for what, text in body["problems"].items()]
    if not body["controller"]["running"]:
        lines.append("  no controller is running; `strangler controller PLAN` starts one")
    lines += [f"  {_event(entry)}" for entry in body["history"]]
    lines.append(f"  next: {body['next']}")
    return "\n".join(lines)


def _numbers(body: dict[str, Any]) -> list[str]:
    lines = [
        f"{arm}: {counts['errors']} of {counts['requests']} requests failed"
        for arm, counts in body["counts"].items()
    ]
    if body["verdict"]:
        lines.append(f"verdict {body['verdict']['ruling']}: {body['verdict']['reason']}")
    lag = body["lag"]
    if lag and lag["seconds"] is not None and lag["bytes"] is not None:
        lines.append(
            f"change stream: {lag['phase']}, {format_seconds(lag['seconds'])}, {format_bytes(lag['bytes'])} behind"
        )
    if body["parked"]:
        lines.append(f"parked keys: {body['parked']}; `strangler cdc parked PLAN` lists them")
    slot = body["slot"]
    if slot and slot["exists"]:
        read = "read" if slot["active"] else "not read by anybody"
        lines.append(f"slot {slot['name']}: {read}, the source keeps {format_bytes(slot['retained'])} of log")
    if body["alarms"]:
        lines.append(f"alarms: {', '.join(body['alarms'])}")
    return lines


def _event(entry: dict[str, Any]) -> str:
    return line(
        Entry(
            seq=entry["seq"],
            at=entry["at"],
            actor=entry["actor"],
            event=entry["event"],
            state=entry["state"],
            stage=entry["stage"],
            percent=f"{entry['percent']:g}",
            detail=entry["detail"],
            hash=entry["hash"],
        )
    )


def _picture(body: dict[str, Any]) -> RenderableType:
    colours = {"passed": "green", "here": "bold yellow", "ahead": "dim"}
    stages = Text("  ").join(Text(stage["name"], style=colours[stage["place"]]) for stage in body["stages"])
    gates = Table.grid(padding=(0, 2))
    outcome = {"pass": "green", "hold": "yellow", "fail": "red"}
    for gate in body["gates"]:
        gates.add_row(Text(gate["outcome"], style=outcome[gate["outcome"]]), gate["gate"], gate["text"])
    live = body["live_percent"]
    width = 40
    filled = 0 if live is None else round(width * live / 100)
    bar = Text("█" * filled, style="cyan") + Text("░" * (width - filled), style="dim")
    bar += Text("  split not known" if live is None else f"  {live:g} % to the service")
    tail = Group(*(Text(_event(entry), overflow="ellipsis", no_wrap=True) for entry in body["history"]))
    return Group(
        Text(_headline(body), style="bold"),
        stages,
        bar,
        gates,
        *(Text(text) for text in _numbers(body)),
        *(Text(f"{what}: {text}", style="red") for what, text in body["problems"].items()),
        tail,
        Text(f"next: {body['next']}", style="dim"),
    )
