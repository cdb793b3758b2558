"""The catalogue service as a process: readiness, faults it must survive, and what it must not take."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.integration.catalog_servers import (
    CATALOG,
    ROOT,
    Asked,
    Server,
    catalog_environment,
    run_python,
    serve,
)
from workshop.postgres import EmbeddedPostgres

_ROWS = """
INSERT INTO category (category_id, parent_id, slug, title, sort_key) VALUES (1, NULL, 'home', 'Home', 0);
INSERT INTO product (product_id, category_id, sku, slug, title, brand, description, price_cents, currency,
                     specs, listed, created_at, changed_at)
VALUES (1, 1, 'A-1', 'lamp', 'Lamp', 'Lumen', 'A lamp.', 1050, 'EUR', '{}', true, now(), now());
"""


@pytest.fixture
def catalog_role(postgres: EmbeddedPostgres, database: str) -> Iterator[str]:
    """URL for a role that owns the database and no more, as in production."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    role = f"{name}_role"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(str(name)), sql.Identifier(role))
        )
        connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(role)))
    yield postgres.dsn(dbname=str(name), user=role, password="x")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
        )
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(role)))
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(str(name)))
        )
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.fixture
def service(catalog_role: str, log: Path) -> Iterator[Server]:
    """A running service with one product."""
    environ = catalog_environment(catalog_role)
    run_python(["-m", "extracted.catalog", "migrate"], environ)
    with psycopg.connect(catalog_role) as connection:
        connection.execute(_ROWS.encode())
    with serve("catalog", CATALOG, environ, log) as running:
        yield running


def test_unsafe_methods_are_the_shops(service: Server) -> None:
    for target, method in (("/api/products/lamp/", "PATCH"), ("/api/products/lamp/reviews/", "POST")):
        answer = service.ask(Asked(target, method))
        assert answer.status == 421
        assert answer.headers["content-type"] == "application/problem+json"
        problem = json.loads(answer.body)
        assert (problem["status"], problem["owner"]) == (421, "the shop")
        assert "the shop, which owns these rows" in problem["detail"]


def test_a_revoked_table_is_a_500_until_it_is_granted_again(
    service: Server, catalog_role: str, log: Path
) -> None:
    asked = Asked("/api/products/", headers={"X-Request-ID": "broken-1"})
    assert service.ask(asked).status == 200
    with psycopg.connect(catalog_role, autocommit=True) as owner:
        owner.execute("REVOKE SELECT ON product FROM CURRENT_USER")
        broken = service.ask(asked)
        owner.execute("GRANT SELECT ON product TO CURRENT_USER")
    assert (broken.status, json.loads(broken.body)["request_id"]) == (500, "broken-1")
    assert b"permission denied" not in broken.body
    assert service.ask(asked).status == 200
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    unhandled = [line for line in lines if line["event"] == "unhandled"]
    assert [line["request_id"] for line in unhandled] == ["broken-1"]
    assert "permission denied for table product" in unhandled[0]["exception"]


def test_cut_connections_cost_no_request_an_error(service: Server, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(5):
            killed = connection.execute(
                """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                   WHERE application_name = 'catalog' AND datname = current_database()"""
            ).fetchall()
            assert killed
            assert service.ask(Asked("/api/products/lamp/")).status == 200


def test_not_ready_before_the_migrations(catalog_role: str, log: Path) -> None:
    environ = catalog_environment(catalog_role)
    reason = "schema: no migration was applied yet; run migrate"
    with serve("catalog", CATALOG, environ, log, not_ready=reason) as service:
        assert service.ask(Asked("/health")).status == 200


def test_it_starts_before_its_database_and_says_so(postgres: EmbeddedPostgres, log: Path) -> None:
    environ = catalog_environment(postgres.dsn(dbname="nowhere", user="nobody", password="x"))
    reason = "database: (no answer within|couldn't get)"
    with serve("catalog", CATALOG, environ, log, not_ready=reason) as service:
        assert service.ask(Asked("/health")).status == 200


def test_a_missing_variable_is_named_with_the_remedy() -> None:
    environ = catalog_environment("")
    done = subprocess.run(
        [sys.executable, "-m", "extracted.catalog", "migrate"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = json.loads(done.stderr.splitlines()[-1])
    assert line["reason"].startswith("environment variable CATALOG_DATABASE_URL is not set")
    assert done.stdout == ""


def test_a_filled_schema_takes_the_rows_of_a_batch_in_any_order(catalog_role: str) -> None:
    """Foreign keys and secondary unique keys are checked at commit."""
    run_python(["-m", "extracted.catalog", "migrate"], catalog_environment(catalog_role))
    with psycopg.connect(catalog_role) as connection:
        connection.execute(_ROWS.replace("(1, NULL,", "(1, 2,").encode())
        connection.execute(
            "INSERT INTO category (category_id, slug, title, sort_key) VALUES (2, 'home', 'Root', 0)"
        )
        connection.execute("UPDATE category SET slug = 'root' WHERE category_id = 2")
    with psycopg.connect(catalog_role) as connection:
        connection.execute("UPDATE category SET slug = 'same'")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.commit()
