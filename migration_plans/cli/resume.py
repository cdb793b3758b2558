"""`strangler resume`: go on after a pause."""

import time

import click

from migration_plans.cli.moving import by_hand, present, told
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.stages import Event


@click.command()
@with_session
@click.option("--reason", default="", help="Why; kept in the ledger.")
@json_option
def resume(*, session: Session, reason: str, as_json: bool) -> None:
    """Have PLAN go on with the stage it was paused in; its percentage is set again.

    \b
    Example:
      strangler resume catalog --reason "the sale is over"
    """
    record = by_hand(session, present(session, Event.RESUME), Event.RESUME, reason=reason, now=time.time())
    told(session, record, as_json=as_json, text=f"{record.name}: goes on, entering {record.stage_name}")
