"""`strangler history`: the ledger's events, and whether the chain of their hashes holds."""

import click

from migration_plans.cli.answer import show
from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.ledger import Entry


@click.command()
@with_session
@click.option("--last", type=click.IntRange(min=1), help="Only so many of the newest events.")
@json_option
def history(*, session: Session, last: int | None, as_json: bool) -> None:
    """Print what happened to PLAN, who did it and why; check that nobody altered it.

    \b
    Example:
      strangler history catalog --last 20
      strangler history catalog --json
    """
    entries = session.ledger.history(session.plan.name, last=last)
    chain = session.ledger.check_chain(session.plan.name) if entries else None
    body = {
        "plan": session.plan.name,
        "entries": [entry.as_dict() for entry in entries],
        "chain": None
        if chain is None
        else {"entries": chain.entries, "broken_at": chain.broken_at, "why": chain.why},
    }
    lines = [line(entry) for entry in entries] or [f"{session.plan.name} was never started"]
    show(body, "\n".join(lines), as_json=as_json)
    if chain is not None and chain.broken_at is not None:
        raise SaysNoError(f"the history does not hold: {chain.why}; restore the ledger from a backup")


def line(entry: Entry) -> str:
    """One event for people."""
    reason = str(entry.detail.get("reason", ""))
    extra = f"  {entry.detail['actuation_ms']} ms" if "actuation_ms" in entry.detail else ""
    return (
        f"{entry.at[:23]}  {entry.event:<18} {entry.stage:<9} {entry.percent:>6} %  {entry.actor}{extra}"
        f"{'  ' + reason if reason else ''}"
    )
