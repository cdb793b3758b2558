"""Instructions that a contender executes for one request. They do not depend on who else uses the machine.

Counted by the processor (`perf stat -e instructions:u`) where the machine lets it, else by valgrind's
callgrind, which runs the contender on a simulated processor, some fifty times slower, and starts to count when
told (`callgrind_control`), so starting up is not counted. Both count user space only: what the kernel does for a
request is in the processor time of the load rounds.

On a processor fifty times slower, what happens by the clock (our workers report outcomes every 15 ms, everybody looks
at timeouts) falls on fifty times fewer requests than under load, so callgrind's figure for our proxy is an upper
bound. Between two versions of the same contender it is the steadiest figure there is.

A fixed number of requests goes over 32 connections, in waves: all send, then all read. For our proxy the
parent, which adds up outcomes, is counted beside the worker.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.proxy.client import connections
from benchmarks.proxy.contenders import Site, contender, program
from benchmarks.proxy.corpus import requests
from benchmarks.proxy.figures import Body, Setup
from benchmarks.proxy.processes import BenchmarkError, Cores, serving

_CONNECTIONS = 32
_WARM = 320
_SECONDS_TO_START = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """Instructions in user space for each request: of the process that serves, and of all its processes."""

    contender: str
    groups: int
    by: str
    requests: int
    worker: int
    all: int


def hardware_counts() -> bool:
    """Does this machine count instructions? Most virtual machines do not."""
    if shutil.which("perf") is None:
        return False
    ran = subprocess.run(
        ["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True, check=False
    )
    return ran.returncode == 0 and "<not" not in ran.stderr


def measure(
    name: str,
    here: Site,
    *,
    groups: int,
    cores: Cores,
    count: int,
    hardware: bool,
    keep: Path | None = None,
) -> Instructions:
    """Count for one contender. `keep`: where the serving process's callgrind profile goes.

    Raises BenchmarkError when it does not run under valgrind, or the counts cannot be read.
    """
    launch = contender(name, here, Setup(groups=groups))
    corpus = requests(Body.SMALL, count)
    if hardware:
        with serving(launch, log=here.directory / "counted.out", cores=cores.contender) as server:
            _drive(launch.port, corpus[:_WARM])
            counts = perf_counts("instructions:u", server.pids(), lambda: _drive(launch.port, corpus))
            return _result((name, groups), "perf", count, counts, server.worker())
    files = here.directory / f"callgrind-{len(list(here.directory.glob('callgrind-*')))}"
    files.mkdir()
    valgrind = [
        *(program("valgrind"), "--quiet", "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes"),
        f"--callgrind-out-file={files}/out.%p",
    ]
    slowly = replace(launch, command=[*valgrind, *launch.command])
    with serving(
        slowly, log=here.directory / "counted.out", cores=cores.contender, seconds=_SECONDS_TO_START
    ) as server:
        _drive(launch.port, corpus[:_WARM])
        pids, worker = server.pids(), server.worker()
        for pid in pids:
            _control("--instr=on", pid)
        _drive(launch.port, corpus[:_CONNECTIONS])  # what was translated without counting is translated anew
        for pid in pids:
            _control("--zero", pid)
        _drive(launch.port, corpus)
        counts = {pid: _dumped(pid, files) for pid in pids}
        if keep is not None:
            shutil.copyfile(_dumps(worker, files)[-1], keep)
        return _result((name, groups), "callgrind", count, counts, worker)


def perf_counts(event: str, pids: Sequence[int], work: Callable[[], None]) -> dict[int, int]:
    """How often `event` happened in each process during `work`. Raises BenchmarkError when perf does not say."""
    running = {
        pid: subprocess.Popen(
            ["perf", "stat", "-x,", "-e", event, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        for pid in pids
    }
    time.sleep(0.5)  # perf does not say when it has attached
    work()
    counts = {}
    for pid, process in running.items():
        process.send_signal(2)  # SIGINT: say what was counted
        told = process.communicate(timeout=10)[1]
        # "<not counted>": the process never ran meanwhile, as nginx's master does not
        found = re.search(r"^([\d.]+|<not counted>),", told, re.MULTILINE)
        if found is None:
            raise BenchmarkError(f"perf counted nothing of process {pid}: {told.strip()}")
        counts[pid] = 0 if found[1].startswith("<") else int(float(found[1]))
    return counts


def _result(who: tuple[str, int], by: str, count: int, counts: dict[int, int], worker: int) -> Instructions:
    return Instructions(
        contender=who[0],
        groups=who[1],
        by=by,
        requests=count,
        worker=round(counts[worker] / count),
        all=round(sum(counts.values()) / count),
    )


def _drive(port: int, corpus: Sequence[bytes]) -> None:
    with connections(port, _CONNECTIONS) as clients:
        for start in range(0, len(corpus), _CONNECTIONS):
            wave = list(zip(clients, corpus[start : start + _CONNECTIONS], strict=False))
            for client, request in wave:
                client.send(request)
            for client, _ in wave:
                client.answer()


def _control(option: str, pid: int) -> None:
    ran = subprocess.run(
        [program("callgrind_control"), option, str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if ran.returncode or "Error" in ran.stdout + ran.stderr:
        raise BenchmarkError(f"callgrind_control {option} {pid}: {(ran.stdout + ran.stderr).strip()}")


def _dumps(pid: int, files: Path) -> list[Path]:
    return sorted(files.glob(f"out.{pid}.*"), key=lambda path: int(path.suffix[1:]))


def _dumped(pid: int, files: Path) -> int:
    """Have the process write what it counted since zero; the number of instructions."""
    _control("--dump", pid)
    dumps = _dumps(pid, files)
    found = (
        re.search(r"^(?:summary|totals): (\d+)", dumps[-1].read_text(errors="replace"), re.MULTILINE)
        if dumps
        else None
    )
    if found is None:
        raise BenchmarkError(f"process {pid} wrote no profile into {files}")
    return int(found[1])
