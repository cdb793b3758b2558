"""How fast one worker of the proxy is, against named peers in the same run on the same machine.

    python benchmarks/proxy/run.py [--seconds 3] [--connections 32] [--repeat 3] [--output FILE]

One nginx worker answers 993 bytes of JSON as both backends; the split is 50/50, decided anew for each
request by a hash of its cookie (wrk is one user, so it always falls to the same side). `wrk -t1` drives,
keep-alive; each contender runs alone, in turn, `--repeat` times, and every round is in the result (the
median is printed). Contenders: the upstream itself, this proxy (one worker: a sticky group, and a path no
group claims), nginx `split_clients` as a proxy, and FastAPI + httpx streaming under uvicorn. nginx and wrk
must be installed; without them this ends with an error, never with a shorter list that looks complete.

The result is JSON: `{command, machine, medians: {contender: ...}, rounds: [{contender, requests_per_second,
p50_ms, p99_ms, errors}]}`. Everybody shares this machine's cores with the load generator, so figures compare with each
other, not with other runs.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

from strangler_proxy.identity import ANONYMOUS_COOKIE, CookieSigner
from workshop.postgres import free_port

_NGINX = "nginx split_clients"
_SECRET = "a secret for the benchmark"  # noqa: S105  # signs nothing but this run's cookie
_ROOT = Path(__file__).resolve().parents[2]

_UPSTREAM = """\
worker_processes 1; daemon off; pid {directory}/upstream.pid; error_log {directory}/upstream.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000;
    server {{ listen 127.0.0.1:{a}; listen 127.0.0.1:{b};
              location / {{ default_type application/json; return 200 '{body}'; }} }}
}}
"""

_SPLIT = """\
worker_processes 1; daemon off; pid {directory}/split.pid; error_log {directory}/split.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000; split_clients $http_cookie $side {{ 50% a; * b; }}
    upstream a {{ server 127.0.0.1:{a}; keepalive 64; keepalive_requests 100000000; }} upstream b {{ server
    127.0.0.1:{b}; keepalive 64; keepalive_requests 100000000; }} server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://$side; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; }} }} }}
"""

_ROUTES = """\
version: 1
backends: {{monolith: {{url: "http://127.0.0.1:{a}"}}, catalog: {{url: "http://127.0.0.1:{b}"}}}}
default: monolith
groups: {{catalog: {{backend: catalog, paths: [/api/*], percent: 50}}}}
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one contender."""

    contender: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk is told."""

    seconds: int
    connections: int
    cookie: str

    def run(self, contender: str, url: str) -> Round:
        """Drive `url`. Raises RuntimeError when wrk's report cannot be read."""
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--latency"]
        command += ["-H", f"Cookie: {self.cookie}", url]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
        p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", report)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", report)
        if rate is None or p50 is None or p99 is None:
            raise RuntimeError(f"wrk's report for {contender} cannot be read:\n{report}")
        errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", report))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
        errors += int(bad[1]) if bad else 0
        return Round(contender, float(rate[1]), _ms(p50), _ms(p99), errors)


def _ms(match: re.Match[str]) -> float:
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def _ready(port: int) -> bool:
    """Does the server answer a request? An open port alone may be a queue that nobody serves yet."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def process(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """A server while it is needed; ready when it answers a request."""
    started = subprocess.Popen(command, cwd=_ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _ready(port):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield
    finally:
        started.terminate()
        started.wait(15)


def run(load: Load, repeat: int) -> list[Round]:
    """All contenders, `repeat` rounds each, taking turns."""
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        a, b, split, ours, admin, peer = (free_port() for _ in range(6))
        values = {"directory": directory, "a": a, "b": b, "port": split, "body": "x" * 993}
        for file, text in (("upstream", _UPSTREAM), ("split", _SPLIT), ("routes.yaml", _ROUTES)):
            (directory / file).write_text(text.format(**values))
        stack.enter_context(process(["nginx", "-c", str(directory / "upstream")], a))
        options = [
            "--routes",
            str(directory / "routes.yaml"),
            "--port",
            str(ours),
            "--admin-port",
            str(admin),
        ]
        contenders = {
            "upstream itself": (None, a, "/api/x"),
            "strangler proxy, sticky group": (
                [sys.executable, "-m", "strangler_proxy", *options, "--workers", "1"], ours, "/api/x"
            ),
            "strangler proxy, no group": (
                [sys.executable, "-m", "strangler_proxy", *options, "--workers", "1"], ours, "/other"
            ),
            _NGINX: (["nginx", "-c", str(directory / "split")], split, "/api/x"),
            "FastAPI + httpx streaming": (
                [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "critical", "--port",
                 str(peer), "benchmarks.proxy.fastapi_peer:application"], peer, "/api/x"
            ),
        }  # fmt: skip
        environment = {"STRANGLER_COOKIE_SECRET": _SECRET, "PEER_A": str(a), "PEER_B": str(b)}
        for _ in range(repeat):
            for contender, (command, port, path) in contenders.items():
                with ExitStack() as alone:
                    if command is not None:
                        alone.enter_context(process(command, port, **environment))
                    rounds.append(load.run(contender, f"http://127.0.0.1:{port}{path}"))
    return rounds


def summary(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Medians of each contender, and its rate beside nginx's."""
    medians: dict[str, dict[str, float]] = {}
    for contender in dict.fromkeys(each.contender for each in rounds):
        mine = [each for each in rounds if each.contender == contender]
        medians[contender] = {
            "requests_per_second": statistics.median(each.requests_per_second for each in mine),
            "p50_ms": round(statistics.median(each.p50_ms for each in mine), 3),
            "p99_ms": round(statistics.median(each.p99_ms for each in mine), 3),
            "errors": sum(each.errors for each in mine),
        }
    nginx = medians[_NGINX]["requests_per_second"]
    for found in medians.values():
        found["to_nginx"] = round(found["requests_per_second"] / nginx, 3)
    return medians


def main() -> int:
    """Run, print medians, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            sys.stderr.write(f"{tool} is needed: install the system package {tool}\n")
            return 6
    signed = CookieSigner(_SECRET.encode()).sign(ANONYMOUS_COOKIE, b"benchmark").decode()
    load = Load(options.seconds, options.connections, f"strangler_id={signed}")
    rounds = run(load, options.repeat)
    medians = summary(rounds)
    for contender, found in medians.items():
        sys.stdout.write(
            f"{contender:32} {found['requests_per_second']:10,.0f} requests/s   p50 {found['p50_ms']:7.2f} ms   "
            f"p99 {found['p99_ms']:7.2f} ms   {found['to_nginx']:6.3f} x nginx\n"
        )
    result = {
        "command": "python benchmarks/proxy/run.py "
        f"--seconds {load.seconds} --connections {load.connections} --repeat {options.repeat}",
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "medians": medians,
        "rounds": [asdict(each) for each in rounds],
    }
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if not any(each.errors for each in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
