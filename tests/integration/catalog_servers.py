"""A real shop and a real catalogue service side by side, the service filled through the plan's mapping.

Used by the catalogue's tests that compare the two. Everything runs on the session's PostgreSQL, each server
in a process of its own.
"""

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from cdc import statements
from cdc.mapping import Mapping as TableMappings
from cdc.mapping import parse_mapping
from chassis.yamlfile import load
from workshop.postgres import EmbeddedPostgres, free_port

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "migration_plans" / "plans" / "catalog.yaml"
HOST = "localhost:8000"
CATALOG = ["--factory", "extracted.catalog.app:create_app"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, sent byte for byte: `target` goes into the request line as it is."""

    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = "".join(f" {name}={value!r}" for name, value in self.headers.items())
        return f"{self.method} {self.target[:160]}{extra[:160]}"


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A running HTTP server of this machine."""

    name: str
    port: int

    def ask(self, asked: Asked) -> Answered:
        """Send one request on a connection of its own. No client library: they tidy up what they send."""
        headers = {"Host": HOST, "Connection": "close", **asked.headers}
        lines = [f"{asked.method} {asked.target} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items() if v)]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            response = http.client.HTTPResponse(connection, method=asked.method)
            response.begin()
            body = response.read()
        return Answered(response.status, {n.lower(): v for n, v in response.getheaders()}, body)


@dataclass(frozen=True, slots=True)
class Databases:
    """The shop's and the catalogue's database (superuser DSNs), and what servers on them need."""

    source_dsn: str
    target_dsn: str
    mapping: TableMappings
    shop_environment: Mapping[str, str]
    catalog_environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Shops:
    """Both servers, their databases, and session cookies of two users of the shop."""

    monolith: Server
    service: Server
    databases: Databases
    cookies: Mapping[str, str]


def read_mapping() -> TableMappings:
    """The mapping of the catalogue's plan."""
    data, places = load(PLAN)
    return parse_mapping(data["tables"], places)


def copy_through(mapping: TableMappings, source_dsn: str, target_dsn: str) -> None:
    """Replace the target's rows by the source's, mapped; one transaction on each side."""
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn) as target:
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        target.execute("SET CONSTRAINTS ALL DEFERRED")
        for table in reversed(mapping.tables):
            target.execute(statements.wipe(table).encode())
        for table in mapping.tables:
            select = f"COPY ({statements.snapshot_select(table)}) TO STDOUT".encode()
            with (
                source.cursor().copy(select) as rows,
                target.cursor().copy(statements.copy_target(table).encode()) as sink,
            ):
                for block in rows:
                    sink.write(block)


@contextmanager
def new_database(postgres: EmbeddedPostgres, prefix: str) -> Iterator[str]:
    """Superuser DSN of a database that is dropped at the end."""
    name = f"{prefix}_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield postgres.dsn(dbname=name)
    finally:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def serve(
    name: str, application: list[str], environ: Mapping[str, str], log: Path, *, not_ready: str = ""
) -> Iterator[Server]:
    """Run uvicorn with `application` until the block ends; yields when `/ready` says yes.

    With `not_ready`, a regular expression, it yields when `/ready` says no with a matching reason instead.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", *application, "--port", str(port), "--no-access-log"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environ), stdout=output, stderr=output)
    try:
        _wait_ready(name, port, process, log, not_ready)
        yield Server(name, port)
        process.terminate()
        # uvicorn shuts down in order and then raises the signal again, so its parent sees what ended it
        ended = process.wait(timeout=20)
        assert ended in {0, -signal.SIGTERM}, f"{name} ended with {ended}:\n{log.read_text()[-2000:]}"
    finally:
        process.kill()
        process.wait()


def _wait_ready(name: str, port: int, process: subprocess.Popen[bytes], log: Path, not_ready: str) -> None:
    last, deadline = "no answer", time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = Server(name, port).ask(Asked("/ready"))
        except OSError as error:
            last = str(error)
        else:
            last = answer.body.decode()
            if not_ready and answer.status == 503 and re.search(not_ready, last):
                return
            if not not_ready and answer.status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{name} is not ready ({last}):\n{log.read_text()[-3000:]}")


def run_python(arguments: list[str], environ: Mapping[str, str]) -> str:
    """Run a command of this repository; its standard output."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=dict(environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


def shop_environment(source_dsn: str, media: Path) -> dict[str, str]:
    """What the shop needs to run in a test."""
    return {
        **_clean_environment(),
        "SHOP_DATABASE_URL": source_dsn,
        "SHOP_SECRET_KEY": secrets.token_urlsafe(40),
        "SHOP_MEDIA_ROOT": str(media),
        "SHOP_PASSWORD_ITERATIONS": "1000",
        "STRANGLER_SEAM": "1",
    }


def catalog_environment(target_dsn: str) -> dict[str, str]:
    """What the catalogue service needs to run in a test."""
    return {**_clean_environment(), "CATALOG_DATABASE_URL": target_dsn}


def session_cookies(environ: Mapping[str, str]) -> dict[str, str]:
    """Cookie headers of a fresh session for one shopper and one member of staff."""
    code = """
import json
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
found = {}
for name, staff in (("shopper", False), ("staff", True)):
    user = get_user_model().objects.filter(is_staff=staff, is_active=True).order_by("pk").first()
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    found[name] = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
print("cookies:" + json.dumps(found))
"""
    output = run_python(["-m", "monolith.manage", "shell", "--verbosity", "0", "-c", code], environ)
    line = next(line for line in output.splitlines() if line.startswith("cookies:"))
    cookies: dict[str, str] = json.loads(line.removeprefix("cookies:"))
    return cookies


def _clean_environment() -> dict[str, str]:
    """This process's environment without what a developer's shell may have set for the servers."""
    prefixes = ("SHOP_", "CATALOG_", "STRANGLER_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@contextmanager
def seeded(
    postgres: EmbeddedPostgres, directory: Path, *, products: int, odd_rows: str
) -> Iterator[Databases]:
    """Two migrated databases: a seeded shop in which `odd_rows` (SQL) ran, and an empty catalogue."""
    with new_database(postgres, "shop") as source, new_database(postgres, "catalog") as target:
        shop = shop_environment(source, directory / "media")
        catalog = catalog_environment(target)
        run_python(["-m", "monolith.manage", "migrate", "--verbosity", "0"], shop)
        seed = f"--products {products} --users 40 --orders 0 --seed 7 --password demo"
        run_python(["-m", "monolith.manage", "seed_shop", *seed.split()], shop)
        with psycopg.connect(source) as connection:
            connection.execute(odd_rows.encode())
        run_python(["-m", "extracted.catalog", "migrate"], catalog)
        yield Databases(source, target, read_mapping(), shop, catalog)


@contextmanager
def both_shops(databases: Databases, directory: Path) -> Iterator[Shops]:
    """Fill the service from the shop, start both servers."""
    copy_through(databases.mapping, databases.source_dsn, databases.target_dsn)
    shop = ["monolith.config.asgi:application"]
    with (
        serve("monolith", shop, databases.shop_environment, directory / "monolith.log") as left,
        serve("service", CATALOG, databases.catalog_environment, directory / "service.log") as right,
    ):
        yield Shops(left, right, databases, session_cookies(databases.shop_environment))
