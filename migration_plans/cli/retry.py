"""`strangler retry`: try again after a rollback or a failed action."""

import time

import click

from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.moving import by_hand, present, told
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.stages import KINDS, Event, State, follow


@click.command()
@with_session
@click.option("--force", is_flag=True, help="Try although the service does not answer well.")
@json_option
def retry(*, session: Session, force: bool, as_json: bool) -> None:
    """Enter the stage again that PLAN was rolled back from, or that failed.

    Asks the service a few questions first, directly; with no traffic on it, nobody else would notice that
    it is still ill.

    \b
    Example:
      strangler retry catalog
    """
    plan = session.plan
    record = present(session, Event.RETRY)
    follow(record.state, Event.RETRY)
    carries = KINDS[plan.stages[record.stage].stage.kind].carries_traffic
    if carries and record.state is State.ROLLED_BACK and not force:
        for _ in range(plan.retry.probes):
            problem = session.world.prober.round()
            if problem:
                raise SaysNoError(f"the service is not well: {problem}; repair it, or insist with --force")
    reason = f"on the word of {session.actor}" + (", not asked whether the service is well" if force else "")
    record = by_hand(session, record, Event.RETRY, reason=reason, now=time.time())
    told(session, record, as_json=as_json, text=f"{record.name}: tries again, entering {record.stage_name}")
