"""`kill -9` of a real controller process, again and again, at random moments: the next one carries on."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from migration_plans import examples
from migration_plans.ledger import Ledger
from migration_plans.plan import Plan, load_plan
from migration_plans.record import Record, after, begin
from migration_plans.stages import Event, State
from migration_plans.testing import FakeProxyAdmin

PROGRAM = Path(__file__).with_name("run_controller.py")


class Migration:
    """A started migration, and controller processes that come and go."""

    def __init__(self, plan: Plan, dsn: str, proxy: FakeProxyAdmin) -> None:
        self.plan, self.dsn, self.proxy = plan, dsn, proxy
        self.ledger = Ledger(dsn)
        self.ledger.install()
        stages = [planned.stage for planned in plan.stages]
        fresh = begin(plan.name, stages=stages, percent=Decimal(0), digest=plan.digest, now=time.time())
        self.ledger.append(
            after(fresh, Event.START, stages=stages, now=time.time()), event="start", actor="test"
        )

    def record(self) -> Record:
        record = self.ledger.read(self.plan.name)
        assert record is not None
        return record

    @contextmanager
    def controller(self) -> Iterator[subprocess.Popen[bytes]]:
        log_path = Path(self.plan.file).with_name("controller.log")
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), self.plan.file, self.dsn, self.proxy.url],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait(10)

    def wait(self, condition: Callable[[], bool], *, feed: Callable[[], object], within: float) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if condition():
                return True
            feed()
            time.sleep(0.02)
        return False

    def moves_on_from(self, version: int) -> bool:
        return self.wait(lambda: self.record().version > version, feed=self.healthy, within=20)

    def healthy(self) -> None:
        self.proxy.good("control", 20)
        if self.proxy.percent():
            self.proxy.good("canary", 5)

    def failing(self) -> None:
        self.proxy.good("control", 3)
        if self.proxy.percent():
            self.proxy.bad("canary", client=f"client {time.monotonic_ns()}")


@pytest.fixture
def migration(tmp_path: Path, database: str) -> Iterator[Migration]:
    path = examples.write(tmp_path, plan=examples.PLAN.replace("soak: 0s", "soak: 150ms"))
    with FakeProxyAdmin(tmp_path / "routes.yaml") as proxy:
        made = Migration(load_plan(path), database, proxy)
        yield made
        made.ledger.close()


def test_killed_at_random_moments_it_still_reaches_the_end(migration: Migration) -> None:
    rng = random.Random(20261121)
    for _ in range(6):
        with migration.controller():
            seen = migration.record().version
            # wait until this one has done something, so that kills fall into turns and not into start-up
            assert migration.moves_on_from(seen)
            migration.wait(lambda: False, feed=migration.healthy, within=rng.uniform(0.0, 0.4))
    with migration.controller():
        assert migration.wait(
            lambda: migration.record().state is State.DONE, feed=migration.healthy, within=30
        )
    percents = [percent for _, percent in migration.proxy.reloads]
    assert percents == [10, 25, 100], "no percentage is skipped, repeated or taken back"
    assert migration.ledger.check_chain("catalog").broken_at is None
    assert [entry.event for entry in migration.ledger.history("catalog")].count("passed") == 5


def test_killed_between_intent_and_action_the_rollback_is_finished_by_the_next(migration: Migration) -> None:
    with migration.controller():
        assert migration.wait(
            lambda: migration.record().stage_name == "ramp 25" and migration.proxy.percent() == 25,
            feed=migration.healthy,
            within=30,
        )
    # the intent is in the ledger, and whoever wrote it died before doing anything
    stages = [planned.stage for planned in migration.plan.stages]
    intent = after(migration.record(), Event.ROLLBACK, stages=stages, now=time.time(), reason="by hand")
    migration.ledger.append(intent, event="rollback", actor="test")
    assert migration.proxy.percent() == 25
    with migration.controller():
        done = migration.wait(
            lambda: migration.record().state is State.ROLLED_BACK, feed=lambda: None, within=20
        )
    assert done, migration.record()
    assert migration.proxy.percent() == 0


def test_killed_again_and_again_while_the_service_fails_it_ends_at_zero(migration: Migration) -> None:
    with migration.controller():
        assert migration.wait(lambda: migration.proxy.percent() == 10, feed=migration.healthy, within=30)
    rng = random.Random(7)
    for _ in range(4):
        with migration.controller():
            migration.wait(lambda: False, feed=migration.failing, within=0.5 + rng.uniform(0.0, 0.5))
    with migration.controller():
        done = migration.wait(
            lambda: migration.record().state is State.ROLLED_BACK, feed=migration.failing, within=20
        )
    assert done, migration.record()
    assert migration.proxy.percent() == 0
    assert [percent for _, percent in migration.proxy.reloads] == [10, 0]
