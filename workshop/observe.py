"""What can be seen of a migration from outside: the ledger, the proxy's outcome stream, the change stream.

The observer only looks. The controller decides on the same stream of outcomes, but nothing here is taken from
it: how many failed requests it needed and how long the way back took are measured again, independently.

    ledger (polled)        ─► Event      what was decided, by whom
    outcome stream (pushed)─► Change     which percentage held in which worker from when
                           ─► Outcome    every request of the group, good or bad, in the proxy's order
    status tables (polled) ─► LagSample  how far behind the service's data are
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from cdc.meter import quantile
from cdc.status import CdcStatus
from migration_plans.ledger import Entry, Ledger
from migration_plans.outcomes import Arm, Bad, Good, read_items
from migration_plans.record import Record
from workshop.traffic.stickiness import Change

_LEDGER_POLL = 0.1
_LAG_POLL = 0.5


@dataclass(frozen=True, slots=True)
class LagSample:
    """How far the change stream was behind at `at` (seconds since 1970); None where it could not tell.

    `commit_to_applied_ms` is the 99th percentile of what was applied since the sample before it.
    """

    at: float
    seconds: float | None
    bytes: int | None
    commit_to_applied_ms: float | None


@dataclass(frozen=True, slots=True)
class CanaryOutcome:
    """Requests of the canary in the proxy's order: `count` good ones, or one failed at `at_ns`.

    `percent` is what the group stood at when they were routed, `client` an opaque name of whoever failed.
    """

    count: int
    failed: bool
    percent: Decimal
    at_ns: int = 0
    client: str = ""


@dataclass(frozen=True, slots=True)
class Detection:
    """Canary requests that a rollback took, up to the deciding one, which is counted.

    `trials`: since the last good answer, and one for each client: what the controller's test can count.
    `since_last_good`: the same with every repetition. `since_first_failure`: all of them from the first failure
    on, with good answers that were under way when the service broke.
    """

    trials: int
    since_last_good: int
    since_first_failure: int


@dataclass(slots=True)
class Observations:
    """All that was seen so far.

    `latencies_before`: the change stream's histogram when the first percentage rose. What was written during the
    snapshot has to wait for its end, and nobody sees it late.
    """

    record: Record | None = None
    history: list[Entry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    percent: Decimal = Decimal(0)
    canary: list[CanaryOutcome] = field(default_factory=list)
    lag: list[LagSample] = field(default_factory=list)
    cdc: CdcStatus | None = None
    latencies_before: tuple[int, ...] = ()
    stream_breaks: int = 0

    def watch_gauge(self) -> str:
        """State and stage in a few words."""
        if self.record is None:
            return "not started"
        return f"{self.record.stage_name}: {self.record.state.value}"


class Observer:
    """Looks at one migration until its task is cancelled.

    `read_cdc` asks for the change stream's status (it blocks, and is called in a thread); None when there is
    no stream yet. `tell` is called with each new entry of the ledger.
    """

    def __init__(
        self,
        *,
        plan: str,
        group: str,
        ledger_dsn: str,
        admin_url: str,
        read_cdc: Callable[[], CdcStatus | None],
        tell: Callable[[Entry], None],
    ) -> None:
        self._plan = plan
        self._group = group
        self._ledger_dsn = ledger_dsn
        self._admin_url = admin_url
        self._read_cdc = read_cdc
        self._tell = tell
        self._latencies: tuple[int, ...] = ()
        self.seen = Observations()

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_ledger())
            group.create_task(self._follow_outcomes())
            group.create_task(self._follow_lag())

    async def until(self, condition: Callable[[Observations], bool], *, within: float, what: str) -> None:
        """Return when `condition` holds. Raises TimeoutError that says what is so instead."""
        deadline = time.monotonic() + within
        while not condition(self.seen):
            if time.monotonic() > deadline:
                record = self.seen.record
                reason = f" ({record.reason})" if record is not None and record.reason else ""
                raise TimeoutError(
                    f"waited {within:g} s for {what}; the migration is at {self.seen.watch_gauge()}{reason}"
                )
            await asyncio.sleep(_LEDGER_POLL / 2)

    async def _follow_ledger(self) -> None:
        with Ledger(self._ledger_dsn) as ledger:
            while True:
                record, history = await asyncio.to_thread(self._read_ledger, ledger)
                fresh = history[len(self.seen.history) :]
                self.seen.history.extend(fresh)
                self.seen.record = record
                for entry in fresh:
                    self._tell(entry)
                await asyncio.sleep(_LEDGER_POLL)

    def _read_ledger(self, ledger: Ledger) -> tuple[Record | None, list[Entry]]:
        record = ledger.read(self._plan)
        return record, ledger.history(self._plan) if record is not None else []

    async def _follow_lag(self) -> None:
        while True:
            status = await asyncio.to_thread(self._read_cdc)
            self.seen.cdc = status
            if status is not None:
                self._take_lag(status)
            await asyncio.sleep(_LAG_POLL)

    def _take_lag(self, status: CdcStatus) -> None:
        before = self._latencies or (0,) * len(status.latencies)
        fresh = [now - then for now, then in zip(status.latencies, before, strict=True)]
        self._latencies = status.latencies
        if not any(change.percent for change in self.seen.changes):
            self.seen.latencies_before = status.latencies
        self.seen.lag.append(
            LagSample(
                at=time.time(),
                seconds=status.lag_seconds,
                bytes=status.lag_bytes,
                # the histogram only grows, save when the stream begins anew
                commit_to_applied_ms=quantile(fresh, 0.99) if min(fresh) >= 0 else None,
            )
        )

    async def _follow_outcomes(self) -> None:
        async with httpx.AsyncClient(base_url=self._admin_url, timeout=5.0) as client:
            while True:
                try:
                    async with client.stream("GET", "/admin/outcomes/stream") as response:
                        response.raise_for_status()
                        async for line in response.aiter_lines():
                            await self._take_line(client, json.loads(line))
                except httpx.HTTPError:
                    # what the proxy did meanwhile is not known: counted, and a check fails on it
                    self.seen.stream_breaks += 1
                    await asyncio.sleep(_LEDGER_POLL)

    async def _take_line(self, client: httpx.AsyncClient, line: Mapping[str, Any]) -> None:
        match line["type"]:
            case "batch" if line["group"] == self._group:
                self._take_batch(line)
            case "hello" | "version":
                await self._take_status(client)
            case _:
                pass

    def _take_batch(self, line: Mapping[str, Any]) -> None:
        for outcome in read_items(line["items"]):
            if outcome.arm is not Arm.CANARY:
                continue
            match outcome:
                case Good(count=count, percent=percent):
                    self.seen.canary.append(CanaryOutcome(count=count, failed=False, percent=percent))
                case Bad(at_ns=at_ns, client=client, percent=percent):
                    self.seen.canary.append(
                        CanaryOutcome(1, failed=True, percent=percent, at_ns=at_ns, client=client)
                    )

    async def _take_status(self, client: httpx.AsyncClient) -> None:
        """Learn which percentage the running version means, and since when each worker runs it."""
        status = (await client.get("/admin/status")).json()
        version = status["version"]
        workers = [worker for worker in status["workers"] if worker["version"] == version]
        if len(workers) < len(status["workers"]):
            return  # another `version` line follows when the last worker has it
        percent = Decimal(str(status["groups"][self._group]["percent"]))
        change = Change(
            first=min(worker["since_ns"] for worker in workers) / 1e9,
            last=max(worker["applied_at_ns"] for worker in workers) / 1e9,
            percent=percent,
        )
        if not self.seen.changes or self.seen.changes[-1].percent != percent:
            self.seen.changes.append(change)
        self.seen.percent = percent


def detection(
    canary: Sequence[CanaryOutcome],
    *,
    percent: Decimal,
    since_ns: int,
    decided_ns: int,
    client_window: float,
) -> Detection:
    """What the rollback decided at `decided_ns` took of the failures from `since_ns` on.

    Requests routed at another percentage are evidence of another stage and left out. A client's failures within
    `client_window` seconds of one that counted are repetitions: one fact about the service, not several. A good
    answer begins the count anew: the service was not failing every request yet.
    """
    trials = since_last_good = since_first = 0
    counted: dict[str, int] = {}
    for outcome in canary:
        if outcome.percent != percent or (outcome.failed and outcome.at_ns < since_ns):
            continue
        if not outcome.failed:
            trials = since_last_good = 0
            since_first += outcome.count if since_first else 0
            continue
        since_first += 1
        since_last_good += 1
        before = counted.get(outcome.client)
        if before is None or outcome.at_ns - before >= client_window * 1e9:
            counted[outcome.client] = outcome.at_ns
            trials += 1
        if outcome.at_ns >= decided_ns:
            break
    return Detection(trials=trials, since_last_good=since_last_good, since_first_failure=since_first)
