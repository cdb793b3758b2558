"""Fixtures for every kind of test: one real PostgreSQL for the session, a fresh database for each test."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from chassis.speedups import activate
from strangler_proxy.speedups import PROXY
from tests.kafka_lab import KafkaLab, shared
from workshop.postgres import EmbeddedPostgres

# Before any test imports the data path: `make test` runs the proxy's tests on both builds.
activate(PROXY)
# How long an example takes says how busy the machine is, not whether a law holds.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests and those on real servers first: a worker that gets one of them last would keep the whole
    run waiting.
    """
    slow = {
        item.path
        for item in items
        if item.get_closest_marker("slow") or "kafka" in getattr(item, "fixturenames", ())
    }
    ranks = {"acceptance": 1, "contract": 2, "integration": 2}
    items.sort(key=lambda item: 0 if item.path in slow else ranks.get(item.path.parent.name, 3))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL 16 with wal_level=logical. fsync is off: nothing here crashes the machine."""
    directory: Path = tmp_path_factory.mktemp("postgres")
    server = EmbeddedPostgres(directory, durable=False)
    server.start()
    try:
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaLab]:
    """A real broker and a real Connect worker with Debezium, one pair for all processes of the run."""
    base = tmp_path_factory.getbasetemp()
    with shared((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kafka") as lab:
        yield lab


@pytest.fixture
def make_database(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Call it for the superuser DSN of a new, empty database; all of them are dropped after the test."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return postgres.dsn(dbname=name)

    yield make
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for name in made:
            slots = connection.execute(
                "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [name]
            ).fetchall()
            for slot, pid in slots:
                if pid is not None:
                    connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(make_database: Callable[[], str]) -> str:
    """Superuser DSN of a new, empty database, dropped after the test."""
    return make_database()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(postgres: EmbeddedPostgres) -> None:
    """Point Django's test database at the session's PostgreSQL (pytest-django calls this hook)."""
    from django.db import connections

    parts = urlsplit(postgres.dsn())
    connections.databases["default"] |= {
        "NAME": "shop",
        "USER": parts.username or "postgres",
        "PASSWORD": "",
        "HOST": str(postgres.socket_dir),
        "PORT": str(postgres.port),
    }


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a part that was not tested: the run fails and says which."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if skipped and not hasattr(session.config, "workerinput"):
        names = "\n".join(f"  {report.nodeid}: {report.longrepr}" for report in skipped)
        reporter.write_line(f"\n{len(skipped)} skipped; nothing may be skipped:\n{names}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
