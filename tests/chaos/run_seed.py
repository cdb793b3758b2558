"""Do one scenario to real processes and judge how it ended.

databases, rows, a random writer ──► start the stream ──► hold it at the step ──► the fault ──► let go ──► repair
──► either it catches up, and `cdc.verify` finds both sides equal row for row,
    or it has stopped: exit code 1, the status says why, the last line says what to do. Then that is done, and
    after it both sides must be equal, too.
"""

import secrets
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from cdc.meter import Phase
from cdc.pipeline import StreamConfig
from cdc.prepare import prepare, teardown
from cdc.status import read_status
from cdc.verify import verify
from tests.cdc_shop import admin, make_shop
from tests.chaos.pair import Pair, crash, drop_slots, one
from tests.chaos.scenario import BEFORE_START, FORKS, Ending, Fault, Scenario, Step, expect
from tests.chaos.steps import holding, position, reached, wait_for, write_large
from tests.chaos.stream_process import SteadyWriter, StreamProcess

REMEDY = "tear the stream down and prepare it again"
"""What every error says after which nothing but a new snapshot helps."""

_CATCH_UP = 60.0  # seconds; the longest back-off is five


class ChaosError(AssertionError):
    """The stream did what it must not; the message says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `seconds` for all of it, `rows` compared, `committed` transactions of the writer."""

    scenario: Scenario
    ending: Ending
    seconds: float
    rows: int
    committed: int
    error: str = ""


def run_seed(scenario: Scenario, pair: Pair) -> Outcome:
    """Raises ChaosError when the stream lost, doubled or hid something; NotReachedError, or whatever goes wrong
    in the run itself.
    """
    began = time.monotonic()
    name = f"chaos_{scenario.seed}_{secrets.token_hex(3)}"
    pair.make_databases(name, on_small_disk=scenario.fault is Fault.FULL_DISK)
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as directory, ExitStack() as exits:
            run = _Run(scenario, pair, name, Path(directory))
            exits.callback(run.end)
            ending, rows, error = run.go()
            return Outcome(scenario, ending, time.monotonic() - began, rows, run.writer.committed, error)
    finally:
        pair.source_cut.heal()
        pair.target_cut.heal()
        pair.drop_databases(name)


class _Run:
    def __init__(self, scenario: Scenario, pair: Pair, name: str, directory: Path) -> None:
        self.scenario, self.pair, self.name = scenario, pair, name
        self.shop = make_shop(pair.source_dsn(name), pair.target_dsn(name), name, products=scenario.products)
        self.slot = name
        self.stream = StreamProcess(
            pair, database=name, slot=name, publication=self.shop.config.publication, directory=directory
        )
        self.writer = SteadyWriter(pair, database=name, seed=scenario.seed)

    def end(self) -> None:
        """Leave nothing running."""
        self.stream.kill()
        self.writer.stop()

    def go(self) -> tuple[Ending, int, str]:
        """The ending, the rows compared, the error of a stream that stopped."""
        scenario = self.scenario
        match scenario.fault:
            case Fault.FAILOVER:
                self.pair.add_standby()
            case Fault.FAILOVER_WITH_SLOT | Fault.FAILOVER_BEHIND:
                self.pair.add_standby(with_slot=(self.name, self.slot))
            case Fault.RESTORED | Fault.OLD_COPY:
                self.pair.take_backup()
        self.writer.start()
        stored = self._to_the_fault()
        self._heal()
        wanted = expect(scenario.fault, stored=stored)
        self.writer.stop()
        ending = self._await_end(wanted)
        error = ""
        if ending is Ending.STOPPED:
            error = self._check_stop()
            self._do_what_it_says()
            self._await_end(Ending.EQUAL)
        return ending, self._compare(), error

    # to the step, and what is done there

    def _to_the_fault(self) -> bool:
        """Whether the target held a position when the fault came."""
        step, slot = self.scenario.step, self.slot
        target_dsn = self.pair.target_dsn(self.name)
        with admin(self.pair.source_dsn(self.name)) as source, admin(target_dsn) as target:
            if step not in BEFORE_START:
                self.stream.start()
                wait_for(lambda: position(target, slot) is not None or self._dead(), "the snapshot is stored")
            if self.scenario.fault in FORKS:
                self._get_ahead(source, target)
            with holding(step, target_dsn):
                if step in BEFORE_START:
                    self.stream.start()
                elif step is Step.MID_LARGE:
                    write_large(self.pair.source_dsn(self.name))
                wait_for(
                    lambda: self._dead() or reached(step, source=source, target=target, slot=slot),
                    f"the stream stands at {step}",
                )
                if self._dead():
                    raise ChaosError(f"the stream ended before any fault:\n{self._tail()}")
                time.sleep(self.scenario.linger)
                if self.scenario.killed_first:
                    self.stream.kill()
                stored = position(target, slot) is not None
                self._strike()
        return stored

    def _get_ahead(self, source: psycopg.Connection[Any], target: psycopg.Connection[Any]) -> None:
        """The target gets what the one that will take over never had."""
        if self.scenario.fault is Fault.FAILOVER_BEHIND:
            self.pair.cut_standby_off()
        write_large(self.pair.source_dsn(self.name), warehouse="G")
        mark = one(source, "SELECT pg_current_wal_insert_lsn()::text")

        def ahead() -> bool:
            query = "SELECT lsn >= %s::pg_lsn FROM strangler_cdc.position WHERE stream = %s"
            return bool(one(target, query, mark, self.slot)) or self._dead()

        wait_for(ahead, "the target is ahead")

    def _strike(self) -> None:
        pair, stream = self.pair, self.stream
        match self.scenario.fault:
            case Fault.KILL_STREAM:
                stream.kill()
            case Fault.STOP_STREAM:
                stream.send(signal.SIGTERM)
            case Fault.FREEZE_STREAM:
                stream.send(signal.SIGSTOP)
            case Fault.KILL_SOURCE:
                crash(pair.source)
            case Fault.KILL_TARGET:
                crash(pair.target)
            case Fault.RESTART_SOURCE:
                pair.source.stop()
            case Fault.RESTART_TARGET:
                pair.target.stop()
            case Fault.END_SESSIONS:
                self._end_sessions()
            case Fault.CLOSE_SOURCE:
                pair.source_cut.close()
            case Fault.CLOSE_TARGET:
                pair.target_cut.close()
            case Fault.RESET_SOURCE:
                pair.source_cut.reset()
            case Fault.RESET_TARGET:
                pair.target_cut.reset()
            case Fault.SILENCE_SOURCE:
                pair.source_cut.silence()
            case Fault.SILENCE_TARGET:
                pair.target_cut.silence()
            case Fault.SLOT_DROPPED:
                self._drop_slot(anew=False)
            case Fault.SLOT_MADE_ANEW:
                self._drop_slot(anew=True)
            case Fault.SLOT_INVALIDATED:
                self._invalidate_slot()
            case Fault.FAILOVER:
                pair.fail_over(caught_up=self.scenario.linger == 0)
            case Fault.FAILOVER_WITH_SLOT:
                pair.switch_over()
            case Fault.FAILOVER_BEHIND:
                pair.fail_over(caught_up=False)
            case Fault.RESTORED | Fault.OLD_COPY:
                self.writer.stop()  # an old copy's log must not grow past the position before it is looked at
                pair.restore(
                    recover=self.scenario.fault is Fault.RESTORED, database=self.name, slot=self.slot
                )
            case Fault.FULL_DISK:
                self._fill_disk()

    def _end_sessions(self) -> None:
        for dsn in (self.pair.source_dsn(self.name), self.pair.target_dsn(self.name)):
            with admin(dsn) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND starts_with(application_name, 'strangler_cdc')"
                )

    def _drop_slot(self, *, anew: bool) -> None:
        with admin(self.pair.source_dsn(self.name)) as source:
            drop_slots(source, self.name)
            if anew:
                source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])

    def _invalidate_slot(self) -> None:
        """The stream stands still while the source writes more than a slot may keep."""
        if not self.scenario.killed_first:
            self.stream.send(signal.SIGSTOP)
        with admin(self.pair.source_dsn(self.name)) as source:
            source.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
            source.execute("SELECT pg_reload_conf()")

            def lost() -> bool:
                source.execute(
                    "SELECT pg_logical_emit_message(true, 'chaos', 'a new segment needs a record')"
                )
                source.execute("SELECT pg_switch_wal()")
                source.execute("CHECKPOINT")
                return (
                    one(source, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", self.slot)
                    == "lost"
                )

            wait_for(lost, "the slot is lost")
            source.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            source.execute("SELECT pg_reload_conf()")

    def _fill_disk(self) -> None:
        with self.pair.full_disk():
            if self.scenario.step is Step.MID_SNAPSHOT:
                # the lock is still held: the snapshot finds the disk full in its next attempt
                with admin(self.pair.target_dsn(self.name)) as target:
                    target.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                        [f"strangler_cdc apply {self.slot}"],
                    )
            else:
                write_large(self.pair.source_dsn(self.name), warehouse="F")
            wait_for(
                lambda: "No space left" in self.stream.log() or self._dead(), "the stream meets the full disk"
            )

    # repair

    def _heal(self) -> None:
        scenario, pair, stream = self.scenario, self.pair, self.stream
        time.sleep(scenario.lasts)
        match scenario.fault:
            case Fault.STOP_STREAM:
                code = stream.wait()
                if code != 0:
                    raise ChaosError(f"SIGTERM ended it with exit code {code}:\n{self._tail()}")
                stream.start()
            case Fault.KILL_STREAM:
                stream.start()
            case Fault.KILL_SOURCE | Fault.RESTART_SOURCE:
                pair.source.start()
            case Fault.KILL_TARGET | Fault.RESTART_TARGET:
                pair.target.start()
            case Fault.SILENCE_SOURCE:
                pair.source_cut.heal(forget=scenario.seed % 2 == 0)
            case Fault.SILENCE_TARGET:
                pair.target_cut.heal(forget=scenario.seed % 2 == 0)
            case _ if scenario.killed_first:
                stream.start()
            case Fault.FREEZE_STREAM | Fault.SLOT_INVALIDATED:
                stream.send(signal.SIGCONT)
            case _:
                pass  # the fault was over in a moment; the stream has to find its way itself

    # judgement

    def _await_end(self, wanted: Ending) -> Ending:
        """Wait until the stream has caught up or ended. Raises ChaosError when it must not end so."""
        with admin(self.pair.source_dsn(self.name)) as source:
            mark = one(source, "SELECT pg_current_wal_insert_lsn()::text")
            # a later commit, so that the position passes the mark even when nothing else happens
            source.execute("SELECT pg_logical_emit_message(true, 'chaos', 'the end')")
        with admin(self.pair.target_dsn(self.name)) as target:

            def caught_up() -> bool:
                return bool(
                    one(
                        target,
                        "SELECT lsn >= %s::pg_lsn FROM strangler_cdc.position WHERE stream = %s",
                        mark,
                        self.slot,
                    )
                )

            deadline = time.monotonic() + _CATCH_UP
            # a stream that must stop is not believed for having come that far
            while wanted is Ending.STOPPED or not caught_up():
                if self._dead():
                    if wanted is Ending.EQUAL:
                        raise ChaosError(f"the stream ended instead of catching up:\n{self._tail()}")
                    return Ending.STOPPED
                if time.monotonic() > deadline:
                    what = "stopped, it goes on in silence" if wanted is Ending.STOPPED else "caught up"
                    raise ChaosError(
                        f"after {_CATCH_UP:g} s the stream has not {what}; it stands at "
                        f"{position(target, self.slot)}, the source is past {mark}:\n{self._tail()}"
                    )
                time.sleep(0.02)
        return Ending.EQUAL

    def _check_stop(self) -> str:
        code, said = self.stream.wait(), self.stream.last_words()
        status = read_status(self.pair.target_dsn(self.name), stream=self.slot)
        wrong = []
        if code != 1:
            wrong.append(f"exit code {code} instead of 1")
        if REMEDY not in said:
            wrong.append(f"it does not say {REMEDY!r}")
        if self.slot not in said:
            wrong.append("it does not name the slot")
        if status is None or status.phase is not Phase.FAILED or status.error not in said:
            wrong.append(f"the status says {status and (status.phase, status.error)}")
        if wrong:
            raise ChaosError(f"it stopped, but {'; '.join(wrong)}. Its last words: {said}")
        return said

    def _do_what_it_says(self) -> None:
        config = self._config()
        teardown(
            config.mapping,
            slot=config.slot,
            publication=config.publication,
            source_dsn=config.source_dsn,
            source_owner_dsn=config.source_dsn,
            target_owner_dsn=config.target_dsn,
            empty_target=True,
        )
        prepare(
            config.mapping,
            source_owner_dsn=config.source_dsn,
            target_owner_dsn=config.target_dsn,
            cdc_role="postgres",
            publication=config.publication,
        )
        self.stream.start()

    def _compare(self) -> int:
        report = verify(self._config())
        if not report.equal:
            raise ChaosError(f"{report.differing} of {report.rows} rows differ: {report}\n{self._tail()}")
        with admin(self.pair.source_dsn(self.name)) as source:
            there = sum(
                int(one(source, f"SELECT count(*) FROM catalog_{table}"))
                for table in ("category", "product", "stock")
            )
        if report.rows != there:
            raise ChaosError(f"{report.rows} rows were compared, the source has {there}")
        self.stream.send(signal.SIGTERM)
        if (code := self.stream.wait()) != 0:
            raise ChaosError(f"SIGTERM ended it with exit code {code}:\n{self._tail()}")
        return report.rows

    def _config(self) -> StreamConfig:
        """The stream as it is now: after a failover its source is another server."""
        return replace(self.shop.config, source_dsn=self.pair.source_dsn(self.name))

    def _dead(self) -> bool:
        return self.stream.ended() is not None and self.stream.ended() != -signal.SIGKILL

    def _tail(self) -> str:
        return "\n".join(self.stream.log().splitlines()[-12:])
