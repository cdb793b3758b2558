"""Keep an eye on a stream's connector while the stream runs: see, tell, repair.

    Connect's REST ──status──► connector_policy.judge ──► restart, register again ──► Connect's REST
                                        └──► log, `Meter.warn` (the stream's status)

A thread of its own asks once a second. What is wrong with the connector never ends the stream by itself: what is in
the topic already is applied all the same, and the lag tells how far behind the target falls. What only a person can
repair (Connect refuses the configuration) is said again at each attempt.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

import structlog

from cdc.connect import Connect, ConnectorStatus
from cdc.connector_policy import Act, Watched, judge
from cdc.meter import Meter
from cdc.seams import AwayError, StreamError

_EVERY = 1.0  # seconds between two questions


@contextmanager
def watched(url: str, *, name: str, config: Mapping[str, str], meter: Meter) -> Iterator[None]:
    """Watch connector `name` of the Connect at `url` while the block runs; `config` is what it is registered with
    when it is gone.

    A fault in the watcher itself is raised at the end of the block.
    """
    watcher = _Watcher(url, name, config, meter)
    thread = Thread(target=watcher.run, name="cdc-connector", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watcher.ended.set()
        thread.join(timeout=30.0)
        meter.warn("")
    if watcher.broke is not None:
        raise watcher.broke


class _Watcher:
    def __init__(self, url: str, name: str, config: Mapping[str, str], meter: Meter) -> None:
        self.ended = Event()
        self.broke: Exception | None = None
        self._url = url
        self._name = name
        self._config = config
        self._meter = meter
        self._log = structlog.get_logger().bind(stream=name)
        self._memory = Watched()
        self._said = ""

    def run(self) -> None:
        try:
            with Connect(self._url, seconds=5.0) as connect:
                while not self.ended.wait(_EVERY):
                    self._look(connect)
        except Exception as error:
            # nobody else would see it before the stream ends
            self._log.exception("connector_not_watched")
            self._meter.warn(f"the connector is not watched any more: {error}")
            self.broke = error

    def _look(self, connect: Connect) -> None:
        try:
            status = connect.status(self._name)
            self._memory, verdict = judge(self._memory, status, time.monotonic())
            self._tell(verdict.fault, status)
            match verdict.act:
                case Act.NOTHING:
                    return
                case Act.RESTART:
                    connect.restart(self._name)
                case Act.REGISTER:
                    connect.register(self._name, self._config)
            self._log.warning("connector_repaired", act=verdict.act.value, attempt=self._memory.attempts)
        except (AwayError, StreamError) as error:
            self._tell(str(error), None)

    def _tell(self, fault: str, status: ConnectorStatus | None) -> None:
        self._meter.warn(fault)
        if fault == self._said:
            return
        self._said = fault
        if fault:
            self._log.warning("connector_fault", fault=fault)
        elif status is not None:
            self._log.info("connector_well", worker=status.connector.worker)
