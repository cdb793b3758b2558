"""Keep an eye on a stream's connector while the stream runs: see, tell, repair.

    Connect's REST ──status──┐                              ┌► restart, register again ──► Connect's REST
    source ─────────slot─────┴► connector_policy.judge ─────┼► log, `Meter.warn` (the stream's status)
                                                            └► `WatchedSource.read` raises: the session begins anew

A thread of its own asks once a second, also for the configuration that runs: where another one spoils values the
stream ends, else ours is registered again (`cdc.connector_drift`). A connector that is away does not end the stream:
what is in the topic already is applied all the same, and the lag tells how far behind the target falls. A slot that is
gone does, and a source that is not the same after it was away: the session then begins anew, and judges
(`cdc.lineage`).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event as StopEvent
from threading import Thread
from typing import Any

import psycopg
import structlog

from cdc.changes import Event, Lsn
from cdc.connect import Connect
from cdc.connector_drift import SpoiledError, drift, refuse_spoiled, told
from cdc.connector_policy import Act, SlotSeen, Watched, judge, reconfigured
from cdc.lineage import Origin
from cdc.meter import Meter
from cdc.origin import identify
from cdc.seams import AwayError, Source, StreamError
from cdc.sessions import connect, connect_for_replication

_EVERY = 1.0  # seconds between two questions
_ANSWER = 5.0  # seconds that Connect has to answer


class WatchedSource:
    """`source` as long as its connector can be repaired; see `cdc.seams.Source`."""

    def __init__(self, source: Source, watcher: "Watcher") -> None:
        self._source = source
        self._watcher = watcher

    def start(self, after: Lsn) -> None:
        """As the source."""
        self._source.start(after)

    def read(self, timeout: float) -> list[Event]:
        """As the source. Raises what ended the watching, AwayError when the slot is gone or the source is another."""
        if self._watcher.error is not None:
            raise self._watcher.error
        return self._source.read(timeout)

    def confirm(self, position: Lsn) -> None:
        """As the source."""
        self._source.confirm(position)

    def answer(self) -> None:
        """As the source."""
        self._source.answer()

    def close(self) -> None:
        """As the source."""
        self._source.close()


@contextmanager
def watched(
    source: Source,
    *,
    url: str,
    name: str,
    source_dsn: str,
    config: Mapping[str, str],
    origin: Origin,
    meter: Meter,
) -> Iterator[Source]:
    """`source`, while its connector is watched; see `watching`."""
    with watching(
        url=url, name=name, source_dsn=source_dsn, config=config, origin=origin, meter=meter
    ) as watcher:
        yield WatchedSource(source, watcher)


@contextmanager
def watching(
    *, url: str, name: str, source_dsn: str, config: Mapping[str, str], origin: Origin, meter: Meter
) -> Iterator["Watcher"]:
    """Watch connector `name` of the Connect at `url`. `config` is what it is registered with when it is gone,
    `source_dsn` where its slot is, `origin` what the source there was when the session began. What ended the watching
    is the yielded value's `error`.
    """
    watcher = Watcher(url, name, source_dsn, config=config, origin=origin, meter=meter)
    thread = Thread(target=watcher.run, name="cdc-connector", daemon=True)
    thread.start()
    try:
        yield watcher
    finally:
        watcher.ended.set()
        thread.join(timeout=30.0)
        meter.warn("")


class Watcher:
    def __init__(
        self,
        url: str,
        name: str,
        source_dsn: str,
        *,
        config: Mapping[str, str],
        origin: Origin,
        meter: Meter,
    ) -> None:
        self.ended = StopEvent()
        self.error: Exception | None = None
        self._url = url
        self._name = name
        self._source_dsn = source_dsn
        self._config = config
        self._origin = origin
        self._meter = meter
        self._log = structlog.get_logger().bind(stream=name)
        self._memory = Watched()
        self._said = ""
        self._source: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        try:
            with Connect(self._url, seconds=_ANSWER) as door:
                while self.error is None and not self.ended.wait(_EVERY):
                    self._look(door)
        except Exception as error:  # not lost: the stream's thread raises it
            self.error = error
        finally:
            self._let_go()

    def _look(self, door: Connect) -> None:
        try:
            slot = self._slot()
            if slot is None:
                self.error = AwayError("the source is not the same since it was away; it is looked at anew")
                return
            running = door.config(self._name)
            if running is not None:
                refuse_spoiled(running, self._config, stream=self._name)
            other = drift(running, self._config).harmless if running is not None else ()
            now = time.monotonic()
            if running is not None and other:
                fault = f"the connector was reconfigured: {told(other, running, self._config)}"
                self._memory, verdict = reconfigured(self._memory, fault=fault, now=now)
            else:
                status = door.status(self._name)
                self._memory, verdict = judge(self._memory, status=status, slot=slot, now=now)
            self._tell(verdict.fault)
            match verdict.act:
                case Act.NOTHING:
                    return
                case Act.RESTART:
                    door.restart(self._name)
                case Act.REGISTER:
                    door.register(self._name, self._config)
                case Act.LOOK_ANEW:
                    self.error = AwayError(verdict.fault)
                    return
            self._log.warning("connector_repaired", act=verdict.act.value, attempt=self._memory.attempts)
        except SpoiledError as error:
            self.error = error
        except (AwayError, StreamError) as error:
            self._tell(str(error))
        except psycopg.OperationalError as error:
            self._let_go()
            self._tell(f"the source does not answer: {str(error).strip()}")

    def _slot(self) -> SlotSeen | None:
        """None when the source is another one than the session began with."""
        if self._source is None:
            with connect_for_replication(self._source_dsn, name=f"strangler_cdc look {self._name}") as asking:
                if identify(asking).origin != self._origin:
                    return None
            self._source = connect(self._source_dsn, name=f"strangler_cdc watch {self._name}")
        row = self._source.execute(
            "SELECT slot.active_pid, coalesce(reader.application_name, '') FROM pg_replication_slots slot"
            " LEFT JOIN pg_stat_activity reader ON reader.pid = slot.active_pid WHERE slot_name = %s",
            [self._name],
        ).fetchone()
        return SlotSeen(exists=False) if row is None else SlotSeen(exists=True, pid=row[0], reader=row[1])

    def _let_go(self) -> None:
        stale, self._source = self._source, None
        if stale is not None:
            with suppress(psycopg.OperationalError):
                stale.close()

    def _tell(self, fault: str) -> None:
        self._meter.warn(fault)
        if fault == self._said:
            return
        self._said = fault
        if fault:
            self._log.warning("connector_fault", fault=fault)
        else:
            self._log.info("connector_well")
