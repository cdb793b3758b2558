"""`strangler pause`: stay at this stage."""

import time

import click

from migration_plans.cli.moving import by_hand, present, told
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.stages import Event


@click.command()
@with_session
@click.option("--reason", default="", help="Why; kept in the ledger.")
@json_option
def pause(*, session: Session, reason: str, as_json: bool) -> None:
    """Have PLAN stay at its stage. A failing service is still rolled back.

    \b
    Example:
      strangler pause catalog --reason "sale until Monday"
    """
    record = by_hand(session, present(session, Event.PAUSE), Event.PAUSE, reason=reason, now=time.time())
    told(session, record, as_json=as_json, text=f"{record.name}: paused at {record.stage_name}")
