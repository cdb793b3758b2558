"""The controller: the loop that walks a plan's stages.

One *turn*: read the ledger, look at the world, ask next_event.py, write the event into the ledger, ask
reconcile.py, do the actions. Nothing is remembered between turns that matters: a controller killed at any
point is replaced by one that turns. What is remembered (the evidence of monitor.py) only ever makes it wait
longer when it is lost.

Beside the turns run: the proxy's outcome stream, which may rule a rollback between two turns; the change
stream's signals; comparison of both sides when a gate wants one; probing before an automatic retry; alerts.
All of them end with the controller.

Intent first, with one exception: when the ledger does not answer within `_LEDGER_PATIENCE`, an automatic
rollback goes ahead and is written down afterwards. Sending requests to the monolith is always safe; waiting
is not.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog

from cdc.meter import Phase
from chassis.problems import InvalidFileError
from migration_plans import alarms
from migration_plans.actions import PUT_ASIDE, Sight, World, look, perform
from migration_plans.alerts import deliver_due
from migration_plans.drivers.change_stream import ChangeStreamError, PreflightRefusedError
from migration_plans.gates import (
    GateResult,
    ProxySignal,
    Signals,
    SlotSignal,
    StreamSignal,
    VerifySignal,
    evaluate,
)
from migration_plans.ledger import ConflictError, Ledger, LedgerUnreachableError
from migration_plans.monitor import Monitor
from migration_plans.next_event import Evidence, Move, Probe, next_move, retry_is_due
from migration_plans.plan import Plan
from migration_plans.proxy_admin import Batch, Hello, ProxyAdmin, ProxyUnreachableError, ReloadRefusedError
from migration_plans.reconcile import Action, Prepare, SetPercent, reconcile, to_zero
from migration_plans.record import Record, after
from migration_plans.rollback import Ruling, Verdict
from migration_plans.stages import GUARDED, Event, GateName, Stage, State

_LEDGER_PATIENCE = 0.1
_COPYING = Phase.SNAPSHOT.value


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two turns, two looks at the change stream and at its slot, two probes, two tries of what
    failed.
    """

    turn: float = 0.2
    stream: float = 0.5
    slot: float = 2.0
    probe: float = 0.5
    again: float = 2.0


class PlanChangedError(Exception):
    """The plan's stages are not those the migration was started with."""


@dataclass(slots=True)
class Controller:
    """Walks `plan`. `ledger` is for turns, `side_ledger` a second connection for what must not hold them up.

    `now` gives Unix seconds. Call `run` once.
    """

    plan: Plan
    ledger: Ledger
    side_ledger: Ledger
    world: World
    outcomes: ProxyAdmin
    actor: str = "controller"
    pace: Pace = field(default_factory=Pace)
    now: Callable[[], float] = time.time
    monitor: Monitor = field(init=False)
    _turning: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _record: Record | None = field(default=None, init=False)
    _sight: Sight | None = field(default=None, init=False)
    _gates: tuple[GateResult, ...] = field(default=(), init=False)
    _gates_version: int = field(default=0, init=False)
    _stream: StreamSignal | None = field(default=None, init=False)
    _slot: SlotSignal | None = field(default=None, init=False)
    _good_probes: int = field(default=0, init=False)
    _probe: Probe | None = field(default=None, init=False)
    _unwritten: Move | None = field(default=None, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _put_aside: str = field(default="", init=False)
    _said: dict[str, str] = field(default_factory=dict, init=False)
    _log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.plan.limits)
        self._log = structlog.get_logger("strangler.controller").bind(migration=self.plan.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Turn until `stop` is set.

        Raises LockedError when there is a controller already, PlanChangedError, LedgerUnreachableError at
        the start.
        """
        await asyncio.to_thread(self.ledger.install)
        await asyncio.to_thread(self.ledger.acquire, self.plan.name)
        try:
            await asyncio.to_thread(self._begin)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work())
                    for work in (
                        self._turns,
                        self._follow_outcomes,
                        self._follow_stream,
                        self._follow_slot,
                        self._compare_when_wanted,
                        self._probe_when_wanted,
                        self._publish,
                        self._alert,
                    )
                ]
                await stop.wait()
                self._stopping.set()
                async with self._turning:  # what a turn has begun is finished
                    for task in tasks:
                        task.cancel()
        finally:
            with contextlib.suppress(LedgerUnreachableError):  # then PostgreSQL has freed the lock already
                await asyncio.to_thread(self.ledger.release, self.plan.name)
        self._log.info("controller stopped")

    def _begin(self) -> None:
        """Write down that a controller runs; the tests it begins are charged to the budget."""
        record = self.ledger.read(self.plan.name)
        if record is None:
            return
        check_stages(self.plan, record)
        guarded = record.state in GUARDED and record.percent > 0
        record = replace(record, tests=record.tests + guarded, plan_digest=self.plan.digest)
        self.ledger.append(
            record, event="controller_started", actor=self.actor, detail={"plan_digest": self.plan.digest}
        )

    # -- turns ---------------------------------------------------------------------------------------------------

    async def _turns(self) -> None:
        while True:
            moved = await self.turn()
            await asyncio.sleep(0 if moved else self.pace.turn)

    async def turn(self) -> bool:
        """One turn. Returns whether something happened, so that the next turn should follow at once."""
        async with self._turning:
            try:
                moved = await asyncio.to_thread(self._turn)
            except (ConflictError, LedgerUnreachableError) as error:
                self._say("ledger", str(error))
                return False
            self._say("ledger", "")
            return moved

    def _turn(self) -> bool:
        record = self.ledger.read(self.plan.name)
        self._record = record
        if record is None or record.state is State.PLANNED:
            return False
        if self._unwritten is not None:
            record = self._write_late(record)
        record = self._write_alarms(self._void_verification(self._write_put_aside(record)))
        check_stages(self.plan, record)
        sight = self._sight = look(self.world, self.plan.group)
        self._say("routes", sight.file_problem)
        self._say("proxy", sight.proxy_problem)
        self._watch(record)
        self._gates, self._gates_version = self.gates(record), record.version
        evidence = Evidence(gates=self._gates, verdict=self.monitor.verdict(), probe=self._probe)
        move = next_move(
            record, self._stage(record), sight.observed, evidence, retry=self.plan.retry, now=self.now()
        )
        if move is not None:
            record = self._write(record, move)
        return self._act(record, sight) or move is not None

    def _act(self, record: Record, sight: Sight) -> bool:
        """Do what reconcile asks for; whether anything was done."""
        done = False
        for action in reconcile(record, self.plan_stages, sight.observed):
            try:
                raises = isinstance(action, SetPercent) and action.percent > (
                    sight.observed.file_percent or 0
                )
                # nobody shall raise traffic on the strength of a record that a person has just overruled
                with self.ledger.guard(record) if raises else contextlib.nullcontext():
                    self._perform(action)
            except (InvalidFileError, ReloadRefusedError, ProxyUnreachableError, ChangeStreamError) as error:
                self._say(f"action {type(action).__name__}", str(error))
                return done
            except PreflightRefusedError as error:
                self._write(record, Move(Event.ACTION_FAILED, str(error)))
                return True
            self._say(f"action {type(action).__name__}", "")
            done = True
            record = self._write_put_aside(record)
            if isinstance(action, Prepare):
                evidence = Evidence(prepared=True)
                move = next_move(
                    record,
                    self._stage(record),
                    sight.observed,
                    evidence,
                    retry=self.plan.retry,
                    now=self.now(),
                )
                if move is not None:
                    self._write(record, move)
        return done

    def _write(self, record: Record, move: Move) -> Record:
        """Record the event. Raises ConflictError, RefusedError."""
        follower = after(
            record,
            move.event,
            stages=self.plan_stages,
            now=self.now(),
            reason=move.reason,
            percent=move.percent,
            tripped_at_ns=move.tripped_at_ns,
        )
        written = self.ledger.append(
            follower, event=move.event.value, actor=self.actor, detail={**move.detail, "reason": move.reason}
        )
        self._record = written
        self._log.info("event", kind=move.event.value, state=written.state.value, stage=written.stage_name,
                       percent=str(written.percent), reason=move.reason)  # fmt: skip
        self._watch(written)
        self._good_probes, self._probe = 0, None
        return written

    def _watch(self, record: Record) -> None:
        """Point the monitor at what the ledger says shoppers get."""
        percent = record.percent if record.state in GUARDED else Decimal(0)
        self.monitor.watch_for(percent=percent, test=record.tests, steady=record.state is State.DONE)

    @property
    def plan_stages(self) -> list[Stage]:
        """The plan's stages without their gates."""
        return [planned.stage for planned in self.plan.stages]

    def _stage(self, record: Record) -> Stage:
        return self.plan.stages[record.stage].stage

    # -- evidence ------------------------------------------------------------------------------------------------

    def gates(self, record: Record) -> tuple[GateResult, ...]:
        """The gates of the present stage, on what is known now."""
        planned = self.plan.stages[record.stage]
        return evaluate(planned.stage, planned.policy, self._signals(record))

    def _signals(self, record: Record) -> Signals:
        now = self.now()
        sight, proxy = self._sight, None
        if sight is not None and not sight.proxy_problem:
            connected = self.monitor.connected_since
            since = sight.observed.live_since_ns
            live = (
                [since / 1e9, record.stage_since, connected]
                if since is not None and connected is not None
                else []
            )
            proxy = ProxySignal(
                at=now,
                workers=sight.observed.workers,
                workers_live=sight.observed.workers_live,
                live_percent=sight.live_percent,
                live_since=max(live) if live else None,
                stream_connected=connected is not None,
            )
        verify = None
        if record.verified is not None:
            verify = VerifySignal(
                at=record.verified["at"],
                position=record.verified["position"],
                rows=record.verified["rows"],
                differing=record.verified["differing"],
            )
        return Signals(
            now=now,
            proxy=proxy,
            stream=self._stream,
            verify=verify,
            canary=self.monitor.canary(),
            entered_at=record.since if record.state is State.SOAKING else None,
        )

    async def _follow_outcomes(self) -> None:
        while True:
            try:
                async for line in self.outcomes.stream():
                    now = self.now()
                    match line:
                        case Hello():
                            self.monitor.connected(now)
                            self._say("outcomes", "")
                        case Batch(group=self.plan.group, outcomes=outcomes):
                            self.monitor.heard_at = now
                            for outcome in outcomes:
                                verdict = self.monitor.take(outcome)
                                if verdict is not None and verdict.ruling is not Ruling.KEEP:
                                    await self._rule(verdict)
                        case _:
                            self.monitor.heard_at = now
            except ProxyUnreachableError as error:
                self.monitor.disconnected()
                self._say("outcomes", str(error))
            await asyncio.sleep(self.pace.turn)

    async def _rule(self, verdict: Verdict) -> None:
        """A verdict between two turns: a rollback cannot wait for the next one."""
        record = self._record
        if record is None or record.state not in GUARDED:
            return
        if verdict.ruling is not Ruling.ROLLBACK:
            await self.turn()
            return
        at_ns = verdict.deciding.at_ns if verdict.deciding else None
        move = Move(Event.TRIPPED, verdict.reason, {"verdict": verdict.as_dict()}, tripped_at_ns=at_ns)
        async with self._turning:
            if self._unwritten or self._record is None or self._record.version != record.version:
                return  # a turn has seen the same verdict first
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, record, move))
            await asyncio.wait({writing}, timeout=_LEDGER_PATIENCE)
            if writing.done() and isinstance(writing.exception(), ConflictError):
                self._say("ledger", str(writing.exception()))
                return  # a person acted first; the next turn decides anew
            await asyncio.to_thread(self._to_zero)
            try:
                await writing
            except (LedgerUnreachableError, ConflictError) as error:
                self._say("ledger", str(error))
                self._unwritten = move
        await self.turn()

    def _to_zero(self) -> None:
        try:
            percent = self.world.routes.read().percent
        except InvalidFileError:
            percent = None
        for action in to_zero(percent):
            try:
                self._perform(action)
            except (InvalidFileError, ReloadRefusedError, ProxyUnreachableError) as error:
                self._say(f"action {type(action).__name__}", str(error))  # the next turn tries again

    def _perform(self, action: Action) -> None:
        aside = perform(self.world, action)
        if aside:
            self._log.warning("refused routes file put aside", put_aside=aside, now="what ran, with 0 %")
            self._put_aside = aside

    def _write_put_aside(self, record: Record) -> Record:
        """Have the ledger name the file that a person's refused edit was put aside as. Raises ConflictError."""
        if not self._put_aside:
            return record
        told = f"the refused routes file was put aside as {self._put_aside}"
        reason = f"{record.reason}; {told}" if record.reason else told
        written = self.ledger.append(
            replace(record, reason=reason),
            event=PUT_ASIDE,
            actor=self.actor,
            detail={"put_aside": self._put_aside, "reason": told},
        )
        self._put_aside = ""
        self._record = written
        return written

    def _write_alarms(self, record: Record) -> Record:
        """Have the ledger name alarms that began to hold, and those that do no more. Raises ConflictError."""
        policy = self.plan.stages[record.stage].policy
        raised = frozenset(map(alarms.AlarmName, record.alarms))
        holding = alarms.alarms(raised, self._stream, self._slot, policy)
        for name in sorted(holding.keys() ^ raised):
            begins = name in holding
            text = holding.get(name, f"alarm {name.value} is over")
            record = self._record = self.ledger.append(
                replace(
                    record,
                    alarms=tuple(sorted({*record.alarms, name.value} - (set() if begins else {name.value}))),
                ),
                event=alarms.RAISED if begins else alarms.CLEARED,
                actor=self.actor,
                detail={"alarm": name.value, "reason": text},
            )
        return record

    def _write_late(self, record: Record) -> Record:
        """The ledger is back: write down the rollback that could not wait for it."""
        move = self._unwritten
        if move is not None and record.state in GUARDED:
            record = self._write(record, replace(move, detail={**move.detail, "written_late": True}))
        self._unwritten = None  # not before it is written: writing may fail again
        return record

    async def _follow_stream(self) -> None:
        while True:
            try:
                self._stream = await asyncio.to_thread(self.world.stream.signal)
                self._say("stream", "")
            except ChangeStreamError as error:
                self._say("stream", str(error))  # the last signal grows stale by itself
            await asyncio.sleep(self.pace.stream)

    async def _follow_slot(self) -> None:
        while True:
            try:
                self._slot = await asyncio.to_thread(self.world.stream.slot)
                self._say("slot", "")
            except ChangeStreamError as error:
                self._slot = None
                self._say("slot", str(error))
            await asyncio.sleep(self.pace.slot)

    async def _compare_when_wanted(self) -> None:
        while True:
            record = self._record
            if record is not None and self._comparison_wanted(record):
                try:
                    await self._compare()
                except (ChangeStreamError, LedgerUnreachableError, ConflictError) as error:
                    self._say("verify", str(error))
                    await asyncio.sleep(self.pace.again)
                else:
                    self._say("verify", "")
            await asyncio.sleep(self.pace.turn)

    def _comparison_wanted(self, record: Record) -> bool:
        planned = self.plan.stages[record.stage]
        named = {result.gate for result in self._gates}
        return (
            record.state is State.SOAKING
            and record.verified is None
            and planned.policy.verify
            and GateName.VERIFIED in named
            and self._stream is not None
            and self._stream.streaming
            # rows that are known to differ say nothing; the gate for them holds already
            and (self._stream.parked or 0) <= planned.policy.max_parked
        )

    def _void_verification(self, record: Record) -> Record:
        """A comparison says nothing of rows that were copied after it."""
        if record.verified is None or self._stream is None or self._stream.phase != _COPYING:
            return record
        reason = "a new snapshot is being taken"
        return self.ledger.append(
            replace(record, verified=None),
            event="verification_void",
            actor=self.actor,
            detail={"reason": reason, "verified": dict(record.verified)},
        )

    async def _compare(self) -> None:
        found = await asyncio.to_thread(self.world.stream.compare, stop=self._stopping)
        async with self._turning:
            record = await asyncio.to_thread(self.ledger.read, self.plan.name)
            if record is None:
                return
            verified = {
                "at": self.now(),
                "position": found.position,
                "rows": found.rows,
                "differing": found.differing - found.parked,
            }
            self._record = await asyncio.to_thread(
                self.ledger.append,
                replace(record, verified=verified),
                event="verified",
                actor=self.actor,
                detail=found.detail,
            )

    async def _probe_when_wanted(self) -> None:
        while True:
            record, retry = self._record, self.plan.retry
            if record is not None and retry_is_due(record, retry, now=self.now()):
                problem = await asyncio.to_thread(self.world.prober.round)
                self._good_probes = 0 if problem else self._good_probes + 1
                text = problem or f"{self._good_probes} good rounds of questions in a row"
                self._probe = Probe(self._good_probes, retry.probes, text)
                self._say("probe", problem)
            await asyncio.sleep(self.pace.probe)

    # -- telling -------------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.side_ledger.observe, self.plan.name, self.observation())
            except LedgerUnreachableError as error:
                self._say("ledger", str(error))
            await asyncio.sleep(self.pace.stream)

    async def _alert(self) -> None:
        """Apart from publishing: what a webhook takes to fail must not make the status look stale."""
        while True:
            try:
                await asyncio.to_thread(deliver_due, self.side_ledger, self.plan, stop=self._stopping)
            except LedgerUnreachableError as error:
                self._say("ledger", str(error))
            await asyncio.sleep(self.pace.stream)

    def observation(self) -> dict[str, Any]:
        """What `strangler status` shows beside the ledger."""
        verdict, stream, sight, watch = self.monitor.verdict(), self._stream, self._sight, self.monitor.watch
        arms: dict[str, Any] = {}
        if watch is not None:
            arms = {
                name: {"requests": arm.requests, "errors": arm.errors}
                for name, arm in (("control", watch.control), ("canary", watch.canary))
            }
        return {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "live_percent": None
            if sight is None or sight.live_percent is None
            else float(sight.live_percent),
            "version": self._gates_version,
            "gates": [result.as_dict() for result in self._gates],
            "verdict": None if verdict is None else verdict.as_dict(),
            "counts": arms,
            "lag": None
            if stream is None
            else {"phase": stream.phase, "seconds": stream.lag_seconds, "bytes": stream.lag_bytes},
            "parked": None if stream is None else stream.parked,
            "slot": None if self._slot is None else self._slot.as_dict(),
            "probe": None if self._probe is None else self._probe.text,
            "problems": {what: text for what, text in self._said.items() if text},
        }

    def _say(self, what: str, problem: str) -> None:
        """Log a problem when it appears and when it goes, not every turn."""
        if self._said.get(what, "") == problem:
            return
        if problem:
            self._log.warning("holding", what=what, reason=problem)
        else:
            self._log.info("well again", what=what)
        self._said[what] = problem


def check_stages(plan: Plan, record: Record) -> None:
    """Raises PlanChangedError when `plan` has other stages than the migration was started with."""
    if plan.stage_names != record.stages:
        raise PlanChangedError(
            f"{plan.file}: the stages are {', '.join(plan.stage_names)}, but {plan.name} was started with "
            f"{', '.join(record.stages)}; put them back (gates may change freely), "
            f"or `strangler reset {plan.file}` first"
        )
