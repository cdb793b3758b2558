"""`make compose-test`: docker-compose.yml, proven on a real engine.

    config ─► images ─► up ─► the catalogue moves under traffic, Kafka carrying its changes ─► it is killed on
    the way ─► both databases equal ─► Prometheus has seen it ─► down, nothing is left

Without an engine, `dockerd` is started privately for the run (as root). Where no image registry is reachable (found out
by itself; `--local` says so), what would be pulled is built from Debian's packages, wheels and Maven artifacts:
everything of ours is built from the Dockerfile that users get.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
OVERRIDE = "deploy/compose/test/override.yml"
PROJECT = "strangler-test"
PYTHON_IMAGE = "strangler-test/python:bookworm"
STAGE_SECONDS = 240.0


class ComposeError(Exception):
    """A check that does not hold; the message says which."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Compose:
    """docker-compose on one project."""

    def __init__(self, *, local: bool, environment: dict[str, str], ports: dict[str, str]) -> None:
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        files = ["-f", "docker-compose.yml", *(["-f", OVERRIDE] if local else [])]
        self._command = [*program, "-p", PROJECT, *files]
        self._environment = {**os.environ, **environment, **ports}

    def run(self, *arguments: str, check: bool = True, seconds: float = 900) -> str:
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise ComposeError(
                f"docker-compose {' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
            )
        return done.stdout

    def strangler(self, *arguments: str) -> str:
        """A command of ours in the controller's container, with its connections."""
        return self.run("exec", "-T", "controller", "strangler", *arguments, "--set", "stream.source=kafka")


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The variables that name a Docker engine; a private one is started when none answers."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        yield {}
        return
    program = shutil.which("dockerd")
    if program is None or os.geteuid() != 0:
        raise ComposeError("no Docker engine answers; start one, or install docker.io and run this as root")
    # images are worth keeping between runs
    home = Path("/var/lib/strangler-compose-test")
    home.mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="strangler-dockerd-"))
    address = f"unix://{run}/docker.sock"
    with (run / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--data-root", str(home), "--exec-root", str(run / "exec"), "--pidfile", str(run / "pid"),
             "--host", address],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        ask = ["docker", "-H", address, "info"]
        wait("dockerd answers", lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
        yield {"DOCKER_HOST": address}
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(run, ignore_errors=True)


def wait(what: str, reached: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise ComposeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


def base_image(environment: dict[str, str]) -> None:
    """A Python image made of Debian's packages, where none can be pulled."""
    docker = ["docker", *(["-H", environment["DOCKER_HOST"]] if "DOCKER_HOST" in environment else [])]
    known = subprocess.run([*docker, "image", "inspect", PYTHON_IMAGE], capture_output=True, check=False)
    if known.returncode == 0:
        return
    say("making a base image of Debian's packages")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        packages = "ca-certificates,python3,python3-venv,python3-pip,curl"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)],
            check=True, capture_output=True,
        )  # fmt: skip
        authorities = Path("/etc/ssl/certs/ca-certificates.crt")
        shutil.copy(authorities, root / "etc/ssl/certs/ca-certificates.crt")
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {authorities}\n")
        archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            [*docker, "import", "-", PYTHON_IMAGE], stdin=archive.stdout, check=True, capture_output=True
        )
        archive.wait()


def kafka_jars() -> None:
    """The jars of deploy/kafka where the stand-in's Dockerfile copies them from."""
    from workshop.kafka import jars  # only stand-ins need Java and Maven

    found = jars(ROOT / "var" / "kafka")
    image = ROOT / "var" / "kafka" / "image"
    shutil.rmtree(image, ignore_errors=True)
    shutil.copytree(found.libs, image / "libs")
    shutil.copytree(found.plugins, image / "plugins")


def secrets() -> dict[str, str]:
    """What `make compose-env` would write into .env, in a file of our own."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "env"
        subprocess.run(
            [sys.executable, "deploy/compose/make_env.py", str(file)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        return dict(line.split("=", 1) for line in file.read_text().splitlines())


class Shoppers:
    """Many users who look at products, through the proxy, until stopped."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.arms: Counter[str] = Counter()
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._shop, args=(number,)) for number in range(4)]

    def __enter__(self) -> "Shoppers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _shop(self, number: int) -> None:
        users = [httpx.Client(base_url=self._url, timeout=20, trust_env=False) for _ in range(25)]
        visit = number
        while not self._stop.wait(0.08):
            visit += 1
            answer = users[visit % len(users)].get("/api/products/", params={"page": 1 + visit % 20})
            self.statuses[answer.status_code] += 1
            self.arms[answer.headers.get("x-strangler-arm", "")] += 1
        for user in users:
            user.close()


def exercise(compose: Compose, *, shop: str, prometheus: str) -> None:
    """Everything that is checked between up and down."""

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(compose.strangler("status", "catalog", "--json"))
        return found

    def reached(percent: float) -> Callable[[], bool]:
        return lambda: (status()["live_percent"] or 0) >= percent

    with Shoppers(shop) as shoppers:
        compose.strangler("start", "catalog")
        wait("a quarter of the users are on the service", reached(25), seconds=STAGE_SECONDS)
        say("25 % reached; killing the service's container")
        compose.run("kill", "-s", "SIGKILL", "catalog")
        wait(
            "the failing service is taken out of traffic",
            lambda: status()["live_percent"] == 0 and shoppers.arms["fallback"] > 0,
            seconds=60,
        )
        say(f"rolled back: {status()['reason']}")
        compose.run("start", "catalog")
        wait("it went on by itself to 100 %", lambda: status()["state"] == "done", seconds=STAGE_SECONDS)
        say("every stage has passed; comparing both databases while shoppers go on")
        tables = json.loads(compose.strangler("verify", "catalog", "--json"))["tables"]
        if not tables or any(table["differing"] for table in tables.values()):
            raise ComposeError(f"the databases differ: {tables}")
    wrong = {code: count for code, count in shoppers.statuses.items() if code >= 500}
    if wrong:
        raise ComposeError(f"shoppers saw errors: {wrong} of {sum(shoppers.statuses.values())}")
    say(f"{sum(shoppers.statuses.values())} requests, none failed; answered by {dict(shoppers.arms)}")

    def measured(query: str) -> float:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, trust_env=False).json()
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else -1.0

    wait(
        "Prometheus knows the percentage", lambda: measured('strangler_migration_percent{what="live"}') == 100
    )
    if measured('sum(strangler_fallbacks_total{group="catalog"})') <= 0:
        raise ComposeError("Prometheus has seen no fallback")
    published = compose.run("ps", "-q").split()
    say(f"Prometheus has seen it; {len(published)} containers")


def end(compose: Compose) -> None:
    """Down, and nothing stays."""
    compose.run("down", "-v", "--remove-orphans")
    left = compose.run("ps", "-q").split()
    if left:
        raise ComposeError(f"still there after down: {left}")
    say("down; nothing is left")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 all holds, 1 something does not."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description="Prove docker-compose.yml.")
    parser.add_argument(
        "--local", action="store_true", help="build stand-ins for images instead of pulling them"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running")
    given = parser.parse_args(arguments)
    from workshop.postgres import free_port  # as above

    ports = {
        f"{name}_PORT": str(free_port()) for name in ("SHOP", "ADMIN", "PROMETHEUS", "GRAFANA", "JAEGER")
    }
    shop, prometheus = (f"http://127.0.0.1:{ports[f'{name}_PORT']}" for name in ("SHOP", "PROMETHEUS"))
    try:
        with ExitStack() as stack:
            environment = stack.enter_context(engine())
            local = given.local or not pulls(environment)
            if local:
                say("no image registry: stand-ins are built from packages")
                base_image(environment)
                kafka_jars()
            compose = Compose(local=local, environment={**environment, **secrets()}, ports=ports)
            compose.run("config", "-q")
            if not given.keep:
                stack.callback(compose.run, "down", "-v", "--remove-orphans", check=False)
            say("building images")
            compose.run("build", seconds=1800)
            say("starting")
            compose.run("up", "-d", seconds=600)
            exercise(compose, shop=shop, prometheus=prometheus)
            if not given.keep:
                end(compose)
    except ComposeError as error:
        print(f"compose-test: {error}", file=sys.stderr)
        return 1
    finally:
        # the controller has edited the file it was given
        subprocess.run(
            ["git", "checkout", "-q", "--", "deploy/compose/config/routes.yaml"], cwd=ROOT, check=False
        )
    return 0


def pulls(environment: dict[str, str]) -> bool:
    """Is an image registry reachable?"""
    done = subprocess.run(
        ["docker", "pull", "-q", "prom/prometheus:v3.5.0"], env={**os.environ, **environment}, capture_output=True,
        check=False, timeout=300,
    )  # fmt: skip
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
