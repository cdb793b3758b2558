"""Alerts: telling people what the ledger already says.

The history is the outbox. An event worth waking somebody for is alerted because it is in the history and no
delivery of it is recorded; so an alert survives a crash of whoever wanted to send it, and the rollback
never waits for one. Each attempt is written down (`ledger.delivery`), a target gets `ATTEMPTS` of them.
"""

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import structlog

from migration_plans.actions import PUT_ASIDE
from migration_plans.alarms import CLEARED, RAISED
from migration_plans.ledger import Entry, Ledger
from migration_plans.plan import AlertTarget, Plan
from migration_plans.stages import Event

ATTEMPTS = 3
ALERTED: tuple[str, ...] = (
    Event.TRIPPED,
    Event.ROLLBACK,
    Event.AT_ZERO,
    Event.BOTH_ARMS_FAIL,
    Event.GATE_FAILED,
    Event.ACTION_FAILED,
    Event.EDITED,
    Event.RETRY,
    Event.FINISHED,
    PUT_ASIDE,
    RAISED,
    CLEARED,
)
_OLDEST = timedelta(hours=1)
_TIMEOUT = 5.0


class DeliveryError(Exception):
    """One attempt to deliver one alert failed."""


def deliver_due(
    ledger: Ledger, plan: Plan, *, now: datetime | None = None, stop: threading.Event | None = None
) -> int:
    """Try once to deliver every alert that is due; none more once `stop` is set. Returns how many were delivered.

    Events older than an hour are history, not news. Raises LedgerUnreachableError.
    """
    oldest = ((now or datetime.now(UTC)) - _OLDEST).isoformat(timespec="microseconds")
    delivered = 0
    for target in plan.alerts:
        for entry in ledger.undelivered(plan.name, events=ALERTED, target=target.name, attempts=ATTEMPTS):
            if stop is not None and stop.is_set():
                return delivered  # what is due stays due in the ledger
            if entry.at < oldest:
                continue
            try:
                detail = deliver(target, alert(plan, entry))
            except DeliveryError as error:
                _log().warning(
                    "alert not delivered", target=target.name, event_seq=entry.seq, reason=str(error)
                )
                ledger.record_delivery(
                    plan.name, seq=entry.seq, target=target.name, delivered=False, detail=str(error)
                )
                break  # later alerts of this target wait for the earlier one's next attempt
            ledger.record_delivery(
                plan.name, seq=entry.seq, target=target.name, delivered=True, detail=detail
            )
            delivered += 1
    return delivered


def alert(plan: Plan, entry: Entry) -> dict[str, Any]:
    """What a webhook and a command are given: the event, in one sentence and in full."""
    reason = entry.detail.get("reason", "")
    return {
        "title": f"{plan.name}: {entry.event} in {entry.stage}, now {entry.state} at {entry.percent} %",
        "text": reason,
        "migration": plan.name,
        **entry.as_dict(),
    }


def deliver(target: AlertTarget, body: Mapping[str, Any]) -> str:
    """One attempt. Returns what the target answered. Raises DeliveryError."""
    if target.log:
        _log().warning("alert", **{key: body[key] for key in ("title", "text", "migration", "seq")})
        return "logged"
    if target.command:
        return _run(target.command, body)
    url = target.webhook or os.environ.get(target.webhook_env, "")
    if not url:
        raise DeliveryError(f"the environment variable {target.webhook_env} is not set")
    try:
        response = httpx.post(url, json=dict(body), timeout=_TIMEOUT)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # the address may hold a secret: name the kind of failure, not the address
        status = f" {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else ""
        raise DeliveryError(f"{type(error).__name__}{status}") from error
    return f"status {response.status_code}"


def _run(command: tuple[str, ...], body: Mapping[str, Any]) -> str:
    try:
        done = subprocess.run(
            list(command),
            input=json.dumps(body),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeliveryError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise DeliveryError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return "exit 0"


def _log() -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("strangler.alerts")
    return logger
