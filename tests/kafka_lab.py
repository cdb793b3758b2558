"""One broker and one Connect worker for all tests that need them, started by whoever asks first.

Tests run in several processes; they share the pair through a lock file and a count of users in pytest's common base
directory. The last one ends them.
"""

import fcntl
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.connect import KafkaSettings, forget
from tests.cdc_shop import Shop, make_shop
from workshop.kafka import ConnectWorker, KafkaBroker, jars
from workshop.postgres import EmbeddedPostgres

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
            broker = KafkaBroker(directory / "broker", found, own=False, quick=True).start()
            worker = ConnectWorker(
                directory / "connect",
                found,
                broker=broker.address,
                environment={PASSWORD_VARIABLE: PASSWORD},
                own=False,
                quick=True,
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
def login(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a role that may do everything and comes over TCP with PASSWORD."""
    name = f"kafka_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(PASSWORD)
            )
        )
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def over_tcp(dsn: str, postgres: EmbeddedPostgres, *, role: str) -> str:
    """The database of `dsn` as a worker reaches it."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    return make_conninfo(host="127.0.0.1", port=postgres.port, dbname=name, user=role, password=PASSWORD)


@contextmanager
def kafka_shop(
    source: str,
    target: str,
    postgres: EmbeddedPostgres,
    *,
    role: str,
    kafka: KafkaLab,
    partitions: int = 1,
) -> Iterator[Shop]:
    """The shop of two empty databases with the stream between them through `kafka`; its connector goes at the end."""
    made = make_shop(source, target, f"stream_{secrets.token_hex(4)}")
    settings = KafkaSettings(kafka.bootstrap, kafka.connect, topic=made.config.slot, partitions=partitions)
    yield Shop(replace(made.config, source_dsn=over_tcp(source, postgres, role=role), kafka=settings))
    forget(settings, name=made.config.slot)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
