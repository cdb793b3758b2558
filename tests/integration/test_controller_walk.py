"""A real controller, a real ledger in PostgreSQL, a real routes file, a proxy that tells what the test says."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from migration_plans import examples
from migration_plans.actions import PUT_ASIDE, World
from migration_plans.controller import Controller, Pace
from migration_plans.drivers.routes import RoutesFile
from migration_plans.ledger import Ledger, LedgerUnreachableError, LockedError
from migration_plans.next_event import Evidence, next_move
from migration_plans.outcomes import Arm, Bad, Good
from migration_plans.plan import Plan, load_plan
from migration_plans.proxy_admin import ProxyAdmin
from migration_plans.reconcile import Observed
from migration_plans.record import Record, after, begin
from migration_plans.rollback import Watch, fold, judge
from migration_plans.stages import Event, State
from migration_plans.testing import FakeChangeStream, FakeProber, FakeProxyAdmin
from strangler_proxy.edit import set_percent
from workshop.postgres import free_port

pytestmark = pytest.mark.anyio

PACE = Pace(turn=0.02, stream=0.02, probe=0.02, again=0.1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FakeProxyAdmin]:
    examples.write(tmp_path)
    with FakeProxyAdmin(tmp_path / "routes.yaml") as admin:
        yield admin


class Setting:
    """One migration: its plan, ledger and world; `until` waits for the ledger to say something."""

    def __init__(self, plan: Plan, dsn: str, proxy: FakeProxyAdmin) -> None:
        self.plan, self.dsn, self.proxy = plan, dsn, proxy
        self.ledger = Ledger(dsn)
        self.ledger.install()
        self.stream, self.prober = FakeChangeStream(), FakeProber()
        self.routes = RoutesFile(plan.routes, plan.group)
        self._open: list[Ledger | ProxyAdmin] = [self.ledger]

    def close(self) -> None:
        for each in self._open:
            each.close()

    def controller(self, plan: Plan | None = None) -> Controller:
        ledger, side_ledger, admin = Ledger(self.dsn), Ledger(self.dsn), ProxyAdmin(self.proxy.url)
        self._open += [ledger, side_ledger, admin]
        return Controller(
            plan=plan or self.plan,
            ledger=ledger,
            side_ledger=side_ledger,
            world=World(self.routes, admin, self.stream, self.prober),
            outcomes=admin,
            pace=PACE,
        )

    def start(self) -> None:
        stages = [planned.stage for planned in self.plan.stages]
        fresh = begin(
            self.plan.name, stages=stages, percent=Decimal(0), digest=self.plan.digest, now=time.time()
        )
        self._write(fresh, Event.START)

    def by_hand(self, event: Event) -> None:
        self._write(self.record(), event)

    def _write(self, record: Record, event: Event) -> None:
        stages = [planned.stage for planned in self.plan.stages]
        self.ledger.append(
            after(record, event, stages=stages, now=time.time()), event=event.value, actor="test"
        )

    def record(self) -> Record:
        record = self.ledger.read(self.plan.name)
        assert record is not None
        return record

    def events(self) -> list[str]:
        return [entry.event for entry in self.ledger.history(self.plan.name)]

    async def until(
        self, condition: Callable[[Record], bool], *, feed: Callable[[], object] | None = None
    ) -> Record:
        deadline = time.monotonic() + 15
        while True:
            record = self.record()
            if condition(record):
                return record
            assert time.monotonic() < deadline, f"still {record}"
            if feed is not None:
                feed()
            await asyncio.sleep(0.01)

    async def soaking(self, stage: str, *, feed: Callable[[], object] | None = None) -> Record:
        return await self.until(lambda r: r.stage_name == stage and r.state is State.SOAKING, feed=feed)

    def healthy(self) -> None:
        """Traffic at the present percentage, all of it good."""
        self.proxy.good("control", 20)
        if self.proxy.percent():
            self.proxy.good("canary", 5)


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(controller.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@pytest.fixture
def setting(tmp_path: Path, database: str, proxy: FakeProxyAdmin) -> Iterator[Setting]:
    made = Setting(load_plan(tmp_path / "plan.yaml"), database, proxy)
    yield made
    made.close()


async def test_walks_every_stage_to_the_end(setting: Setting) -> None:
    setting.start()
    async with running(setting.controller()):
        await setting.until(lambda r: r.state is State.DONE, feed=setting.healthy)
    assert setting.proxy.percent() == 100
    assert [percent for _, percent in setting.proxy.reloads] == [10, 25, 100]
    assert setting.stream.calls == ["prepare", "compare"]
    assert setting.ledger.check_chain("catalog").broken_at is None


async def test_service_that_fails_every_request_is_rolled_back_within_three(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.until(lambda r: r.stage_name == "ramp 10" and r.state is State.SOAKING)
        setting.by_hand(Event.ADVANCE)
        await setting.soaking("ramp 25")
        for _ in range(50):
            setting.proxy.good("control", 3)
            setting.proxy.good("canary", 1)
        failures: list[int] = []
        for number in range(3):
            setting.proxy.good("control", 3)
            failures.append(setting.proxy.bad("canary", client=f"shopper {number}"))
        record = await setting.until(lambda r: r.state is State.ROLLED_BACK)
    assert setting.proxy.percent() == 0
    assert record.tripped_at_ns == failures[2]
    tripped, at_zero = setting.ledger.history("catalog")[-2:]
    assert (tripped.event, at_zero.event) == ("tripped", "at_zero")
    assert tripped.detail["verdict"]["canary"]["requests_to_detect"] == 3
    assert 0 < at_zero.detail["actuation_ms"] <= 250


class LedgerThatGoes(Ledger):
    """A ledger that does not answer while `away`."""

    away = False
    deaf = False  # answers questions, but cannot be written to

    def read(self, name: str) -> Record | None:
        self._gone()
        return super().read(name)

    def append(
        self, record: Record, *, event: str, actor: str, detail: Mapping[str, Any] | None = None
    ) -> Record:
        self._gone()
        if self.deaf:
            raise LedgerUnreachableError("deaf")
        return super().append(record, event=event, actor=actor, detail=detail)

    def _gone(self) -> None:
        if self.away:
            raise LedgerUnreachableError("away")


async def test_rollback_does_not_wait_for_the_ledger_and_is_written_down_later(setting: Setting) -> None:
    setting.start()
    controller = setting.controller(
        load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    )
    controller.ledger = ledger = LedgerThatGoes(setting.dsn)
    async with running(controller):
        await setting.soaking("ramp 10")
        ledger.away = True
        for number in range(5):
            setting.proxy.good("control", 3)
            setting.proxy.bad("canary", client=f"shopper {number}")
        await setting.until(lambda _: setting.proxy.percent() == 0)
        assert setting.record().state is State.SOAKING, "nobody could write it down yet"
        ledger.away = False
        await setting.until(lambda r: r.state is State.ROLLED_BACK)
    ledger.close()
    tripped = next(entry for entry in setting.ledger.history("catalog") if entry.event == "tripped")
    assert tripped.detail["written_late"] is True
    assert [percent for _, percent in setting.proxy.reloads] == [10, 0]


async def test_both_arms_failing_pauses(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10")
        for number in range(6):
            setting.proxy.bad("control", client=f"control {number}")
            setting.proxy.bad("canary", client=f"canary {number}")
        await setting.until(lambda r: r.state is State.PAUSED)
    assert setting.proxy.percent() == 10
    assert setting.events()[-1] == "both_arms_fail"


async def test_one_client_that_retries_does_not_roll_back(setting: Setting) -> None:
    setting.start()
    controller = setting.controller()
    async with running(controller):
        await setting.soaking("ramp 10")
        for _ in range(30):
            setting.proxy.bad("canary", client="the one with the poisoned request")
        await setting.until(lambda _: (seen := controller.monitor.canary()) is not None and seen.errors == 30)
        await controller.turn()
        assert setting.record().state is State.SOAKING


async def test_edit_by_hand_is_taken_in_and_pauses(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10")
        set_percent(setting.plan.routes, {"catalog": Decimal("7.5")})
        record = await setting.until(lambda r: r.state is State.PAUSED)
        assert record.percent == Decimal("7.5")
        await setting.until(lambda _: setting.proxy.percent() == Decimal("7.5"))
        setting.by_hand(Event.RESUME)
        await setting.until(lambda r: r.state is State.SOAKING and setting.proxy.percent() == 10)


async def test_retries_by_itself_once_the_service_is_well(setting: Setting) -> None:
    settings = ["rollback.retry.auto=true", "rollback.retry.after=0s", "rollback.retry.probes=2"]
    plan = load_plan(Path(setting.plan.file), settings=settings)
    setting.prober.problem = "GET /ready answers 503"
    setting.start()
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10", feed=lambda: None)
        for number in range(3):
            setting.proxy.good("control", 3)
            setting.proxy.bad("canary", client=f"shopper {number}")
        await setting.until(lambda r: r.state is State.ROLLED_BACK)
        await setting.until(lambda _: setting.prober.rounds > 3)
        assert setting.record().state is State.ROLLED_BACK
        setting.prober.problem = ""
        await setting.until(lambda r: r.state is State.DONE, feed=setting.healthy)
    assert setting.events().count("retry") == 1


async def test_second_controller_is_refused(setting: Setting) -> None:
    setting.start()
    async with running(setting.controller()):
        await setting.until(lambda r: r.stage > 0)
        with pytest.raises(LockedError):
            await setting.controller().run(asyncio.Event())


async def test_cut_stream_holds(setting: Setting) -> None:
    """No evidence is not good evidence: with the stream cut, nothing advances, however long it was good before."""
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=10", "gates.soak=0s"])
    controller = setting.controller(plan)
    async with running(controller):
        await setting.soaking("ramp 10")
        setting.proxy.good("canary", 9)
        before = controller.monitor.connected_since
        setting.proxy.cut_streams()
        await setting.until(lambda _: controller.monitor.connected_since not in (None, before))
        setting.proxy.good("canary", 9)  # nine before the cut, nine after it: never ten in one piece
        await setting.until(
            lambda _: (seen := controller.monitor.canary()) is not None and seen.requests == 9
        )
        await controller.turn()
        assert setting.record().stage_name == "ramp 10"
        setting.proxy.good("canary", 1)
        await setting.until(lambda r: r.stage_name == "ramp 25")


BROKEN = examples.ROUTES.replace("percent: 0", "percent: lots")


def break_routes(setting: Setting) -> None:
    """A person's broken edit: the proxy refuses it and keeps what it runs."""
    setting.plan.routes.write_text(BROKEN, encoding="utf-8")


def put_aside(setting: Setting) -> list[Path]:
    return sorted(setting.plan.routes.parent.glob("routes.yaml.refused-*"))


async def test_automatic_rollback_goes_ahead_with_a_broken_routes_file(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    controller = setting.controller(plan)
    async with running(controller):
        await setting.soaking("ramp 10")
        break_routes(setting)
        await setting.until(lambda _: "routes" in controller.observation()["problems"])
        for number in range(3):
            setting.proxy.good("control", 3)
            setting.proxy.bad("canary", client=f"shopper {number}")
        await setting.until(lambda r: r.state is State.ROLLED_BACK)
    assert setting.proxy.percent() == 0
    (aside,) = put_aside(setting)
    assert aside.read_text(encoding="utf-8") == BROKEN, "nothing of the person's edit is lost"
    assert setting.plan.routes.read_text(encoding="utf-8") == examples.ROUTES, "what ran, with 0 %"
    told = [entry for entry in setting.ledger.history("catalog") if entry.event == PUT_ASIDE]
    assert [entry.detail["put_aside"] for entry in told] == [str(aside)]
    assert str(aside) in setting.record().reason
    assert setting.ledger.check_chain("catalog").broken_at is None


async def test_rollback_by_hand_goes_ahead_with_a_broken_routes_file(setting: Setting) -> None:
    """The same code as `strangler rollback`: turns of a controller that does not run."""
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10")
    break_routes(setting)
    setting.by_hand(Event.ROLLBACK)
    alone = setting.controller(plan)
    for _ in range(4):
        await alone.turn()
    assert setting.record().state is State.ROLLED_BACK
    assert setting.proxy.percent() == 0
    assert len(put_aside(setting)) == 1


async def test_broken_routes_file_and_no_proxy_to_ask_says_what_to_do_by_hand(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10")
    break_routes(setting)
    setting.by_hand(Event.ROLLBACK)
    alone = setting.controller(plan)
    with ProxyAdmin(f"http://127.0.0.1:{free_port()}") as nobody:
        alone.world = replace(alone.world, proxy=nobody)
        await alone.turn()
    said = "; ".join(alone.observation()["problems"].values())
    assert f"set `percent: 0` of group catalog in {setting.plan.routes} by hand" in said
    assert "routes.yaml:10" in said, "the fault is named too"
    assert setting.record().state is State.ROLLING_BACK
    assert setting.plan.routes.read_text(encoding="utf-8") == BROKEN
    assert put_aside(setting) == []


async def test_verdict_in_a_turn_does_not_need_a_legal_routes_file(setting: Setting) -> None:
    """What the stream's reader could not write down, the next turn decides, also while the file is refused."""
    record = replace(setting_record(setting), state=State.SOAKING, percent=Decimal(10), ceiling=Decimal(10))
    watch = Watch.begin(setting.plan.limits, percent=Decimal(10))
    for number in range(4):
        watch = fold(watch, Good(Arm.CONTROL, 3, Decimal(10)))
        watch = fold(watch, Bad(Arm.CANARY, "status", f"shopper {number}", number, Decimal(10)))
        watch = fold(watch, Good(Arm.CONTROL, 3, Decimal(10)))
    move = next_move(
        record,
        setting.plan.stages[3].stage,
        Observed(file_percent=None, workers=2),
        Evidence(verdict=judge(watch)),
        retry=setting.plan.retry,
        now=0.0,
    )
    assert move is not None
    assert move.event is Event.TRIPPED


def setting_record(setting: Setting) -> Record:
    setting.start()
    return setting.record()


async def test_a_comparison_does_not_hold_up_the_end(setting: Setting) -> None:
    setting.stream.slow = True
    setting.start()
    async with running(setting.controller()) as stop:
        await setting.until(lambda _: "compare" in setting.stream.calls)
        began = time.monotonic()
        stop.set()
    await (
        asyncio.get_running_loop().shutdown_default_executor()
    )  # as asyncio.run does: threads are waited for
    assert time.monotonic() - began < 2.0
    assert "verified" not in setting.events()


async def test_a_webhook_that_hangs_does_not_make_the_status_stale(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> str:
        blocked.set()
        go_on.wait(30)
        return "at last"

    monkeypatch.setattr("migration_plans.alerts.deliver", hang)
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["alerts=[{log: true}]"])
    async with running(setting.controller(plan)):
        await setting.soaking("ramp 10")
        set_percent(setting.plan.routes, {"catalog": Decimal(5)})
        await setting.until(lambda _: blocked.is_set())

        def published() -> bool:
            seen = setting.ledger.observation("catalog")
            return seen is not None and seen[1]["live_percent"] == 5.0

        await setting.until(lambda _: published())
        go_on.set()


async def test_a_late_rollback_is_not_forgotten_when_writing_fails_again(setting: Setting) -> None:
    setting.start()
    controller = setting.controller(
        load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    )
    controller.ledger = ledger = LedgerThatGoes(setting.dsn)
    async with running(controller):
        await setting.soaking("ramp 10")
        ledger.deaf = True
        for number in range(5):
            setting.proxy.good("control", 3)
            setting.proxy.bad("canary", client=f"shopper {number}")
        await setting.until(lambda _: setting.proxy.percent() == 0)
        for _ in range(3):
            await controller.turn()
        ledger.deaf = False
        await setting.until(lambda r: r.state is not State.SOAKING)
        await setting.until(lambda r: r.state is State.ROLLED_BACK)
    ledger.close()
    assert "edited" not in setting.events(), "it was us who set 0 %"


async def test_a_rollback_that_lost_a_race_for_the_ledger_is_still_recorded_as_one(setting: Setting) -> None:
    """A person paused in the instant of the verdict, and the ledger was slow: the file is at 0 % by then."""
    setting.start()
    controller = setting.controller(
        load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    )

    class SlowOnce(Ledger):
        slow = False

        def append(
            self, record: Record, *, event: str, actor: str, detail: Mapping[str, Any] | None = None
        ) -> Record:
            if self.slow and event == "tripped":
                self.slow = False
                time.sleep(0.3)  # longer than the controller's patience: the wait is what is tested
                setting.by_hand(Event.PAUSE)
            return super().append(record, event=event, actor=actor, detail=detail)

    controller.ledger = ledger = SlowOnce(setting.dsn)
    async with running(controller):
        await setting.soaking("ramp 10")
        ledger.slow = True
        for number in range(5):
            setting.proxy.good("control", 3)
            setting.proxy.bad("canary", client=f"shopper {number}")
        await setting.until(lambda r: r.state is State.ROLLED_BACK)
    ledger.close()
    assert [event for event in setting.events() if event in ("pause", "tripped", "edited")] == [
        "pause",
        "tripped",
    ]


async def test_a_new_snapshot_voids_the_comparison_of_the_old_one(setting: Setting) -> None:
    setting.start()
    plan = load_plan(Path(setting.plan.file), settings=["gates.min_requests=100000"])
    async with running(setting.controller(plan)):
        await setting.until(lambda r: r.stage_name == "ramp 10" and r.verified is not None)
        setting.stream.phase, setting.stream.streaming = "snapshot", False
        await setting.until(lambda r: r.verified is None)
        assert setting.stream.calls.count("compare") == 1
        setting.stream.phase, setting.stream.streaming = "streaming", True
        await setting.until(lambda r: r.verified is not None)
    assert setting.stream.calls.count("compare") == 2
