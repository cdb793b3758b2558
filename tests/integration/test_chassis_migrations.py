"""Migrations against a real PostgreSQL: once, in order, whole, and by one runner at a time."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from chassis import migrations
from chassis.migrations import Migration, MigrationError, migrate


def _migration(number: int, text: str) -> Migration:
    return Migration(number, f"step{number}", text, hashlib.sha256(text.encode()).hexdigest())


_FIRST = _migration(1, "CREATE TABLE t (n integer); INSERT INTO t VALUES (1);")
_SECOND = _migration(2, "INSERT INTO t VALUES (2);")
_BROKEN = _migration(2, "INSERT INTO t VALUES (2); SELECT 1 / 0;")


def _rows(database: str) -> list[int]:
    with psycopg.connect(database) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]


def test_each_is_applied_once(database: str) -> None:
    assert migrate(database, [_FIRST]) == (_FIRST,)
    assert migrate(database, [_FIRST, _SECOND]) == (_SECOND,)
    assert migrate(database, [_FIRST, _SECOND]) == ()
    assert _rows(database) == [1, 2]


def test_a_failed_one_leaves_nothing_and_can_be_repaired(database: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database, [_FIRST, _BROKEN])
    assert _rows(database) == [1]
    assert migrate(database, [_FIRST, _SECOND]) == (_SECOND,)


def test_an_edited_one_is_refused_and_changes_nothing(database: str) -> None:
    migrate(database, [_FIRST])
    with pytest.raises(MigrationError, match=r"0001_step1\.sql was edited"):
        migrate(database, [_migration(1, "CREATE TABLE other ();"), _SECOND])
    assert _rows(database) == [1]


def test_runners_that_start_together_do_not_race(database: str) -> None:
    with ThreadPoolExecutor(4) as runners:
        done = list(runners.map(lambda _: migrate(database, [_FIRST, _SECOND]), range(4)))
    assert sorted(len(applied) for applied in done) == [0, 0, 0, 2]
    assert _rows(database) == [1, 2]


def test_a_runner_that_hangs_is_named_not_waited_for(database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [migrations._LOCK_KEY])
        with pytest.raises(MigrationError, match="another process has been migrating"):
            migrate(database, [_FIRST], lock_timeout=0.1)
