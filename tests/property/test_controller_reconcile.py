"""Kill the controller between any two steps, as often as you like: what comes after heals it.

The controller's own turns run over an in-memory world and ledger. A kill is an exception that nothing catches, before
or after one of the steps that change something; then a new controller takes over with nothing but ledger and world.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from migration_plans import examples
from migration_plans.actions import World
from migration_plans.controller import Controller
from migration_plans.ledger import ConflictError, Ledger
from migration_plans.outcomes import Arm, Bad, Good
from migration_plans.plan import Plan, load_plan
from migration_plans.proxy_admin import ProxyAdmin
from migration_plans.reconcile import Observed, Reload, ReplaceRefused, SetPercent, reconcile
from migration_plans.record import Record, after, begin
from migration_plans.stages import TABLE, Event, RefusedError, Stage, State
from migration_plans.testing import FakeChangeStream, FakeProber, FakeTraffic, KillAfter, KilledError

RAMPS = {Decimal(0), Decimal(10), Decimal(25), Decimal(100)}


class MemoryLedger:
    """Compare-and-set and history, without a database."""

    def __init__(self) -> None:
        self.present: Record | None = None
        self.events: list[tuple[str, Record]] = []

    def read(self, name: str) -> Record | None:
        return self.present

    def append(self, record: Record, *, event: str, actor: str, detail: Any = None) -> Record:
        if record.version != (self.present.version if self.present else 0):
            raise ConflictError
        self.present = replace(record, version=record.version + 1)
        self.events.append((event, self.present))
        return self.present

    @contextmanager
    def guard(self, record: Record) -> Iterator[None]:
        if self.present is None or self.present.version != record.version:
            raise ConflictError
        yield


class Universe:
    """A plan, a world and a ledger that outlive controllers; time passes with every turn."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.time = 1000.0
        self.ledger, self.traffic = MemoryLedger(), FakeTraffic()
        self.stream, self.prober = FakeChangeStream(now=lambda: self.time), FakeProber()
        self.stages = [planned.stage for planned in plan.stages]
        fresh = begin(plan.name, stages=self.stages, percent=Decimal(0), digest="", now=self.time)
        self.hand(fresh, Event.START)

    def hand(self, record: Record, event: Event) -> None:
        self.ledger.append(
            after(record, event, stages=self.stages, now=self.time), event=event.value, actor="a person"
        )

    @property
    def record(self) -> Record:
        assert self.ledger.present is not None
        return self.ledger.present

    def controller(self, kill: KillAfter | None = None) -> Controller:
        ledger, traffic, stream = self.ledger, self.traffic, self.stream
        if kill is not None:
            ledger = kill.wrap(ledger, "append")
            traffic = kill.wrap(traffic, "set_percent", "reload")
            stream = kill.wrap(stream, "prepare", "compare")
        controller = Controller(
            plan=self.plan,
            ledger=cast("Ledger", ledger),
            side_ledger=cast("Ledger", ledger),
            world=World(traffic, traffic, stream, self.prober),
            outcomes=cast("ProxyAdmin", None),
            now=lambda: self.time,
        )
        controller.monitor.connected(self.time)
        return controller

    async def live(self, controller: Controller, turns: int, *, failing: bool = False) -> None:
        """Let `controller` turn; shoppers come between turns."""
        for _ in range(turns):
            self.time += 1
            await controller.turn()
            controller._stream = self.stream.signal()
            if controller._record and controller._comparison_wanted(controller._record):
                await controller._compare()
            controller.monitor.heard_at = self.time
            percent = self.traffic.running
            controller.monitor.take(Good(Arm.CONTROL, 30, percent))
            if percent and failing:
                for number in range(4):
                    at_ns = int(self.time * 1e9)
                    controller.monitor.take(
                        Bad(Arm.CANARY, "status", f"{self.time} {number}", at_ns, percent)
                    )
                    controller.monitor.take(Good(Arm.CONTROL, 3, percent))
            elif percent:
                controller.monitor.take(Good(Arm.CANARY, 10, percent))


def a_plan() -> Plan:
    with TemporaryDirectory() as directory:
        return load_plan(examples.write(Path(directory)))


PLAN = a_plan()


def killed_often(universe: Universe, kills: list[tuple[int, bool]], *, failing: bool = False) -> None:
    for steps, late in kills:
        controller = universe.controller(KillAfter(steps, after=late))
        try:
            asyncio.run(universe.live(controller, 12, failing=failing))
        except KilledError:
            continue


def raised_without_leave(universe: Universe) -> list[Decimal]:
    """Percentages written to the routes file that no stage entered by then had."""
    allowed = Decimal(0)
    ceilings = [record.ceiling for _, record in universe.ledger.events]
    allowed = max(ceilings)
    return [percent for percent in universe.traffic.written if percent > allowed or percent not in RAMPS]


KILLS = st.lists(st.tuples(st.integers(1, 7), st.booleans()), max_size=6)


@given(KILLS)
@settings(max_examples=60, deadline=None)
def test_every_interrupted_walk_reaches_the_same_end(kills: list[tuple[int, bool]]) -> None:
    universe = Universe(PLAN)
    killed_often(universe, kills)
    asyncio.run(universe.live(universe.controller(), 60))
    assert universe.record.state is State.DONE
    assert (universe.traffic.percent, universe.traffic.running) == (100, 100)
    assert universe.traffic.written == sorted(universe.traffic.written), "going forward moves nobody back"
    assert raised_without_leave(universe) == []
    passed = [record.stage for event, record in universe.ledger.events if event == "passed"]
    assert passed == [1, 2, 3, 4, 5], "every stage was passed once, by its gates"


@given(KILLS)
@settings(max_examples=60, deadline=None)
def test_every_interrupted_rollback_ends_at_zero(kills: list[tuple[int, bool]]) -> None:
    universe = Universe(PLAN)
    controller = universe.controller()
    while universe.record.stage_name != "ramp 25" or universe.record.state is not State.SOAKING:
        asyncio.run(universe.live(controller, 1))
    killed_often(universe, kills, failing=True)
    asyncio.run(universe.live(universe.controller(), 20, failing=True))
    assert universe.record.state is State.ROLLED_BACK
    assert universe.record.stage_name == "ramp 25"
    assert (universe.traffic.percent, universe.traffic.running) == (0, 0)
    assert [event for event, _ in universe.ledger.events].count("tripped") == 1


@given(KILLS, st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_a_persons_rollback_wins_whenever_it_comes(kills: list[tuple[int, bool]], turns: int) -> None:
    universe = Universe(PLAN)
    asyncio.run(universe.live(universe.controller(), turns))
    if Event.ROLLBACK in TABLE[universe.record.state]:
        universe.hand(universe.record, Event.ROLLBACK)
    killed_often(universe, kills)
    asyncio.run(universe.live(universe.controller(), 20))
    assert universe.record.state is State.ROLLED_BACK
    assert (universe.traffic.percent, universe.traffic.running) == (0, 0)


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_order_of_events_raises_traffic_by_itself(events: list[Event]) -> None:
    """Whatever happens in whatever order: refused or followed, the percentage only rises where a stage is entered."""
    stages = [planned.stage for planned in PLAN.stages]
    record = begin("catalog", stages=stages, percent=Decimal(0), digest="", now=0.0)
    entering = {Event.START, Event.PASSED, Event.ADVANCE, Event.RESUME, Event.RETRY}
    for event in events:
        if event in (Event.PASSED, Event.ADVANCE) and record.last_stage:
            continue
        try:
            follower = after(record, event, stages=stages, now=1.0, percent=Decimal(7))
        except RefusedError:
            continue
        assert follower.percent <= record.percent or event in entering or event is Event.EDITED
        if event in (Event.ROLLBACK, Event.TRIPPED):
            assert follower.percent == 0
        record = follower


PERCENTS = st.sampled_from([None, Decimal(0), Decimal(10), Decimal(25), Decimal(100)])


@given(st.sampled_from(list(State)), st.integers(0, 5), PERCENTS, st.integers(0, 2), st.integers(0, 2))
def test_doing_what_reconcile_asks_leaves_nothing_to_do(
    state: State, stage: int, percent: Decimal | None, workers: int, live: int
) -> None:
    stages: list[Stage] = [planned.stage for planned in PLAN.stages]
    going_back = state in (State.ROLLING_BACK, State.ROLLED_BACK)
    record = replace(
        begin("catalog", stages=stages, percent=Decimal(0), digest="", now=0.0),
        state=state,
        stage=stage,
        percent=Decimal(0) if going_back else stages[stage].percent,
        ceiling=Decimal(100),
    )
    observed = Observed(percent, "v", workers, min(live, workers), 1)
    for action in reconcile(record, stages, observed):
        match action:
            case SetPercent(percent=wanted):
                observed = replace(observed, file_percent=wanted, workers_live=0)
            case ReplaceRefused():
                assert observed.file_percent is None
                assert state is State.ROLLING_BACK, "only going back touches a person's broken edit"
                observed = replace(observed, file_percent=Decimal(0), workers_live=0)
            case Reload():
                observed = replace(observed, workers_live=observed.workers)
    left = [action for action in reconcile(record, stages, observed) if isinstance(action, SetPercent)]
    assert left == []
    if state is State.ROLLING_BACK:
        assert observed.file_percent == 0
