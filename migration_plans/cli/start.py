"""`strangler start`: begin to walk a plan's stages."""

import time
from decimal import Decimal

import click

from migration_plans.cli.exits import NeededError, SaysNoError
from migration_plans.cli.moving import by_hand, told
from migration_plans.cli.session import Session, confirm, json_option, with_session, yes_option
from migration_plans.drivers.probe import HttpProber
from migration_plans.drivers.routes import RoutesFact, RoutesFile
from migration_plans.plan import Plan
from migration_plans.record import begin
from migration_plans.stages import Event, RefusedError, State


@click.command()
@with_session
@click.option(
    "--skip-check",
    is_flag=True,
    help="Leave the live check of the mapping to stage `prepare`, and do not ask whether the service is up.",
)
@yes_option
@json_option
def start(*, session: Session, skip_check: bool, yes: bool, as_json: bool) -> None:
    """Record that PLAN begins; a running controller then walks its stages.

    \b
    Example:
      strangler start catalog
      strangler start catalog --json
    """
    plan = session.plan
    fact = session.world.routes.read()
    record = session.record()
    if record is not None and record.state is not State.PLANNED:
        raise RefusedError(record.state, Event.START)
    if not skip_check:
        errors = [
            finding["text"] for finding in session.world.stream.check() if finding["severity"] == "error"
        ]
        if errors:
            raise SaysNoError(
                "\n".join([*errors, f"nothing was started; `strangler plan check {plan.file}` shows all"])
            )
        _ask_service(plan, fact)
    if fact.percent > 0:
        confirm(f"group {plan.group} stands at {fact.percent} %; starting sets it to 0 % first.", yes=yes)
    now = time.time()
    fresh = begin(
        plan.name,
        stages=[planned.stage for planned in plan.stages],
        percent=Decimal(fact.percent),
        digest=plan.digest,
        now=now,
    )
    if record is not None:  # reset earlier: the history goes on where it was
        fresh = fresh.at_version(record.version)
    session.ledger.install()
    record = by_hand(session, fresh, Event.START, reason="", now=now)
    told(session, record, as_json=as_json, text=f"{plan.name}: started, entering {record.stage_name}")


def _ask_service(plan: Plan, fact: RoutesFact) -> None:
    """Raises NeededError, with the line of the routes file, when the service is not ready to take requests."""
    fault = HttpProber(fact.backend_url, ()).round()
    if fault:
        problem = RoutesFile(plan.routes, plan.group).service_problem(
            fault, "start the service, or correct its address"
        )
        raise NeededError(f"{problem}\nnothing was started; with --skip-check the service is not asked")
