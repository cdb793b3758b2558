"""`strangler cdc parked|retry|skip`: keys that wait because the target refused a change of them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import psycopg

from cdc.changes import Relation, Row, TableName
from cdc.parked import ParkedChange, row_json
from cdc.release import BusyError, Lot, NotParkedError, Retried, find, read_parked
from cdc.release import retry as retry_parked
from cdc.release import skip as skip_parked
from migration_plans.cli.answer import show
from migration_plans.cli.exits import InTheWayError, NeededError, SaysNoError
from migration_plans.cli.session import Session, confirm, json_option, with_session, yes_option
from migration_plans.plan import variable
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin, ProxyUnreachableError

SKIPPED = "parked_skipped"
"""The ledger's event for changes that a person threw away."""


@click.command()
@with_session
@json_option
def parked(*, session: Session, as_json: bool) -> None:
    """List the keys whose changes wait, and why; those that are linked by key changes together.

    \b
    Example:
      strangler cdc parked catalog
    """
    with _answers():
        lots = read_parked(_target(session), stream=session.plan.stream.slot)
    show([_as_dict(lot) for lot in lots], _listed(lots), as_json=as_json)


@click.command()
@with_session
@click.argument("key", required=False)
@click.option("--all", "every", is_flag=True, help="Every parked key, each in a transaction of its own.")
@json_option
def retry(*, session: Session, key: str | None, every: bool, as_json: bool) -> None:
    """Apply what waits under KEY again, in order and in one transaction. Exit code 4 when it is still refused.

    Repair the target, the mapping or the row in the source first. The stream may run meanwhile. KEY is written
    as `strangler cdc parked` shows it.

    \b
    Examples:
      strangler cdc retry catalog catalog_product/17
      strangler cdc retry catalog --all
    """
    if (key is None) != every:
        raise click.UsageError("name a KEY, or give --all")
    plan = session.plan
    with _answers(), ProxyAdmin(plan.proxy_admin, token=os.environ.get(TOKEN_VARIABLE, "")) as admin:
        outcomes = retry_parked(_target(session), stream=plan.stream.slot, mapping=plan.mapping, address=key)
        changed = frozenset(table for each in outcomes if not each.error for table in each.lot.tables)
        if changed:
            _tell_caches(admin, changed)
    show(
        [_outcome(each) for each in outcomes],
        "\n".join(map(_told, outcomes)) or "nothing is parked",
        as_json=as_json,
    )
    refused = [each for each in outcomes if each.error]
    if refused:
        raise SaysNoError(
            f"{len(refused)} of {len(outcomes)} are still refused and wait as before: {refused[0].error}"
        )


@click.command()
@with_session
@click.argument("key")
@yes_option
@json_option
def skip(*, session: Session, key: str, yes: bool, as_json: bool) -> None:
    """Throw away what waits under KEY; the target keeps the row it has. Asks; the ledger records who did it.

    Both sides differ in this row then, until its next whole change: `strangler verify` names it.

    \b
    Example:
      strangler cdc skip catalog catalog_product/17
    """
    with _answers():
        lot = find(_target(session), stream=session.plan.stream.slot, address=key)
        confirm(
            f"These changes are thrown away, and the rows stay as the target has them:\n{_listed([lot])}",
            yes=yes,
        )
        record = session.record()
        if record is not None:  # the intent first: what is thrown away must not be forgotten
            session.ledger.append(
                record,
                event=SKIPPED,
                actor=session.actor,
                detail={"reason": f"skipped {', '.join(lot.addresses)}", "skipped": _as_dict(lot)},
            )
        count = skip_parked(_target(session), lot)
    text = f"{count} changes of {', '.join(lot.addresses)} thrown away"
    if record is None:
        text += "; the migration was never started, so no ledger has this"
    show(
        {"keys": list(lot.addresses), "changes": count, "recorded": record is not None}, text, as_json=as_json
    )


def _tell_caches(admin: ProxyAdmin, changed: frozenset[TableName]) -> None:
    try:
        admin.invalidate(sorted(map(str, changed)))
    except ProxyUnreachableError as error:
        click.echo(f"the proxy's caches could not be told of the change: {error}", err=True)


def _target(session: Session) -> str:
    return variable(session.plan.target.dsn_env, what="the change stream's target")


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NotParkedError as error:
        raise SaysNoError(str(error)) from error
    except BusyError as error:
        raise InTheWayError(str(error)) from error
    except psycopg.OperationalError as error:
        raise NeededError(f"the target database of the change stream: {str(error).strip()}") from error


def _listed(lots: Sequence[Lot]) -> str:
    if not lots:
        return "nothing is parked"
    lines: list[str] = []
    for lot in lots:
        waiting = len(lot.entries) - len(lot.refusals)
        lines.append(
            f"{', '.join(lot.addresses)}: {len(lot.refusals)} refused, {waiting} behind, "
            f"since {lot.parked_at[0].isoformat(timespec='seconds')}"
        )
        lines += [f"  {_why(entry)}" for entry in lot.refusals]
    return "\n".join(lines)


def _why(entry: ParkedChange) -> str:
    refusal = entry.refusal
    assert refusal is not None
    column = f", column {refusal.column}" if refusal.column else ""
    code = f" ({refusal.sqlstate})" if refusal.sqlstate else ""
    return f"{entry.change.operation.value} at {entry.position}{column}: {refusal.reason}{code}"


def _told(each: Retried) -> str:
    keys = ", ".join(each.lot.addresses)
    return f"{keys}: still refused: {each.error}" if each.error else f"{keys}: applied"


def _outcome(each: Retried) -> dict[str, Any]:
    return {"keys": list(each.lot.addresses), "applied": not each.error, "error": each.error}


def _as_dict(lot: Lot) -> dict[str, Any]:
    return {
        "stream": lot.stream,
        "keys": list(lot.addresses),
        "changes": [
            {
                "keys": list(entry.addresses),
                "operation": entry.change.operation.value,
                "position": str(entry.position),
                "commit_time": entry.commit_time.isoformat(),
                "parked_at": moment.isoformat(),
                "sqlstate": entry.refusal.sqlstate if entry.refusal else None,
                "error": entry.refusal.reason if entry.refusal else None,
                "column": entry.refusal.column if entry.refusal else None,
                "before": _row(entry.change.before, entry.change.relation),
                "after": _row(entry.change.after, entry.change.relation),
            }
            for entry, moment in zip(lot.entries, lot.parked_at, strict=True)
        ],
    }


def _row(row: Row | None, relation: Relation) -> Any:
    return json.loads(row_json(row, relation) or "null")
