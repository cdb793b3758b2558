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
    """Remove slot, publication, schema `strangler_cdc` and the service's copied rows. Asks.

    PLAN is then as if never started; the ledger keeps its history. Only after a rollback or a failure, when the
    monolith answers everything. Stop `strangler cdc run` first.

    \b
    Example:
      strangler rollback catalog && strangler reset catalog
    """
    record = present(session, Event.RESET)
    follow(record.state, Event.RESET)
    stream = session.plan.stream
    confirm(
        f"This removes the slot {stream.slot} and the publication {stream.publication} from the source, and from "
        f"the target the schema strangler_cdc and the rows of the mapped tables.\n"
        f"Until there is a new snapshot the service has no data.",
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
