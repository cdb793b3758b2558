"""The ledger on a real PostgreSQL: compare-and-set, history that cannot be altered, the controller's lock."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from migration_plans import examples
from migration_plans.alerts import ATTEMPTS, deliver_due
from migration_plans.ledger import ConflictError, Ledger, LedgerUnreachableError, LockedError
from migration_plans.plan import Plan, load_plan
from migration_plans.record import Record, begin
from migration_plans.stages import Kind, Stage, State
from workshop.postgres import free_port

STAGES = [Stage(Kind.PREPARE, Decimal(0)), Stage(Kind.RAMP, Decimal(10))]


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with Ledger(database) as opened:
        opened.install()
        yield opened


def fresh(name: str = "catalog") -> Record:
    return begin(name, stages=STAGES, percent=Decimal(0), digest="abc", now=1.0)


def entries(ledger: Ledger, count: int) -> Record:
    record = fresh()
    for number in range(count):
        record = ledger.append(
            record, event=f"event {number}", actor="test", detail={"number": number, "x": 0.1}
        )
    return record


def test_what_was_written_is_read_again(ledger: Ledger) -> None:
    assert ledger.read("catalog") is None
    full = replace(
        fresh(), state=State.PAUSED, stage=1, percent=Decimal("7.25"), ceiling=Decimal(10), reason="why",
        verified={"rows": 3}, tripped_at_ns=1_790_000_000_123_456_789, rolled_back_at=1.5,
    )  # fmt: skip
    written = ledger.append(full, event="edited", actor="someone", detail={"from": "10"})
    assert written == replace(full, version=1)
    assert ledger.read("catalog") == written
    (entry,) = ledger.history("catalog")
    assert (entry.actor, entry.event, entry.state, entry.percent) == ("someone", "edited", "paused", "7.25")


def test_install_by_many_at_once_makes_one_ledger(database: str) -> None:
    def install(_: int) -> None:
        with Ledger(database) as each:
            each.install()
            each.install()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(install, range(8)))


def test_of_many_writers_on_one_version_one_wins(ledger: Ledger, database: str) -> None:
    base = ledger.append(fresh(), event="start", actor="test")
    ready = threading.Barrier(8)

    def write(number: int) -> bool:
        with Ledger(database) as each:
            each.read("catalog")
            ready.wait(10)
            try:
                each.append(replace(base, reason=f"writer {number}"), event="pause", actor=f"writer {number}")
            except ConflictError:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert [entry.event for entry in ledger.history("catalog")] == ["start", "pause"]
    assert ledger.check_chain("catalog").broken_at is None


def test_of_many_starters_one_wins(ledger: Ledger, database: str) -> None:
    ready = threading.Barrier(6)

    def start(number: int) -> bool:
        with Ledger(database) as each:
            each.read("catalog")
            ready.wait(10)
            try:
                each.append(fresh(), event="start", actor=f"starter {number}")
            except ConflictError:
                return False
            return True

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))).count(True) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.history SET actor = 'nobody' WHERE seq = 2",
        "DELETE FROM ledger.history WHERE seq = 2",
        "TRUNCATE ledger.history CASCADE",
        "SET session_replication_role = replica; DELETE FROM ledger.history",
        "UPDATE ledger.delivery SET delivered = true",
        "DELETE FROM ledger.delivery",
    ],
)
def test_history_is_append_only_even_for_the_superuser(ledger: Ledger, database: str, statement: str) -> None:
    entries(ledger, 3)
    ledger.record_delivery("catalog", seq=1, target="log", delivered=True, detail="")
    refusal = pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only")
    with psycopg.connect(database) as connection, refusal:
        connection.execute(statement.encode())
    assert len(ledger.history("catalog")) == 3


@pytest.mark.parametrize(
    ("statement", "broken_at", "why"),
    [
        ("UPDATE ledger.history SET actor = 'nobody' WHERE seq = 2", 2, "altered"),
        ("UPDATE ledger.history SET detail = '{}' WHERE seq = 3", 3, "altered"),
        ("DELETE FROM ledger.history WHERE seq = 2", 2, "missing"),
        ("DELETE FROM ledger.history WHERE seq = 4", 4, "at the end are missing"),
        ("UPDATE ledger.history SET hash = md5('x') WHERE seq = 1", 1, "altered"),
    ],
)
def test_who_drops_the_trigger_still_breaks_the_chain(
    ledger: Ledger, database: str, statement: str, broken_at: int, why: str
) -> None:
    entries(ledger, 4)
    assert ledger.check_chain("catalog").broken_at is None
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE ledger.history DISABLE TRIGGER append_only")
        connection.execute(statement.encode())
    chain = ledger.check_chain("catalog")
    assert chain.broken_at == broken_at
    assert why in chain.why


def test_one_controller_at_a_time(ledger: Ledger, database: str) -> None:
    ledger.acquire("catalog")
    with Ledger(database) as other:
        with pytest.raises(LockedError):
            other.acquire("catalog")
        other.acquire("orders")
        assert ledger.controlled("catalog")
        ledger.release("catalog")
        assert not ledger.controlled("catalog")
        other.acquire("catalog")
        assert ledger.controlled("catalog")
    _until(lambda: not ledger.controlled("catalog") and not ledger.controlled("orders"))


def test_lock_lost_with_the_connection_is_taken_again_or_refused(ledger: Ledger, database: str) -> None:
    ledger.acquire("catalog")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"

    def lose() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(kill)
        with pytest.raises(LedgerUnreachableError):
            ledger.read("catalog")

    lose()
    ledger.read("catalog")
    with Ledger(database) as other:
        with pytest.raises(LockedError):
            other.acquire("catalog")
        lose()
        other.acquire("catalog")
        with pytest.raises(LockedError):
            ledger.read("catalog")


def test_guard_keeps_others_out_while_it_lasts_and_refuses_an_old_decision(
    ledger: Ledger, database: str
) -> None:
    record = ledger.append(fresh(), event="start", actor="test")
    done: list[float] = []

    def roll_back() -> None:
        with Ledger(database) as other:
            other.append(record, event="rollback", actor="a person")
            done.append(time.monotonic())

    with ledger.guard(record):
        person = threading.Thread(target=roll_back)
        person.start()
        _until_waiting(database)
        assert not done
    person.join(10)
    assert done
    with pytest.raises(ConflictError), ledger.guard(record):
        raise AssertionError("the block must not run")


def _until_waiting(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        count = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        _until(lambda: (connection.execute(count).fetchone() or (0,))[0] > 0)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_unreachable_ledger_says_what_to_look_at() -> None:
    lost = Ledger(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(LedgerUnreachableError, match="STRANGLER_LEDGER_DSN"):
        lost.read("catalog")


def test_observation_is_overwritten_and_ages(ledger: Ledger) -> None:
    assert ledger.observation("catalog") is None
    ledger.observe("catalog", {"gates": 1})
    ledger.observe("catalog", {"gates": 2})
    seen = ledger.observation("catalog")
    assert seen is not None
    assert seen[1] == {"gates": 2}
    assert 0 <= seen[0] < 10


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    script = tmp_path / "alert.sh"
    script.write_text(f'#!/bin/sh\ncat >> "{tmp_path}/heard"; [ -e "{tmp_path}/well" ]\n', encoding="utf-8")
    script.chmod(0o755)
    text = examples.PLAN + f"alerts: [{{command: ['{script}']}}, {{webhook_env: NO_SUCH_HOOK}}]\n"
    return load_plan(examples.write(tmp_path, plan=text))


def test_alerts_are_tried_recorded_and_not_repeated(ledger: Ledger, plan: Plan, tmp_path: Path) -> None:
    record = ledger.append(fresh(), event="start", actor="test")
    ledger.append(record, event="tripped", actor="controller", detail={"reason": "3 of 3 failed"})
    assert deliver_due(ledger, plan) == 0
    (tmp_path / "well").touch()
    assert deliver_due(ledger, plan) == 1
    assert deliver_due(ledger, plan) == 0
    attempts = [(each["target"], each["delivered"]) for each in ledger.deliveries("catalog")]
    command = f"command {plan.alerts[0].command[0]}"
    assert [each for each in attempts if each[0] == command] == [(command, False), (command, True)]
    hook = [
        (each["delivered"], each["detail"])
        for each in ledger.deliveries("catalog")
        if "HOOK" in each["target"]
    ]
    assert hook == [(False, "the environment variable NO_SUCH_HOOK is not set")] * ATTEMPTS
    assert (tmp_path / "heard").read_text(encoding="utf-8").count("3 of 3 failed") >= 2


def test_old_events_are_history_not_news(ledger: Ledger, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "well").touch()
    ledger.append(replace(fresh(), state=State.ROLLING_BACK), event="tripped", actor="controller")
    assert deliver_due(ledger, plan, now=datetime.now(UTC) + timedelta(hours=2)) == 0
    assert ledger.deliveries("catalog") == []
