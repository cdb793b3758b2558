"""Servers of a benchmark: started, pinned to cores, waited for, measured through /proc, ended.

Figures are of the whole tree of processes below the one that was started (nginx has a master, our proxy a
parent), so nobody hides work in a child. Linux only.
"""

import os
import re
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 20.0


class BenchmarkError(Exception):
    """The benchmark cannot be run, or what it measured cannot be trusted: what, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a server is started. It is ready when `port` answers a GET of `ready` with 200."""

    command: Sequence[str]
    port: int
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    admin_port: int | None = None  # ours alone


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the contender on one core, load and upstream on the others."""

    contender: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """Raises BenchmarkError when there is only one core."""
        first, *rest = sorted(os.sched_getaffinity(0))
        if not rest:
            raise BenchmarkError("one core is not enough: contender and load would share it")
        return cls((first,), tuple(rest))

    @property
    def every(self) -> tuple[int, ...]:
        """All of them, for what is not pinned."""
        return self.contender + self.others


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """`command` on some cores only, with what it starts."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    launch: Launch

    def pids(self) -> list[int]:
        """The process and everything below it."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += [int(child) for child in children.read_text().split()]
        return found

    def worker(self) -> int:
        """The process that serves: the only leaf of the tree.

        Raises BenchmarkError when there are several.
        """
        parents = {self.process.pid} if len(self.pids()) > 1 else set()
        leaves = [pid for pid in self.pids() if pid not in parents]
        if len(leaves) != 1:
            raise BenchmarkError(f"{self.launch.command[0]}: {len(leaves)} workers where one was expected")
        return leaves[0]

    def cpu_seconds(self) -> float:
        """Processor time, user and kernel, of all its processes so far (in steps of 10 ms)."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS


def machine_seconds() -> float:
    """Processor time, user and kernel without interrupts, that all cores have spent since the machine started."""
    user, nice, system = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]
    return (int(user) + int(nice) + int(system)) / _TICKS


def ended_seconds() -> float:
    """Processor time of this process and of all children that it has waited for."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def _cpu_ticks(pid: int) -> int:
    # proc_pid_stat(5): the name, in brackets, may hold anything; utime and stime are the 14th and 15th field.
    after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after[11]) + int(after[12])


def resident(pid: int) -> int:
    """Bytes of memory that are resident now."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int) -> int:
    """The most bytes that were resident at once since `forget_peak`; the kernel keeps it, nothing is sampled."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Begin a new peak (proc_pid_clear_refs(5), 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"/proc/{pid}/status has no {key}: this kernel does not say it")
    return int(found[1]) * 1024


def allow_many_files() -> None:
    """As many open files as this user may have, for this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def serving(
    launch: Launch, *, log: Path, cores: Sequence[int], seconds: float = _START_SECONDS
) -> Iterator[Server]:
    """A server while it is needed. Raises BenchmarkError when it does not come up in `seconds`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(launch.command, cores),
            cwd=ROOT,
            env=os.environ | dict(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + seconds
        while (reason := _not_ready(launch)) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise BenchmarkError(f"did not start ({reason}): {' '.join(launch.command)}\n{tail}")
            time.sleep(0.05)
        yield Server(process, launch)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _not_ready(launch: Launch) -> str | None:
    """Why it is not, or None. An open port alone may be a queue that nobody serves yet."""
    try:
        with urlopen(f"http://127.0.0.1:{launch.port}{launch.ready}", timeout=5) as answer:
            return None if answer.status == 200 else f"status {answer.status}"
    except HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return str(error)
