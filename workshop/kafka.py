"""A real Kafka broker and a real Kafka Connect worker with Debezium, from Maven artifacts: no Docker, no Confluent.

    jars()                     the class path, copied by Maven once for each version of deploy/kafka/*.xml
    KafkaBroker(...)           one KRaft node: broker and controller
    ConnectWorker(...)         one distributed worker; its REST port is what `cdc.connect` talks to

Needs Java 17 and Maven. Everything listens on loopback, without passwords: for tests and workshops. `python -m
workshop.kafka up|down|jars` is what `make kafka-up` and the others run.

Formatting and starting a node: https://kafka.apache.org/documentation/#quickstart; worker settings:
https://kafka.apache.org/documentation/#connectconfigs.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from workshop.children import end_with_parent
from workshop.postgres import free_port

_CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "kafka"
JARS = Path("var/kafka")
"""Where the jars lie unless told, below the current directory."""
_OLDEST_JAVA = 17
_MEGABYTES = 400
_QUICK = ("-XX:TieredStopAtLevel=1",)  # the simple compiler alone
_TAIL = 15
_CLUSTER = "c3RyYW5nbGVyLXdvcmtzaG8"  # 16 bytes in base64url: a workshop's cluster needs no other name


class KafkaError(Exception):
    """Kafka cannot be had or started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Jars:
    """Where Maven put things: `libs` is the class path of broker and worker, `plugins` what Connect loads."""

    libs: Path
    plugins: Path


def jars(directory: Path, *, peer: bool = False) -> Jars:
    """The jars below `directory`, copied there first when deploy/kafka has changed or never was.

    `peer`: also Debezium's JDBC sink. Raises KafkaError without Java 17 or Maven, or when Maven fails.
    """
    java()
    poms = [_CONFIG / "pom.xml", _CONFIG / "connectors" / "pom.xml"]
    if peer:
        poms.append(_CONFIG / "peer" / "pom.xml")
    missing = [str(pom) for pom in poms if not pom.exists()]
    if missing:
        raise KafkaError(f"{missing[0]} is missing; run this from a checkout of the project")
    content = b"".join(pom.read_bytes() for pom in poms)
    digest = hashlib.sha256(content + bytes([peer])).hexdigest()[:12]
    home = directory.resolve() / f"jars-{digest}"
    found = Jars(home / "libs", home / "plugins")
    if home.exists():
        return found
    partial = home.with_name(f"{home.name}.{os.getpid()}")
    connectors = partial / "plugins" / "debezium"
    try:
        _maven(poms[0], partial / "libs")
        _maven(poms[1], connectors)
        if peer:
            _maven(
                poms[2], partial / "plugins" / "jdbc"
            )  # Connect keeps plugins apart, so releases may differ
        partial.rename(home)
    except OSError as error:
        if not home.exists():  # else another process was faster; its copy is the same
            raise KafkaError(f"{home} cannot be made: {error.strerror}; choose another directory") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _maven(pom: Path, target: Path) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise KafkaError("Maven (mvn) is missing; install it with this machine's package manager")
    done = subprocess.run(
        [program, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={target}",
         "-DincludeScope=runtime"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-_TAIL:]
        raise KafkaError("Maven could not fetch Kafka; is its repository reachable?\n" + "\n".join(lines))


def java() -> str:
    """The Java program. Raises KafkaError when there is none or it is older than 17."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    remedy = "install a Java 17 runtime (Debian: openjdk-17-jre-headless), or set JAVA_HOME"
    if program is None or not Path(program).exists():
        raise KafkaError(f"Java is missing; {remedy}")
    said = subprocess.run([program, "-version"], check=False, capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        raise KafkaError(f"{program} is {said.splitlines()[0] if said else 'no Java'}, too old; {remedy}")
    return program


class _JavaServer(ABC):
    """One JVM below `directory`, with its log there. `own`: it ends with the thread that started it. `quick`: it starts
    in half the processor time and never gets as fast, as suits a workshop or a test.
    """

    name = ""

    def __init__(
        self, directory: Path, found: Jars, *, port: int | None, own: bool = True, quick: bool = False
    ) -> None:
        self.directory = directory.resolve()
        self.jars = found
        self.port = port if port is not None else free_port()
        self.log = self.directory / f"{self.name}.log"
        self.environment: dict[str, str] = {}
        self._own = own
        self._quick = quick
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended, when nobody asked it to."""
        return self._process.poll() if self._process else None

    def start(self, *, timeout: float = 60.0) -> Self:
        """Start it and return when it serves. Raises KafkaError with the end of its log otherwise."""
        self.spawn()
        deadline = time.monotonic() + timeout
        while (reason := self.not_ready()) is not None:
            code = self.exit_code
            if code is not None or time.monotonic() > deadline:
                reason = f"it ended with exit code {code}" if code is not None else reason
                self.stop(how=signal.SIGKILL)
                raise KafkaError(
                    f"{self.name} did not start: {reason}; the end of {self.log}:\n{self._tail()}"
                )
            time.sleep(0.1)
        return self

    def spawn(self) -> None:
        """Start it; return at once. Raises KafkaError when its port is taken."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise KafkaError(f"port {self.port} is taken, {self.name} cannot listen there") from error
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = self._prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(arguments),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.directory, start_new_session=True, env={**os.environ, **self.environment},
                # only a bound system call, safe after a fork with threads; see workshop.children
                preexec_fn=end_with_parent(signal.SIGKILL) if self._own else None,  # noqa: PLW1509
            )  # fmt: skip

    def stop(self, *, how: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> None:
        """End it: SIGTERM in good order, SIGKILL as a crash."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)
        self._process = None

    def leave(self) -> int:
        """Let it run on when this process ends; its process id."""
        process, self._process = self._process, None
        assert process is not None, "start() comes before leave()"
        process.returncode = 0  # Popen would warn of a child that nobody waits for
        return process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(how=signal.SIGKILL)  # nothing in it is to outlive the block

    @abstractmethod
    def not_ready(self) -> str | None:
        """None when it serves, else why not yet."""

    @abstractmethod
    def _prepare(self) -> Sequence[str]:
        """Write its configuration; the main class and its arguments."""

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [
            java(), f"-Xmx{_MEGABYTES}m", "-XX:+UseSerialGC", *(_QUICK if self._quick else ()),
            f"-Dlog4j2.configurationFile={_CONFIG / 'log4j2.properties'}",
            "-cp", f"{self.jars.libs}/*", *arguments,
        ]  # fmt: skip

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_TAIL:])

    def _write(self, file: Path, settings: Mapping[str, object]) -> None:
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")


class KafkaBroker(_JavaServer):
    """One KRaft node. `settings` are added to its properties (https://kafka.apache.org/documentation/#brokerconfigs)."""

    name = "kafka"

    def __init__(
        self,
        directory: Path,
        found: Jars,
        *,
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
        own: bool = True,
        quick: bool = False,
    ) -> None:
        super().__init__(directory, found, port=port, own=own, quick=quick)
        self._controller_port = free_port()
        self._settings = dict(settings or {})

    @property
    def address(self) -> str:
        """Its bootstrap address."""
        return f"127.0.0.1:{self.port}"

    def not_ready(self) -> str | None:
        """The broker opens its port when it serves."""
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                return None
        return f"nobody listens on port {self.port}"

    def _prepare(self) -> Sequence[str]:
        file, data = self.directory / "server.properties", self.directory / "data"
        controller = f"127.0.0.1:{self._controller_port}"
        self._write(
            file,
            {
                "process.roles": "broker,controller",
                "node.id": 1,
                "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.address}",
                "controller.listener.names": "CONTROLLER",
                "controller.quorum.bootstrap.servers": controller,
                "log.dirs": data,
                "num.partitions": 1,
                "offsets.topic.replication.factor": 1,
                "offsets.topic.num.partitions": 4,
                "transaction.state.log.replication.factor": 1,
                "transaction.state.log.min.isr": 1,
                "share.coordinator.state.topic.replication.factor": 1,
                "group.initial.rebalance.delay.ms": 0,
                **self._settings,
            },
        )
        if not (data / "meta.properties").exists():
            format_ = ["kafka.tools.StorageTool", "format", "--standalone", "-t", _CLUSTER, "-c", str(file)]
            done = subprocess.run(self._command(format_), check=False, capture_output=True, text=True)
            if done.returncode:
                raise KafkaError(f"{data} cannot be formatted for Kafka:\n{done.stdout}{done.stderr}")
        return ["kafka.Kafka", str(file)]


class ConnectWorker(_JavaServer):
    """One distributed worker on `broker`, of the cluster `group`. Passwords reach connectors through its environment
    (`${env:NAME}`). `settings` are added to its properties.
    """

    name = "connect"

    def __init__(
        self,
        directory: Path,
        found: Jars,
        *,
        broker: str,
        port: int | None = None,
        group: str = "connect",
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        own: bool = True,
        quick: bool = False,
    ) -> None:
        super().__init__(directory, found, port=port, own=own, quick=quick)
        self._settings = dict(settings or {})
        self.environment = dict(environment or {})
        self._broker = broker
        self._group = group

    @property
    def url(self) -> str:
        """Its REST address."""
        return f"http://127.0.0.1:{self.port}"

    def not_ready(self) -> str | None:
        """It answers once it has joined its group."""
        try:
            with urlopen(f"{self.url}/connectors", timeout=2.0) as answer:  # noqa: S310  # http on loopback
                return None if answer.status == 200 else f"it says {answer.status}"
        except (URLError, OSError) as error:
            return f"{self.url} does not answer: {error}"

    def _prepare(self) -> Sequence[str]:
        file = self.directory / "worker.properties"
        topics = {
            f"{what}.storage.{key}": value
            for what in ("config", "offset", "status")
            for key, value in (("topic", f"{self._group}_{what}"), ("replication.factor", 1))
        }
        self._write(
            file,
            {
                "bootstrap.servers": self._broker,
                "group.id": self._group,
                **topics,
                "offset.storage.partitions": 1,
                "status.storage.partitions": 1,
                "key.converter": "org.apache.kafka.connect.json.JsonConverter",
                "value.converter": "org.apache.kafka.connect.json.JsonConverter",
                "key.converter.schemas.enable": "false",
                "value.converter.schemas.enable": "false",
                "config.providers": "env",
                "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
                "listeners": self.url,
                "plugin.path": self.jars.plugins,
                "plugin.discovery": "service_load",
                "offset.flush.interval.ms": 1000,
                **self._settings,
            },
        )
        return ["org.apache.kafka.connect.cli.ConnectDistributed", str(file)]


# `make kafka-up`, `make kafka-down`


def up(directory: Path, *, port: int, connect_port: int) -> Mapping[str, str]:
    """Start both in the background; the variables that a plan needs. Raises KafkaError."""
    running = directory / "kafka.json"
    if running.exists():
        raise KafkaError(f"{running} says that it runs already; `make kafka-down` ends it")
    found = jars(directory)
    # the password of the change stream's role, for connectors: see `strangler cdc connector register`
    broker = KafkaBroker(directory / "broker", found, port=port, own=False).start()
    worker = ConnectWorker(directory / "connect", found, broker=broker.address, port=connect_port, own=False)
    try:
        worker.start()
    except BaseException:
        broker.stop()
        raise
    running.write_text(json.dumps({"broker": broker.leave(), "connect": worker.leave()}), encoding="utf-8")
    return {"STRANGLER_KAFKA": broker.address, "STRANGLER_CONNECT": worker.url}


def down(directory: Path) -> bool:
    """End what `up` started; whether anything ran."""
    running = directory / "kafka.json"
    if not running.exists():
        return False
    pids: dict[str, int] = json.loads(running.read_text(encoding="utf-8"))
    for name in ("connect", "broker"):
        _end(pids[name])
    running.unlink()
    return True


def _end(pid: int, seconds: float = 20.0) -> None:
    command = Path(f"/proc/{pid}/cmdline")
    if command.exists() and b"java" not in command.read_bytes():
        return  # the number is somebody else's by now
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(
        prog="python -m workshop.kafka", description="Kafka and Connect without Docker."
    )
    parser.add_argument("what", choices=["up", "down", "jars"])
    parser.add_argument("--directory", type=Path, default=JARS)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--connect-port", type=int, default=8083)
    parser.add_argument("--peer", action="store_true", help="jars: also Debezium's JDBC sink")
    given = parser.parse_args(arguments)
    directory: Path = given.directory.resolve()
    try:
        match given.what:
            case "up":
                known = up(directory, port=given.port, connect_port=given.connect_port)
                print("Kafka and Connect run. A plan with `stream: {source: kafka}` finds them by")
                print("".join(f"  export {name}={value}\n" for name, value in known.items()), end="")
            case "down":
                print("ended" if down(directory) else f"nothing of {directory} runs")
            case _:
                print(jars(directory, peer=given.peer).libs)
    except KafkaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
