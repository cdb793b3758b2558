"""What the verbs that move a migration by hand share: record a person's event, say where things stand."""

from typing import Any

import click

from migration_plans.cli.answer import show
from migration_plans.cli.session import Session
from migration_plans.controller import check_stages
from migration_plans.record import Record, after
from migration_plans.stages import Event, RefusedError, State


def present(session: Session, event: Event) -> Record:
    """The record that `event` would change. Raises RefusedError when there is none, PlanChangedError."""
    record = session.record()
    if record is None:
        raise RefusedError(State.PLANNED, event)
    check_stages(session.plan, record)
    return record


def by_hand(session: Session, record: Record, event: Event, *, reason: str, now: float) -> Record:
    """Write a person's event into the ledger. Raises RefusedError, ConflictError."""
    stages = [planned.stage for planned in session.plan.stages]
    follower = after(record, event, stages=stages, now=now, reason=reason)
    return session.ledger.append(
        follower, event=event.value, actor=session.actor, detail={"reason": reason} if reason else {}
    )


def controller_runs(session: Session) -> bool:
    """Whether a controller of this plan is running anywhere."""
    return session.ledger.controlled(session.plan.name)


def told(session: Session, record: Record, *, as_json: bool, text: str) -> None:
    """Say what is so now, and whether anybody is there to carry it out."""
    body: dict[str, Any] = {
        "plan": record.name,
        "state": record.state.value,
        "stage": record.stage_name,
        "percent": float(record.percent),
        "version": record.version,
        "reason": record.reason,
        "controller_running": controller_runs(session),
    }
    show(body, text, as_json=as_json)
    if not body["controller_running"] and record.state in (State.ENTERING, State.SOAKING):
        click.echo(f"no controller is running; start one: strangler controller {session.plan.file}", err=True)
