"""Do one scenario of a stream from a slot to real processes; `one_stream.py` has the order of things and the judgement.

the stream starts ──► it is held at the step ──► the fault ──► let go ──► repair
"""

import signal
import time
from pathlib import Path

from tests.cdc_shop import admin
from tests.chaos.one_stream import ChaosError, OneStream, Outcome, perform
from tests.chaos.pair import Pair, crash, drop_slots, one
from tests.chaos.scenario import BEFORE_START, FORKS, Ending, Fault, Scenario, Step, expect
from tests.chaos.steps import holding, position, reached, wait_for, write_large
from tests.chaos.stream_process import StreamProcess


def run_seed(scenario: Scenario, pair: Pair) -> Outcome:
    """Raises as `perform` does."""
    return perform(
        pair,
        str(scenario),
        lambda name, directory: Run(scenario, pair, name, directory),
        on_small_disk=scenario.fault is Fault.FULL_DISK,
    )


class Run(OneStream):
    """A stream from a slot."""

    def __init__(self, scenario: Scenario, pair: Pair, name: str, directory: Path) -> None:
        self.scenario = scenario
        super().__init__(scenario, pair, name, directory)

    def make_stream(self, directory: Path) -> StreamProcess:
        """`python -m cdc`."""
        return StreamProcess(
            self.pair,
            database=self.name,
            slot=self.name,
            publication=self.shop.config.publication,
            directory=directory,
        )

    def befall(self) -> Ending:
        """The scenario."""
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
        return expect(scenario.fault, stored=stored)

    # to the step, and what is done there

    def _to_the_fault(self) -> bool:
        """Whether the target held a position when the fault came."""
        step, slot = self.scenario.step, self.slot
        target_dsn = self.pair.target_dsn(self.name)
        with admin(self.pair.source_dsn(self.name)) as source, admin(target_dsn) as target:
            if step not in BEFORE_START:
                self.stream.start()
                wait_for(lambda: position(target, slot) is not None or self.dead(), "the snapshot is stored")
            if self.scenario.fault in FORKS:
                if self.scenario.fault is Fault.FAILOVER_BEHIND:
                    self.pair.cut_standby_off()
                self.get_ahead()
            with holding(step, target_dsn):
                if step in BEFORE_START:
                    self.stream.start()
                elif step is Step.MID_LARGE:
                    write_large(self.pair.source_dsn(self.name))
                wait_for(
                    lambda: self.dead() or reached(step, source=source, target=target, slot=slot),
                    f"the stream stands at {step}",
                )
                if self.dead():
                    raise ChaosError(f"the stream ended before any fault:\n{self.tail()}")
                time.sleep(self.scenario.linger)
                if self.scenario.killed_first:
                    self.stream.kill()
                stored = position(target, slot) is not None
                self._strike()
        return stored

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
                # in good order it waits for a stream that is held
                pair.source.stop(timeout=3.0)
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
                lambda: "No space left" in self.stream.log() or self.dead(), "the stream meets the full disk"
            )

    # repair

    def _heal(self) -> None:
        scenario, pair, stream = self.scenario, self.pair, self.stream
        time.sleep(scenario.lasts)
        match scenario.fault:
            case Fault.STOP_STREAM:
                code = stream.wait()
                if code != 0:
                    raise ChaosError(f"SIGTERM ended it with exit code {code}:\n{self.tail()}")
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
