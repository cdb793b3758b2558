"""How fast the change stream is and how much memory it takes: beside its peers, in one run.

    python -m benchmarks.cdc [--quick] [--part straight|mapped|decode|kafka|memory]... [--output FILE]

    figures.py   works, ratios (pure)          goals.py    reached or not (pure)
    shapes.py    the table, the two mappings   site.py     the server, a subscription, a pipe
    loads.py     what is done to the source    process.py  our stream in a process of its own
    rounds.py    contenders take turns         latency.py  commit to visible
    decode.py    beside Debezium's engine      engine.py   that engine, in its process
    kafka.py     through Debezium and Kafka    memory.py   peaks, as the kernel saw them
    report.py    JSON and table (pure)         plot.py     the picture

All databases are in one PostgreSQL with fsync on. `--quick` is for work in progress and leaves Debezium out unless it
is asked for by `--part decode` or `--part kafka`. The whole run takes about twelve minutes and wants the machine for
itself. `--output` writes the JSON, and a picture with the same name beside it.

Exit codes: 0 measured (goals may be missed, the table says which) · 2 wrong usage · 6 something is missing or failed.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cdc import decode, kafka, memory, rounds
from benchmarks.cdc.figures import Measurement
from benchmarks.cdc.loads import FULL, QUICK
from benchmarks.cdc.plot import draw
from benchmarks.cdc.report import Result, table
from benchmarks.cdc.shapes import MAPPED, STRAIGHT
from benchmarks.cdc.site import SETTINGS, site
from cdc import COMPILED
from cdc.seams import StreamError
from workshop.kafka import KafkaError
from workshop.postgres import EmbeddedPostgres, PostgresError

_PARTS = ("straight", "mapped", "decode", "kafka", "memory")


def _machine() -> dict[str, Any]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "processor": model[0] if model else platform.machine(),
        "python": platform.python_version(),
        "compiled": COMPILED,
        "postgres": SETTINGS,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less than a minute, for work in progress")
    parser.add_argument("--part", action="append", choices=_PARTS, help="only this part; may be repeated")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON (and the picture) here")
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    """Measure and tell; the exit code. Raises RuntimeError, PostgresError when it cannot be done."""
    amount = QUICK if options.quick else FULL
    parts = options.part or [part for part in _PARTS if not (options.quick and part in ("decode", "kafka"))]
    began = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"  {time.monotonic() - began:5.0f} s  {what}\n")

    measured: list[Measurement] = []
    left_out = {part: "not asked for" for part in _PARTS if part not in parts}
    if "decode" in parts and (why := decode.lacking()):
        left_out["decode"] = why
    with tempfile.TemporaryDirectory() as name:
        server = EmbeddedPostgres(Path(name) / "postgres", settings=SETTINGS).start()
        try:
            if "straight" in parts:
                with site(server, STRAIGHT, rows=amount.rows) as here:
                    measured += rounds.measure(here, amount, amount.rows, tell)
            if "mapped" in parts:
                with site(server, MAPPED, rows=amount.mapped_rows) as here:
                    measured += rounds.measure(here, amount, amount.mapped_rows, tell)
            if "decode" in parts and "decode" not in left_out:
                with site(server, STRAIGHT, rows=amount.ten * 10) as here:
                    measured += decode.measure(here, amount, tell)
            if "kafka" in parts:
                with site(server, STRAIGHT, rows=amount.kafka) as here:
                    try:
                        measured += kafka.measure(here, amount, Path(name), tell)
                    except (
                        KafkaError
                    ) as error:  # no Java, or Maven cannot fetch: the rest counts all the same
                        left_out["kafka"] = str(error)
            if "memory" in parts:
                with site(server, STRAIGHT, rows=1) as here:
                    measured += memory.measure(here, amount, 1, tell)
        finally:
            server.destroy()
    result = Result(
        command=" ".join(["python -m benchmarks.cdc", *sys.argv[1:]]),
        machine=_machine(),
        amount=asdict(amount),
        measured=measured,
        left_out=left_out,
    )
    sys.stdout.write(table(result))
    if options.output is not None:
        options.output.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
        told = f"{result.machine['cores']} cores, {result.machine['processor']}"
        draw(measured, machine=told, path=options.output.with_suffix(".svg"))
    return 0


def main() -> int:
    """Exit code."""
    try:
        return run(_arguments())
    except (RuntimeError, PostgresError, StreamError) as error:
        sys.stderr.write(f"{error}\n")
        return 6


if __name__ == "__main__":
    sys.exit(main())
