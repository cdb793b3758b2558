"""One broker and one Connect worker for all tests that need them, started by whoever asks first.

Tests run in several processes; they share the pair through a lock file and a count of users in pytest's common base
directory. The last one ends them.
"""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workshop.kafka import ConnectWorker, KafkaBroker, jars

JARS = Path(__file__).resolve().parents[1] / "var" / "kafka"
PASSWORD_VARIABLE = "STRANGLER_CONNECT_PASSWORD"
PASSWORD = "of the change stream's role"
"""What every connector of the tests finds in its worker's environment."""


@dataclass(frozen=True, slots=True)
class KafkaLab:
    """Where the pair is."""

    bootstrap: str
    connect: str


@contextmanager
def shared(directory: Path) -> Iterator[KafkaLab]:
    """The pair whose state lies in `directory`, the same one for every process that names it."""
    directory.mkdir(parents=True, exist_ok=True)
    state = directory / "kafka.json"
    with _locked(directory):
        known = json.loads(state.read_text()) if state.exists() else None
        if known is None:
            found = jars(JARS)
            broker = KafkaBroker(directory / "broker", found, own=False).start()
            worker = ConnectWorker(
                directory / "connect",
                found,
                broker=broker.address,
                environment={PASSWORD_VARIABLE: PASSWORD},
                own=False,
            )
            try:
                worker.start()
            except BaseException:
                broker.stop(how=signal.SIGKILL)
                raise
            known = {
                "users": 0,
                "pids": [worker.leave(), broker.leave()],
                "bootstrap": broker.address,
                "connect": worker.url,
            }
        known["users"] += 1
        state.write_text(json.dumps(known))
    try:
        yield KafkaLab(known["bootstrap"], known["connect"])
    finally:
        with _locked(directory):
            known = json.loads(state.read_text())
            known["users"] -= 1
            if known["users"]:
                state.write_text(json.dumps(known))
            else:
                state.unlink()
                for pid in known["pids"]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
