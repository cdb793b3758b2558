"""The demo: a whole migration of the shop's catalogue, with a fault on the way, judged by its own checks.

    stack up ─► traffic ─► `strangler start` ─► stages … 25 % ─► fault ─► rollback by itself ─► fault healed
    ─► retry by itself ─► … 100 % ─► verify while shoppers go on ─► stack down ─► checks ─► report

The demo does what a person would do (start the plan, break the service, heal it, ask for a verification) and
looks at what comes of it. Everything else is done by the processes it started: nothing here moves traffic.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import httpx
import psycopg

from cdc.pipeline import StreamConfig
from cdc.status import CdcStatus, read_status
from cdc.verify import VerifyError, VerifyReport, verify
from migration_plans.ledger import Entry, LedgerUnreachableError
from migration_plans.plan import load_plan
from migration_plans.stages import Event, State
from workshop import databases, pace
from workshop.checks import Check, run_checks
from workshop.children import group_is_empty
from workshop.facts import (
    Facts,
    Mark,
    TableFacts,
    VerifyFacts,
)
from workshop.faults import RevokedRead
from workshop.observe import Observations, Observer
from workshop.probe import http_ready
from workshop.reckoning import cdc_facts, rollback_facts, shares, stage_runs
from workshop.stack import Stack, StackConfig, bring_up, strangler_command
from workshop.supervisor import StackError, Supervisor
from workshop.traffic.driver import Driver, TrafficConfig
from workshop.traffic.pages import FRONT_PAGE
from workshop.traffic.record import ARMS, Seen, latency, slices
from workshop.traffic.stickiness import Sighting, Timeline, stickiness
from workshop.traffic.visitors import Visitors
from workshop.view import Standing, View

FAULT_STAGE = "ramp 25"
_OF_THE_SOAK = 0.3  # the fault comes after that share of its stage, at the latest
_SERVICE_TABLES = ("category", "product", "picture", "review")
_CATALOGUE_WRITES = frozenset({"change price", "write review"})
# what ends the play early; the checks still judge what was seen
_TROUBLE = (TimeoutError, StackError, VerifyError, LedgerUnreachableError, psycopg.Error, httpx.HTTPError)
_BETWEEN_COMPARISONS = 0.4
_SLICE_SECONDS = 0.1
# Answers that say nothing of the side a user belongs to: no group's, and those of the owner to who has just written.
_NO_SIDE = ("none", "guarded")
_RECENT_SECONDS = 3.0
_CLOCK_SLACK = 0.02
_EASE_EVERY = 3.0  # time for the queue to shrink before it is judged again


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """`stack` is what runs; the rest is the story's timing (seconds) and size.

    `rate` is in requests a second; None: what this machine's monolith can take, see workshop.pace, and less
    when the machine gets slower. The last three say how long the demo waits for a stage, for the rollback and
    for a shopper to write while it compares: many times what they need, so that a run fails for what it shows
    and not for a slow machine.
    """

    stack: StackConfig
    rate: float | None = None
    baseline: float = 3.0
    soaked_before_fault: float = 2.0
    fault_lasts: float = 2.0
    compare_for: float = 3.0
    deadline: float = 180.0
    rollback_within: float = 60.0
    written_within: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    facts: Facts
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return all(check.passed for check in self.checks)


class InterruptedDemoError(Exception):
    """Somebody ended the demo; everything it started has been stopped."""


async def run(config: DemoConfig, view: View, *, started: float) -> Outcome:
    """Run the demo and judge it. Everything it starts has ended when this returns or raises.

    Raises StackError or InvalidFileError when the stack does not come up, InterruptedDemoError on SIGINT or
    SIGTERM.
    """
    story = _Story(started=started, view=view)
    supervisor = Supervisor(tell=lambda happening: story.tell("stack", happening.text))
    interrupted = _cancel_on_signals()
    performance: _Performance | None = None
    try:
        stack = await bring_up(config.stack, supervisor)
        story.tell("note", f"the shop is open at {stack.shop_url}")
        performance = _Performance(config, stack, supervisor, story)
        try:
            await performance.calibrate()
            await performance.play()
        except* _TROUBLE as failures:
            story.trouble = "; ".join(str(error).strip() for error in _leaves(failures))
            story.tell("failed", story.trouble.splitlines()[0])
    except asyncio.CancelledError:
        if not interrupted():
            raise
        raise InterruptedDemoError from None
    finally:
        left = await _stop(supervisor, story)
    facts = performance.facts(left)
    return Outcome(facts, run_checks(facts))


@dataclass(slots=True)
class _Story:
    """What happened and when; grows while the demo runs."""

    started: float
    view: View
    marks: list[Mark] = field(default_factory=list)
    fault_from: float | None = None
    fault_at: float | None = None
    healed_at: float | None = None
    verify: VerifyFacts | None = None
    trouble: str = ""
    finished: bool = False

    def tell(self, kind: str, text: str) -> None:
        """Show an event; all but the stack's own are marks of the report."""
        mark = Mark(at=time.time(), kind=kind, text=text)
        if kind != "stack":
            self.marks.append(mark)
        self.view.happened(mark)


class _Performance:
    """The part between stack up and stack down: traffic, observer, view, and the script they play to."""

    def __init__(self, config: DemoConfig, stack: Stack, supervisor: Supervisor, story: _Story) -> None:
        self._config = config
        self._stack = stack
        self._supervisor = supervisor
        self._story = story
        self._plan = load_plan(
            config.stack.plan,
            settings=config.stack.plan_settings,
            routes=stack.routes,
            proxy_admin=stack.admin_url,
        )
        ports = config.stack.ports
        rate = config.rate or pace.GREATEST_RATE
        traffic = TrafficConfig(
            "127.0.0.1", ports.proxy, rate=rate, think=pace.think(rate), seed=config.stack.seed.seed
        )
        self._rate = rate
        self._visitors = Visitors(stack.demo_password, config.stack.seed)
        self._driver = Driver(traffic, self._visitors.next)
        self._observer = Observer(
            plan=self._plan.name,
            group=self._plan.group,
            ledger_dsn=stack.environment["STRANGLER_LEDGER_DSN"],
            admin_url=stack.admin_url,
            read_cdc=self._read_cdc,
            tell=self._tell_entry,
        )
        self._fault = RevokedRead(
            databases.in_database(stack.admin_dsn, "catalog"), "catalog", _SERVICE_TABLES
        )

    async def calibrate(self) -> None:
        """Choose the rate, unless one was asked for, so that the monolith alone can carry it with ease."""
        if self._config.rate is not None:
            return
        ports = self._config.stack.ports
        seconds = await asyncio.to_thread(pace.seconds_a_request, f"http://127.0.0.1:{ports.proxy}")
        rate = pace.fitting_rate(seconds)
        self._driver.config = replace(self._driver.config, rate=rate, think=pace.think(rate))
        self._story.tell(
            "note", f"the monolith takes {1000 * seconds:.0f} ms for a request: {rate:.0f} requests/s suit it"
        )

    async def play(self) -> None:
        """Play the script to its end. What runs beside it is ended with it, whatever happens."""
        self._rate = self._driver.config.rate
        # a shop may have an API alone
        self._visitors.pages = await http_ready(self._config.stack.ports.proxy, FRONT_PAGE)() is None
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(work)
                for work in (
                    self._supervisor.watch(all_essential=True),
                    self._observer.run(),
                    self._show(),
                    self._ease(),
                )
            ]
            traffic = group.create_task(self._driver.run())
            await self._script()
            self._driver.stop()
            await traffic
            for task in beside:
                task.cancel()

    async def _script(self) -> None:
        config, story, observer = self._config, self._story, self._observer
        await asyncio.sleep(config.baseline)
        story.tell("note", f"{self._driver.record.total} requests so far, all answered by the monolith")
        await self._strangler("start", str(config.stack.plan), "--yes")

        await observer.until(_soaking_at(FAULT_STAGE), within=config.deadline, what=f"stage {FAULT_STAGE}")
        soak = next(each.policy.soak for each in self._plan.stages if each.stage.name == FAULT_STAGE)
        # early enough that the stage is still on when shoppers meet the fault
        await asyncio.sleep(min(config.soaked_before_fault, _OF_THE_SOAK * soak))
        async with self._faulty():
            await observer.until(
                _in_state(State.ROLLED_BACK), within=config.rollback_within, what="the rollback by itself"
            )
            await asyncio.sleep(config.fault_lasts)
        await observer.until(_in_state(State.DONE), within=config.deadline, what="the last stage")
        story.finished = True

        await self._compare()

    async def _compare(self) -> None:
        """Compare again and again for a while, so that shoppers certainly write into what is compared."""
        story = self._story
        story.tell("note", "comparing both databases row by row while shoppers go on")
        began, runs = time.time(), 0
        differing: Counter[str] = Counter()
        while True:
            report = await asyncio.to_thread(self._verify)
            runs += 1
            for name, table in report.tables.items():
                differing[str(name)] = max(differing[str(name)], table.differing)
            writes = sum(
                seen.step in _CATALOGUE_WRITES and 200 <= seen.status < 300 and seen.sent >= began
                for seen in self._driver.record.seen
            )
            took = time.time() - began
            if took >= (self._config.compare_for if writes else self._config.written_within):
                break
            await asyncio.sleep(_BETWEEN_COMPARISONS)
        tables = {
            str(name): TableFacts(rows=table.rows, differing=differing[str(name)])
            for name, table in report.tables.items()
        }
        story.verify = VerifyFacts(
            position=str(report.position), tables=tables, writes_meanwhile=writes, runs=runs
        )
        rows = sum(table.rows for table in tables.values())
        story.tell("verified", f"verified: {differing.total()} of {rows} rows differ at {report.position}")

    @asynccontextmanager
    async def _faulty(self) -> AsyncIterator[None]:
        """The service is broken inside the block, and healed after it whatever happens."""
        story = self._story
        try:
            story.fault_from = time.time()
            await asyncio.to_thread(self._fault.inject)
            story.fault_at = time.time()
            story.tell("fault", f"fault: {self._fault.name}: its every query fails")
            yield
        finally:
            await asyncio.shield(asyncio.to_thread(self._fault.heal))
            story.healed_at = time.time()
            story.tell("healed", "the fault is healed")

    async def _strangler(self, *arguments: str) -> None:
        """Run a command of `strangler` as a person would. Raises StackError with what it said."""
        self._story.tell("note", f"$ strangler {arguments[0]} {Path(arguments[1]).stem}")
        process = await asyncio.create_subprocess_exec(
            *strangler_command(arguments),
            env={**os.environ, **self._stack.environment, "STRANGLER_ACTOR": "demo"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode:
            raise StackError(
                f"`strangler {' '.join(arguments)}` ended with exit code {process.returncode}: "
                f"{output.decode().strip()}"
            )

    def _stream(self) -> StreamConfig:
        plan = self._plan
        return StreamConfig(
            slot=plan.stream.slot,
            publication=plan.stream.publication,
            mapping=plan.mapping,
            source_dsn=self._stack.environment[plan.source.dsn_env],
            target_dsn=self._stack.environment[plan.target.dsn_env],
        )

    def _verify(self) -> VerifyReport:
        return verify(self._stream())

    def _read_cdc(self) -> CdcStatus | None:
        return read_status(self._stack.environment[self._plan.target.dsn_env], stream=self._plan.stream.slot)

    def _tell_entry(self, entry: Entry) -> None:
        match entry.event:
            case Event.START:
                self._story.tell("note", f"started by {entry.actor}")
            case Event.ENTERED:
                self._story.tell("stage", entry.stage)
            case Event.TRIPPED:
                self._story.tell("rollback", f"rolled back: {entry.detail.get('reason', '')}")
            case Event.AT_ZERO:
                took = float(entry.detail.get("actuation_ms") or 0)
                self._story.tell("note", f"0 % in every worker, {took:.0f} ms after the deciding response")
            case Event.RETRY:
                self._story.tell("note", f"retry: {entry.detail.get('reason', '')}")
            case Event.FINISHED:
                self._story.tell("done", "every stage has passed")
            case "verified":
                self._story.tell("note", "both sides were compared row by row")
            case Event.PASSED | "controller_started":
                pass
            case other:
                self._story.tell("note", f"{other}: {entry.detail.get('reason', '')}")

    async def _ease(self) -> None:
        """Ask for less, unless a rate was asked for, when the machine has become slower.

        An open schedule would pile up requests until they time out, and shoppers would see errors that are
        not the migration's.
        """
        while self._config.rate is None:
            await asyncio.sleep(0.5)
            waiting, rate = self._driver.under_way, self._driver.config.rate
            eased = pace.eased(rate, waiting=waiting)
            if eased < rate:
                self._driver.config = replace(self._driver.config, rate=eased)
                self._story.tell(
                    "note", f"{waiting} requests wait for answers: {eased:.0f} requests/s from now on"
                )
                await asyncio.sleep(_EASE_EVERY)

    async def _show(self) -> None:
        while True:
            self._story.view.stand(self._standing())
            await asyncio.sleep(0.25)

    def _standing(self) -> Standing:
        seen, record = self._observer.seen, self._driver.record
        since = time.time() - _RECENT_SECONDS
        recent = list(takewhile(lambda item: item.answered >= since, reversed(record.seen)))
        # writes are the owner's at every percentage and would blur the picture
        arms = Counter(item.arm for item in recent if item.safe)
        lag = seen.lag[-1].seconds if seen.lag else None
        return Standing(
            stages=self._plan.stage_names,
            stage=seen.record.stage if seen.record is not None else 0,
            state=seen.record.state.value if seen.record is not None else "not started",
            percent=float(seen.percent),
            control=arms["control"] + arms["guarded"],
            canary=arms["canary"],
            fallback=arms["fallback"],
            total=record.total,
            shopper_errors=len(record.faults),
            rate=len(recent) / _RECENT_SECONDS,
            lag_ms=None if lag is None else 1000 * lag,
        )

    def facts(self, left: Sequence[str]) -> Facts:
        """What the run came to, once everything has ended."""
        story, record, seen = self._story, self._driver.record, self._observer.seen
        timeline = Timeline(seen.changes)
        safe = [item for item in record.seen if item.safe and item.identity and item.arm not in _NO_SIDE]
        sightings = [_sighting(item) for item in safe if item.arm != "fallback"]
        # whom the monolith answered in the service's place had been sent to the service
        assigned = [_sighting(item) for item in safe]
        ended = time.time()
        return Facts(
            started=story.started,
            seconds=ended - story.started,
            finished=story.finished,
            trouble=story.trouble,
            planned_stages=self._plan.stage_names,
            stages=tuple(stage_runs(seen.history, ended=ended)),
            fault_at=story.fault_at,
            healed_at=story.healed_at,
            rollback=rollback_facts(
                seen, fault_from=story.fault_from, client_window=self._plan.limits.client_window
            ),
            total=record.total,
            rate=self._rate,
            rate_at_end=self._driver.config.rate,
            by_arm={arm: record.by_arm[arm] for arm in ARMS},
            by_status={str(status): count for status, count in sorted(record.by_status.items())},
            faults=tuple(record.faults),
            steps=dict(record.by_step.most_common()),
            latency={arm: latency(item for item in record.seen if item.arm == arm) for arm in ARMS},
            slices=tuple(slices(record.seen, width=_SLICE_SECONDS)),
            stickiness=stickiness(sightings, timeline),
            shares=tuple(shares(assigned, timeline)),
            verify=story.verify,
            cdc=cdc_facts(seen),
            lag=tuple(seen.lag),
            splits=tuple((change.first, float(change.percent)) for change in seen.changes),
            marks=tuple(story.marks),
            stream_breaks=seen.stream_breaks,
            left_running=tuple(left),
        )


def _sighting(item: Seen) -> Sighting:
    return Sighting(
        identity=item.identity,
        side="control" if item.arm == "control" else "canary",
        sent=item.sent - _CLOCK_SLACK,
        answered=item.answered + _CLOCK_SLACK,
    )


def _soaking_at(stage: str) -> Callable[[Observations], bool]:
    def holds(seen: Observations) -> bool:
        record = seen.record
        return record is not None and record.state is State.SOAKING and record.stage_name == stage

    return holds


def _in_state(state: State) -> Callable[[Observations], bool]:
    return lambda seen: seen.record is not None and seen.record.state is state


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _cancel_on_signals() -> Callable[[], bool]:
    """Cancel this task on the first SIGINT or SIGTERM; returns whether that has happened."""
    task = asyncio.current_task()
    assert task is not None
    seen: list[int] = []

    def end(number: int) -> None:
        if not seen:
            task.cancel()
        seen.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return lambda: bool(seen)


async def _stop(supervisor: Supervisor, story: _Story) -> list[str]:
    """Stop everything; the names of what is still there afterwards (nothing, if all is well)."""
    groups = {unit.name: unit.pid for unit in supervisor.units if unit.pid is not None}
    left: list[str] = []
    try:
        await supervisor.stop()
    except StackError as error:
        story.tell("failed", error.message)
        left.append(error.message)
    left.extend(f"{name} (group {group})" for name, group in groups.items() if not group_is_empty(group))
    return left
