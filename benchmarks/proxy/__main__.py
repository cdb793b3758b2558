"""How fast the proxy is, how much memory it takes, how many instructions a request costs: beside its peers, in one run.

    python -m benchmarks.proxy [--quick] [--part load|memory|instructions]... [--only NAME]... [--output FILE]

    figures.py       what a round and a median are (pure)    corpus.py     the 10,000 requests (pure)
    contenders.py    how each peer is started                processes.py  started, pinned, measured, ended
    equivalence.py   they all do the same work               load.py       wrk, one round
    rounds.py        contenders take turns                   memory.py     idle connections, streams
    instructions.py  perf or callgrind                       goals.py      reached or not (pure)
    report.py        JSON and table (pure)                   plot.py       the picture

`--quick` takes less than a minute and is for work in progress: one round, one second each, 1 KB at 32 connections,
ours beside nginx and Envoy, memory scaled down. The whole run takes about ten minutes and wants the machine for
itself. `--only` narrows the contenders (the start of a name is enough, ours always runs). `--output` writes
the JSON, and a picture with the same name beside it when there was load. The callgrind profile of our worker is left in
`var/bench/callgrind.out`: `callgrind_annotate var/bench/callgrind.out` says where its instructions go.

Exit codes: 0 measured (goals may be missed, the table says which) · 1 measured, but the result is not to be trusted ·
2 wrong usage · 6 something needed is missing or does not work.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.proxy import instructions, memory
from benchmarks.proxy.contenders import Site, contender, versions
from benchmarks.proxy.corpus import GROUPS
from benchmarks.proxy.figures import AIOHTTP, CONTENDERS, ENVOY, HAPROXY, NGINX, NODE, OURS, Body, Setup
from benchmarks.proxy.goals import Memory
from benchmarks.proxy.instructions import Instructions
from benchmarks.proxy.plot import draw
from benchmarks.proxy.processes import ROOT, BenchmarkError, Cores, allow_many_files, serving
from benchmarks.proxy.report import Result, table
from benchmarks.proxy.rounds import Plan, measure, site

_PARTS = ("load", "memory", "instructions")
_PROFILE = ROOT / "var" / "bench" / "callgrind.out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much of everything."""

    plan: Plan
    memory_of: Sequence[str]
    idle: int
    stream_mb: int
    counted: Sequence[tuple[str, int]]  # and with how many groups
    count: int


def _extent(*, quick: bool, only: Sequence[str]) -> Extent:
    def among(*names: str) -> list[str]:
        return [name for name in names if not only or name == OURS or name.startswith(tuple(only))]

    if quick:
        return Extent(
            plan=Plan(
                contenders=among(*CONTENDERS) if only else [NGINX, OURS, ENVOY],
                bodies=[Body.SMALL],
                connections=[32],
                rounds=1,
                seconds=1,
            ),
            memory_of=[OURS],
            idle=2_000,
            stream_mb=256,
            counted=[(OURS, 1), *((name, 1) for name in among(HAPROXY, NGINX, ENVOY, AIOHTTP, NODE) if only)],
            count=640,
        )
    return Extent(
        plan=Plan(
            contenders=among(*CONTENDERS), bodies=list(Body), connections=[32, 256], rounds=3, seconds=2
        ),
        memory_of=among(OURS, NGINX, ENVOY),
        idle=10_000,
        stream_mb=1_000,
        counted=[
            (OURS, 1),
            (OURS, GROUPS),
            *((name, 1) for name in among(NGINX, HAPROXY, ENVOY, AIOHTTP, NODE)),
        ],
        count=1_920,
    )


def _memory(extent: Extent, directory: Path, cores: Cores) -> list[Memory]:
    found = []
    for name in extent.memory_of:
        sys.stderr.write(f"  memory: {name}\n")
        with ExitStack() as stack:
            upstream = stack.enter_context(memory.zeros())
            launch = contender(name, Site(directory, upstream.port, upstream.port), Setup())
            server = stack.enter_context(serving(launch, log=directory / "memory.out", cores=cores.contender))
            found.append(
                memory.measure(
                    name,
                    port=launch.port,
                    pid=server.worker(),
                    upstream=upstream,
                    idle=extent.idle,
                    stream_mb=extent.stream_mb,
                )
            )
    return found


def _instructions(extent: Extent, directory: Path, cores: Cores) -> tuple[list[Instructions], dict[str, str]]:
    """What could be counted, and why the others could not: not every program runs under valgrind."""
    found, unavailable = [], {}
    hardware = instructions.hardware_counts()
    with site(directory, cores.others) as (here, _):
        for name, groups in extent.counted:
            sys.stderr.write(f"  instructions: {name}, {groups} group{'s' if groups > 1 else ''}\n")
            keep = _PROFILE if (name, groups) == (OURS, 1) and not hardware else None
            try:
                found.append(
                    instructions.measure(
                        name,
                        here,
                        groups=groups,
                        cores=cores,
                        count=extent.count,
                        hardware=hardware,
                        keep=keep,
                    )
                )
            except (BenchmarkError, OSError) as error:
                if name == OURS:
                    raise
                unavailable[name] = str(error).strip().splitlines()[0]
    return found, unavailable


def _machine() -> dict[str, Any]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "processor": model[0] if model else platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less than a minute, for work in progress")
    parser.add_argument("--part", action="append", choices=_PARTS, help="only this part; may be repeated")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="ours and these peers")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON (and the picture) here")
    options = parser.parse_args()
    for name in options.only:
        if not any(known.startswith(name) for known in CONTENDERS):
            parser.error(f"--only {name}: no such contender; there are {', '.join(CONTENDERS)}")
    return options


def run(options: argparse.Namespace) -> int:
    """Measure and tell; the exit code. Raises BenchmarkError when it cannot be done."""
    allow_many_files()
    cores = Cores.of_this_machine()
    extent = _extent(quick=options.quick, only=options.only)
    parts = options.part or _PARTS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        known = versions()
        rounds = measure(extent.plan, directory=directory, cores=cores) if "load" in parts else []
        held = _memory(extent, directory, cores) if "memory" in parts else []
        counted, missing = _instructions(extent, directory, cores) if "instructions" in parts else ([], {})
    result = Result(
        command=" ".join(["python -m benchmarks.proxy", *sys.argv[1:]]),
        machine=_machine(),
        versions=known,
        rounds=rounds,
        memory=held,
        instructions=counted,
        unavailable=missing,
    )
    sys.stdout.write(table(result))
    if options.output is not None:
        options.output.write_text(json.dumps(result.as_json(), indent=2) + "\n")
        if rounds:
            told = f"{result.machine['cores']} cores, {result.machine['processor']}"
            draw(rounds, machine=told, path=options.output.with_suffix(".png"))
    return 1 if result.faults() else 0


def main() -> int:
    """Entry; the exit code."""
    try:
        return run(_arguments())
    except BenchmarkError as error:
        sys.stderr.write(f"{error}\n")
        return 6


if __name__ == "__main__":
    sys.exit(main())
