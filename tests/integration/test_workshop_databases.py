"""One database and one role for each owner: who gets in where, on a real server."""

import itertools
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from chassis.problems import InvalidFileError
from workshop import databases, secrets_file
from workshop.postgres import EmbeddedPostgres

PASSWORDS: Mapping[str, str] = {role: f"{role}-p@ss:/word" for role in databases.ROLES}
MAY_CONNECT = {
    ("shop", "shop"),
    ("catalog", "catalog"),
    ("strangler", "strangler"),
    ("cdc", "shop"),
    ("cdc", "catalog"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of its own: roles are the whole server's."""
    own = EmbeddedPostgres(tmp_path_factory.mktemp("databases"), durable=False)
    own.start()
    try:
        databases.ensure(own.dsn(), PASSWORDS)
        yield own
    finally:
        own.destroy()


def url(server: EmbeddedPostgres, role: str, database: str, *, password: str | None = None) -> str:
    return databases.url(
        role=role, password=password or PASSWORDS[role], database=database, host="127.0.0.1", port=server.port
    )


@pytest.mark.parametrize(("role", "database"), list(itertools.product(databases.ROLES, databases.OWNERS)))
def test_each_role_gets_into_its_own_databases_and_no_other(
    server: EmbeddedPostgres, role: str, database: str
) -> None:
    if (role, database) in MAY_CONNECT:
        psycopg.connect(url(server, role, database)).close()
    else:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url(server, role, database))


def test_a_wrong_password_is_refused_over_tcp(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url(server, "shop", "shop", password="wrong"))


def test_guests_read_nothing_until_they_are_let(server: EmbeddedPostgres) -> None:
    with psycopg.connect(url(server, "shop", "shop"), autocommit=True) as shop:
        shop.execute("CREATE TABLE secret (id int)")
    with (
        psycopg.connect(url(server, "cdc", "shop")) as guest,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        guest.execute("SELECT * FROM secret")


def test_the_stream_may_replicate_and_set_its_session_role(server: EmbeddedPostgres) -> None:
    with psycopg.connect(url(server, "cdc", "catalog"), autocommit=True) as guest:
        guest.execute("SET session_replication_role = replica")
        guest.execute("CREATE TABLE strangler_cdc.mine (id int)")
        guest.execute("CREATE TEMPORARY TABLE staged (id int)")
    with psycopg.connect(url(server, "cdc", "shop"), autocommit=True) as guest:
        row = guest.execute("SELECT rolreplication FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (True,)
    with (
        psycopg.connect(url(server, "catalog", "catalog")) as owner,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        owner.execute("SET session_replication_role = replica")


def test_once_more_changes_nothing_but_the_passwords(server: EmbeddedPostgres) -> None:
    fresh = {role: f"{role}-new" for role in databases.ROLES}
    databases.ensure(server.dsn(), fresh)
    psycopg.connect(url(server, "shop", "shop", password="shop-new")).close()
    databases.ensure(server.dsn(), PASSWORDS)
    psycopg.connect(url(server, "shop", "shop")).close()


def test_a_role_that_may_create_is_enough(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, durable=False, keep=False) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as admin:
            admin.execute("CREATE ROLE boss LOGIN CREATEDB CREATEROLE REPLICATION PASSWORD 'b'")
        boss = f"postgresql://boss:b@127.0.0.1:{own.port}/postgres"
        for _ in range(2):
            databases.ensure(boss, PASSWORDS)
        psycopg.connect(url(own, "catalog", "catalog")).close()
        databases.drop(boss)
        with psycopg.connect(own.dsn()) as admin:
            left = admin.execute(
                "SELECT count(*) FROM pg_database WHERE datname IN ('shop', 'catalog')"
            ).fetchone()
            assert left == (0,)
            admin.rollback()
        with psycopg.connect(own.dsn(), autocommit=True) as admin:
            admin.execute("ALTER ROLE boss NOCREATEROLE")
        with pytest.raises(databases.UnfitServerError, match="ALTER ROLE boss CREATEDB CREATEROLE"):
            databases.ensure(boss, PASSWORDS)


def test_what_belongs_to_somebody_else_is_not_touched(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, durable=False, keep=False) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
            admin.execute("CREATE ROLE cdc")
        for act in (lambda: databases.ensure(own.dsn(), PASSWORDS), lambda: databases.drop(own.dsn())):
            with pytest.raises(databases.UnfitServerError, match="database 'shop', role 'cdc'"):
                act()
        with psycopg.connect(own.dsn()) as admin:
            assert admin.execute("SELECT count(*) FROM pg_database WHERE datname = 'catalog'").fetchone() == (
                0,
            )


def test_a_server_that_is_not_fit_is_told_so_with_every_remedy(tmp_path: Path) -> None:
    settings = {"wal_level": "replica", "max_wal_senders": "1", "max_replication_slots": "1"}
    with EmbeddedPostgres(tmp_path, durable=False, settings=settings, keep=False) as own:
        with pytest.raises(databases.UnfitServerError) as caught:
            databases.ensure(own.dsn(), PASSWORDS)
        message = str(caught.value)
        assert "ALTER SYSTEM SET wal_level = 'logical'" in message
        assert "max_replication_slots" in message
        assert "max_wal_senders" in message


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(databases.ServerUnreachableError) as caught:
        databases.ensure("postgresql://boss:s3cret@127.0.0.1:1/postgres", PASSWORDS)
    assert "s3cret" not in str(caught.value)


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secrets.json"
    first = secrets_file.ensure(path, ["a", "b"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first["a"]) >= 24
    assert first["a"] != first["b"]
    assert secrets_file.ensure(path, ["b", "c"])["b"] == first["b"]
    assert secrets_file.ensure(path, ["a"])["a"] == first["a"]
    path.write_text("{")
    with pytest.raises(InvalidFileError, match=r"secrets\.json"):
        secrets_file.ensure(path, ["a"])
