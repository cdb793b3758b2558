"""Faults break what they say, and are always healed."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from workshop.faults import KilledProcess, RevokedRead, StoppedProcess, injected


@pytest.fixture
def owned(database: str) -> tuple[str, str]:
    """Superuser DSN and a role that owns the table `product`."""
    role = f"owner_{psycopg.conninfo.conninfo_to_dict(database)['dbname']}"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        admin.execute(sql.SQL("CREATE TABLE product AS SELECT 1 AS id"))
        admin.execute(sql.SQL("ALTER TABLE product OWNER TO {}").format(sql.Identifier(role)))
    return database, role


def may_read(dsn: str, role: str) -> bool:
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        try:
            connection.execute("SELECT * FROM product")
        except psycopg.errors.InsufficientPrivilege:
            return False
    return True


def test_the_owner_itself_can_no_longer_read(owned: tuple[str, str]) -> None:
    dsn, role = owned
    fault = RevokedRead(dsn, role, ("product",))
    with injected(fault):
        assert not may_read(dsn, role)
        fault.inject()
    assert may_read(dsn, role)
    fault.heal()
    with pytest.raises(KeyboardInterrupt), injected(fault):
        raise KeyboardInterrupt
    assert may_read(dsn, role)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_is_stopped_and_goes_on() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    fault = StoppedProcess("sleeper", lambda: process.pid)
    with injected(fault):
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert state_of(process.pid) == "T"
    assert state_of(process.pid) != "T"
    with injected(KilledProcess("sleeper", lambda: process.pid)):
        assert process.wait(10) == -9
    fault.heal()
