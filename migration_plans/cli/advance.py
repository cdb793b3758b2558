"""`strangler advance`: go to the next stage on a person's word."""

import time

import click

from migration_plans.cli.moving import by_hand, controller_runs, present, told
from migration_plans.cli.session import Session, confirm, json_option, with_session, yes_option
from migration_plans.stages import Event, RefusedError


@click.command()
@with_session
@yes_option
@json_option
def advance(*, session: Session, yes: bool, as_json: bool) -> None:
    """Go to the next stage although gates hold; shows what they say and asks.

    \b
    Example:
      strangler advance catalog
      strangler advance catalog --yes
    """
    record = present(session, Event.ADVANCE)
    if record.last_stage:
        raise RefusedError(record.state, Event.ADVANCE)
    following = session.plan.stages[record.stage + 1].stage
    seen = session.ledger.observation(session.plan.name)
    # gates that were looked at on another version of the ledger may be those of the stage before
    fresh = seen is not None and seen[0] < 5 and seen[1].get("version") == record.version
    gates = seen[1]["gates"] if seen is not None and fresh and controller_runs(session) else []
    holding = [
        f"  {gate['gate']}: {gate['outcome']}, {gate['text']}" for gate in gates if gate["outcome"] != "pass"
    ]
    what = f"{record.name}: {record.stage_name} -> {following.name}, on your word."
    if holding:
        what += " These gates do not pass:\n" + "\n".join(holding)
    elif not gates:
        what += " No controller has looked since, so nothing is known of the gates."
    if holding or not gates:
        confirm(what, yes=yes)
    reason = f"on the word of {session.actor}" + (f"; {len(holding)} gates did not pass" if holding else "")
    record = by_hand(session, record, Event.ADVANCE, reason=reason, now=time.time())
    told(session, record, as_json=as_json, text=f"{record.name}: entering {record.stage_name}")
