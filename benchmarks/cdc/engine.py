"""Debezium's engine by itself, in this process: reads a slot twice and tells the second time's rate. `python -m
benchmarks.cdc.engine`, told by `decode.py` on standard input what to read.

The first reading warms the Java VM and counts for nothing. Records reach the engine's consumer as Kafka Connect's own
values, not yet written as JSON, and the consumer only counts them: nothing of ours stands in the engine's way. Nothing
is marked as processed, so the slot stays where it is.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from cdc.sources.debezium_engine import jars

_HEAP = "-Xmx1g"
_WITHIN = 300.0  # seconds


def main() -> int:
    """0, or 1 when the engine could not read."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Java prints must not get between
    told = json.loads(sys.stdin.readline())
    import jpype  # noqa: PLC0415  (only this process may load the Java VM)

    jpype.startJVM(_HEAP, classpath=jars())
    rate = 0.0
    for _ in range(2):
        rate = _read(told["properties"], told["rows"], jpype)
    with answer:
        answer.write(json.dumps(rate) + "\n")
    return 0


def _read(properties: Mapping[str, str], rows: int, jpype: Any) -> float:
    java_properties = jpype.JClass("java.util.Properties")()
    for name, value in properties.items():
        java_properties.setProperty(name, value)
    counted: list[tuple[float, int]] = []  # when a batch came, and how many records had come with it
    done = threading.Event()
    failures: list[str] = []

    @jpype.JImplements("io.debezium.engine.DebeziumEngine$ChangeConsumer")
    class Consumer:
        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def handleBatch(self, batch: Any, committer: Any) -> None:  # noqa: N802  (Java's name)
            before = counted[-1][1] if counted else 0
            counted.append((time.perf_counter(), before + int(batch.size())))
            committer.markBatchFinished()
            if counted[-1][1] >= rows:
                done.set()

        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def supportsTombstoneEvents(self) -> bool:  # noqa: N802  (Java's name)
            return True

    @jpype.JImplements("io.debezium.engine.DebeziumEngine$CompletionCallback")
    class Completion:
        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def handle(self, success: bool, message: Any, error: Any) -> None:
            if not success:
                failures.append(f"{message}: {error}")
            done.set()

    connect_format = jpype.JClass("io.debezium.embedded.Connect")
    engine = (
        jpype.JClass("io.debezium.engine.DebeziumEngine")
        .create(connect_format)
        .using(java_properties)
        .using(Completion())
        .notifying(Consumer())
        .build()
    )
    running = threading.Thread(target=engine.run, daemon=True)
    running.start()
    in_time = done.wait(_WITHIN)
    if failures or not in_time:
        sys.stderr.write(f"{failures or f'not {rows} records within {_WITHIN:g} s'}\n")
        sys.stderr.flush()
        os._exit(1)
    engine.close()
    running.join()
    (began, first), (ended, last) = counted[0], counted[-1]
    return (last - first) / (ended - began)


if __name__ == "__main__":
    os._exit(main())  # the VM's own threads would keep the process
