"""The order of a run and its judgement, whatever the stream's source is and whatever befalls it.

the writer and the stream ──► befall() ──► either it catches up, and `cdc.verify` finds both sides equal row for row,
    or it has stopped: exit code 1, the status says why, the last line says what to do. Then that is done, and after it
    both sides must be equal, too.
"""

import secrets
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cdc.meter import Phase
from cdc.pipeline import StreamConfig
from cdc.prepare import prepare, teardown
from cdc.status import read_status
from cdc.verify import verify
from tests.cdc_shop import admin, make_shop
from tests.chaos.pair import Pair, one
from tests.chaos.scenario import Ending
from tests.chaos.steps import position, wait_for, write_large
from tests.chaos.stream_process import SteadyWriter, StreamProcess

REMEDY = "tear the stream down and prepare it again"
"""What every error says after which nothing but a new snapshot helps."""


class ChaosError(AssertionError):
    """The stream did what it must not; the message says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `seconds` for all of it, `rows` compared, `committed` transactions of the writer."""

    scenario: str
    ending: Ending
    seconds: float
    rows: int
    committed: int
    error: str = ""


def perform(
    pair: Pair, said: str, make: "Callable[[str, Path], OneStream]", *, on_small_disk: bool = False
) -> Outcome:
    """One run on databases of its own, which are dropped at its end. `said`: what it is.

    Raises ChaosError when the stream lost, doubled or hid something; NotReachedError, or whatever goes wrong in the run
    itself.
    """
    began = time.monotonic()
    name = f"chaos_{secrets.token_hex(5)}"
    pair.make_databases(name, on_small_disk=on_small_disk)
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as directory, ExitStack() as exits:
            run = make(name, Path(directory))
            exits.callback(run.end)
            ending, rows, error = run.go()
            return Outcome(said, ending, time.monotonic() - began, rows, run.writer.committed, error)
    finally:
        pair.source_cut.heal()
        pair.target_cut.heal()
        pair.drop_databases(name)


class Plan(Protocol):
    """What every run is told, whatever its faults are."""

    @property
    def seed(self) -> int:
        """Of the writer's dice."""

    @property
    def products(self) -> int:
        """Rows at the beginning."""


class OneStream(ABC):
    """One run of one stream on `pair`: the order of things, and the judgement. What befalls it is the subclasses'."""

    catch_up = 60.0
    """Seconds; the longest back-off of the stream is five."""

    def __init__(self, plan: Plan, pair: Pair, name: str, directory: Path) -> None:
        self.pair, self.name, self.slot = pair, name, name
        self.shop = make_shop(pair.source_dsn(name), pair.target_dsn(name), name, products=plan.products)
        self.stream = self.make_stream(directory)
        self.writer = SteadyWriter(pair, database=name, seed=plan.seed)

    @abstractmethod
    def make_stream(self, directory: Path) -> StreamProcess:
        """The process under test."""

    @abstractmethod
    def befall(self) -> Ending:
        """Start the stream, do the fault at its step, repair what has to be; how it must end."""

    def end(self) -> None:
        """Leave nothing running."""
        self.stream.kill()
        self.writer.stop()

    def go(self) -> tuple[Ending, int, str]:
        """The ending, the rows compared, the error of a stream that stopped."""
        wanted = self.befall()
        self.writer.stop()
        ending = self._await_end(wanted)
        error = ""
        if ending is Ending.STOPPED:
            error = self._check_stop()
            self.do_what_it_says()
            self._await_end(Ending.EQUAL)
        return ending, self._compare(), error

    def get_ahead(self) -> None:
        """The target gets what the one that will take over never had."""
        write_large(self.pair.source_dsn(self.name), warehouse="G")
        with admin(self.pair.source_dsn(self.name)) as source:
            mark = one(source, "SELECT pg_current_wal_insert_lsn()::text")
        with admin(self.pair.target_dsn(self.name)) as target:
            query = "SELECT lsn >= %s::pg_lsn FROM strangler_cdc.position WHERE stream = %s"
            wait_for(lambda: bool(one(target, query, mark, self.slot)) or self.dead(), "the target is ahead")

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

            deadline = time.monotonic() + self.catch_up
            # a stream that must stop is not believed for having come that far
            while wanted is Ending.STOPPED or not caught_up():
                if self.dead():
                    if wanted is Ending.EQUAL:
                        raise ChaosError(f"the stream ended instead of catching up:\n{self.tail()}")
                    return Ending.STOPPED
                if time.monotonic() > deadline:
                    what = "stopped, it goes on in silence" if wanted is Ending.STOPPED else "caught up"
                    raise ChaosError(
                        f"after {self.catch_up:g} s the stream has not {what}; it stands at "
                        f"{position(target, self.slot)}, the source is past {mark}:\n{self.tail()}"
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

    def do_what_it_says(self) -> None:
        """As a person would who reads the error."""
        config = self.config()
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
        report = verify(self.config())
        if not report.equal:
            raise ChaosError(f"{report.differing} of {report.rows} rows differ: {report}\n{self.tail()}")
        with admin(self.pair.source_dsn(self.name)) as source:
            there = sum(
                int(one(source, f"SELECT count(*) FROM catalog_{table}"))
                for table in ("category", "product", "stock")
            )
        if report.rows != there:
            raise ChaosError(f"{report.rows} rows were compared, the source has {there}")
        self.stream.send(signal.SIGTERM)
        if (code := self.stream.wait()) != 0:
            raise ChaosError(f"SIGTERM ended it with exit code {code}:\n{self.tail()}")
        return report.rows

    def config(self) -> StreamConfig:
        """The stream as it is now: after a failover its source is another server."""
        return replace(self.shop.config, source_dsn=self.pair.source_dsn(self.name))

    def dead(self) -> bool:
        """Whether the stream ended by itself."""
        return self.stream.ended() is not None and self.stream.ended() != -signal.SIGKILL

    def tail(self) -> str:
        """The end of what it said."""
        return "\n".join(self.stream.log().splitlines()[-12:])
