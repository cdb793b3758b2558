"""`strangler rollback`: every request to the monolith, now; with or without a controller running."""

import asyncio
import time

import click

from migration_plans.cli.exits import NeededError
from migration_plans.cli.moving import by_hand, present, told
from migration_plans.cli.session import Session, json_option, with_session
from migration_plans.ledger import ConflictError, LedgerUnreachableError
from migration_plans.record import Record
from migration_plans.stages import Event, State

_PATIENCE = 10.0
_ATTEMPTS = 5


@click.command()
@with_session
@click.option("--reason", default="by hand", help="Why; kept in the ledger.")
@json_option
def rollback(*, session: Session, reason: str, as_json: bool) -> None:
    """Send every request of PLAN's group to the monolith and wait until every worker does so.

    Nothing is lost by it: the monolith owns every row. The change stream keeps running; `strangler retry`
    goes on. A routes file that is refused does not stop it: it is put aside as FILE.refused-TIME, and what the
    proxy runs is written in its place with 0 %.

    \b
    Example:
      strangler rollback catalog --reason "reviews look odd"
    """
    record = _intend(session, reason)
    record = asyncio.run(_carry_out(session, record))
    entry = next(e for e in reversed(session.ledger.history(record.name)) if e.event == Event.AT_ZERO.value)
    workers = entry.detail.get("workers")
    text = f"{record.name}: rolled back from {record.stage_name}; every worker ({workers}) runs 0 % ({record.reason})"
    told(session, record, as_json=as_json, text=text)


def _intend(session: Session, reason: str) -> Record:
    for _ in range(_ATTEMPTS):
        try:
            record = present(session, Event.ROLLBACK)
        except LedgerUnreachableError as error:
            raise LedgerUnreachableError(
                f"{error}; without the ledger, `strangler traffic {session.plan.group}=0` goes back at once"
            ) from error
        if record.state is State.ROLLING_BACK:
            return record  # somebody else's intent: carry it out with them
        try:
            return by_hand(session, record, Event.ROLLBACK, reason=reason, now=time.time())
        except ConflictError:
            continue  # the controller moved meanwhile; going back outranks whatever it did
    raise ConflictError(f"{session.plan.name} keeps changing; look at `strangler status` and try again")


async def _carry_out(session: Session, record: Record) -> Record:
    """The controller's own turn, run here: a controller may or may not be doing the same, which is safe."""
    controller = session.controller()
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            await controller.turn()
            now = session.record()
            if now is not None and now.state is not State.ROLLING_BACK:
                return now
            if time.monotonic() > deadline:
                problems = controller.observation()["problems"]
                raise NeededError(
                    "the intent is recorded, but the proxy does not run 0 % yet: "
                    + ("; ".join(problems.values()) or "not every worker has taken it over")
                )
            await asyncio.sleep(0.05)
    finally:
        controller.side_ledger.close()
