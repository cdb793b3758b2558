"""wrk against a running server, one thread, keep-alive, for a while: a `Round`.

wrk is a closed loop: each connection sends its next request when the last was answered. So requests/s is what
a contender can carry, and latencies are those at that load, its own; they are not comparable as "latency at
1,000 requests/s" would be.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proxy.corpus import as_file, requests
from benchmarks.proxy.figures import Body, Round, Setup
from benchmarks.proxy.processes import BenchmarkError, Server, ended_seconds, machine_seconds, pinned

_SCRIPT = Path(__file__).with_name("requests.lua")
_PATIENCE = "10s"  # wrk counts slower answers as timeouts


@dataclass(frozen=True, slots=True)
class Wrk:
    """The load generator. `directory` holds the requests; `cores` is where it runs."""

    directory: Path
    cores: Sequence[int]

    @classmethod
    def prepare(cls, directory: Path, cores: Sequence[int]) -> "Wrk":
        """Write the requests."""
        for body in Body:
            (directory / body.name).write_bytes(as_file(requests(body)))
        return cls(directory, cores)

    def drive(
        self, server: Server, *, upstream: Server, contender: str, setup: Setup, seconds: int, number: int
    ) -> Round:
        """One round. Raises BenchmarkError when wrk fails or not one request was answered."""
        everything, known = machine_seconds(), self._known(server, upstream)
        before = server.cpu_seconds()
        told = self._run(server.launch.port, setup, seconds)
        cpu = server.cpu_seconds() - before
        others = machine_seconds() - everything - (self._known(server, upstream) - known)
        if not told["requests"]:
            raise BenchmarkError(f"{contender} answered nothing in {seconds} s ({setup})")
        return Round(
            contender=contender,
            setup=setup,
            number=number,
            requests=int(told["requests"]),
            requests_per_second=round(told["requests"] / told["seconds"], 1),
            p50_ms=told["p50"],
            p99_ms=told["p99"],
            p999_ms=told["p999"],
            errors=int(sum(told[kind] for kind in ("connect", "read", "write", "status", "timeout"))),
            cpu_us=round(cpu / told["requests"] * 1e6, 2),
            busy=round(cpu / told["seconds"], 3),
            others=round(max(0.0, others) / told["seconds"], 3),
        )

    @staticmethod
    def _known(server: Server, upstream: Server) -> float:
        shared = 0.0 if server is upstream else upstream.cpu_seconds()
        return server.cpu_seconds() + shared + ended_seconds()

    def _run(self, port: int, setup: Setup, seconds: int) -> dict[str, float]:
        command = [
            "wrk",
            "-t1",
            f"-c{setup.connections}",
            f"-d{seconds}s",
            "--latency",
            "--timeout",
            _PATIENCE,
        ]
        command += [
            "-s",
            str(_SCRIPT),
            f"http://127.0.0.1:{port}/",
            "--",
            str(self.directory / setup.body.name),
        ]
        ran = subprocess.run(pinned(command, self.cores), capture_output=True, text=True, check=False)
        lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
        if ran.returncode or len(lines) != 1:
            raise BenchmarkError(f"wrk failed ({ran.returncode}): {ran.stderr or ran.stdout}")
        told: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
        return told
