"""`strangler reset`: take the change stream down, so that the plan can begin from nothing."""

import time

import click

from migration_plans.cli.moving import by_hand, present, told
from migration_plans.cli.session import Session, confirm, json_option, with_session, yes_option
from migration_plans.stages import Event, follow


@click.command()
@with_session
@yes_option
@json_option
def reset(*, session: Session, yes: bool, as_json: bool) -> None:
    """Remove slot, publication and the schema `strangler_cdc`; PLAN is then as if never started. Asks.

    Only after a rollback or a failure. The ledger keeps its history, the service's tables keep their rows
    (the next snapshot replaces them). Stop `strangler cdc run` first.

    \b
    Example:
      strangler rollback catalog && strangler reset catalog
    """
    record = present(session, Event.RESET)
    follow(record.state, Event.RESET)
    stream = session.plan.stream
    confirm(
        f"This removes the slot {stream.slot} and the publication {stream.publication} from the source and the schema "
        f"strangler_cdc from the target.\nChanges made from then on reach the service only after a new snapshot.",
        yes=yes,
    )
    session.world.stream.teardown()
    record = by_hand(session, record, Event.RESET, reason="", now=time.time())
    told(
        session,
        record,
        as_json=as_json,
        text=f"{record.name}: reset; `strangler start {session.plan.file}` begins again",
    )
