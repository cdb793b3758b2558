"""From the commit on the source until the row is visible in the target, under 2,000 single-row transactions a second.

pgbench offers the transactions at their own times, whether or not earlier ones have finished. Among them a probe
commits a row of its own forty times a second; the time runs from the return of its commit until a query in the target,
repeated without a pause, sees the row. (The commit timestamps that PostgreSQL keeps would cost less, but the worker of
a subscription writes those of the source into the target.)
"""

import re
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cdc.loads import Amount
from benchmarks.cdc.shapes import SOURCE
from benchmarks.cdc.site import Place, Site, program

_RATE = 2_000
_ROWS = 50_000  # the rows that are written, at random
_WRITERS = 8
_PROBE_EVERY = 0.025  # seconds
_PATIENCE = 30.0  # seconds until a probe counts as lost


def measure(
    site: Site, amount: Amount, place: Place, alive: Callable[[], bool]
) -> Iterator[tuple[str, float]]:
    """p50 and p99 in ms, and the rate that pgbench really reached. The stream runs and has nothing to do."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "one.sql"
        script.write_text(
            f"\\set id random(2, {_ROWS})\nUPDATE {SOURCE} SET amount = amount + 1 WHERE id = :id;\n"
        )
        writers = subprocess.Popen(
            [program("pgbench"), "-n", "-M", "prepared", "-f", str(script), "-R", str(_RATE), "-c", str(_WRITERS),
             "-T", str(amount.latency_seconds), site.config.source_dsn],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        waits = []
        due = time.perf_counter() + _PROBE_EVERY
        while writers.poll() is None:
            time.sleep(max(0.0, due - time.perf_counter()))
            waits.append(_probe(site, place, alive) * 1000)
            # behind a slow one no probes are made up for: they would all meet the same moment
            due = max(due + _PROBE_EVERY, time.perf_counter())
        said, complaint = writers.communicate()
    reached = re.search(r"tps = ([\d.]+)", said)
    if writers.returncode or reached is None:
        raise RuntimeError(f"pgbench failed:\n{said}{complaint}")
    percentiles = statistics.quantiles(waits, n=100)
    yield "p50", percentiles[49]
    yield "p99", percentiles[98]
    yield "offered", float(reached[1])


def _probe(site: Site, place: Place, alive: Callable[[], bool]) -> float:
    """Seconds until one row is visible."""
    mark = secrets.token_hex(8)
    site.mark(mark)
    began = time.perf_counter()
    while not place.has(mark):
        if time.perf_counter() - began > _PATIENCE or not alive():
            raise RuntimeError(f"a row did not arrive within {_PATIENCE:g} s, or the stream ended")
    return time.perf_counter() - began
