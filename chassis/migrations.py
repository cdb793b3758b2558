"""Numbered SQL migrations: files `0001_what_it_does.sql`, each applied once, in order, in a transaction.

`plan` is the pure core: what is in the folder and what the database says was applied go in, what is still
to be applied comes out, or a refusal. An applied file is history: editing it is refused by its checksum,
because the database would no longer be what the folder says. `migrate` performs the plan under an advisory
lock, so two processes that start together do not race.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
# any constant will do, as long as all runners of one database share it: the first 8 bytes of
# SHA-256("chassis.migrations"), as a signed number
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"chassis.migrations").digest()[:8], "big", signed=True)

_JOURNAL = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

_READ_JOURNAL = "SELECT number, name, checksum FROM schema_migrations ORDER BY number"


class MigrationError(Exception):
    """The migrations cannot be applied; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `number` and `name` from its name, `checksum` (SHA-256, hex) of its text."""

    number: int
    name: str
    text: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the journal."""

    number: int
    name: str
    checksum: str


def read_migrations(directory: Path) -> tuple[Migration, ...]:
    """The migrations in `directory`, by number. Raises MigrationError for a bad name or a taken number."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: the name must look like 0001_what_it_does.sql; rename it")
        number = int(match[1])
        if number in found:
            raise MigrationError(
                f"{path}: number {number:04} is taken by {number:04}_{found[number].name}.sql; "
                "give the newer one the next number"
            )
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found[number] = Migration(number, match[2], text, checksum)
    if not found:
        raise MigrationError(f"{directory} holds no migrations; was it left out of the package?")
    return tuple(found[number] for number in sorted(found))


def plan(available: Sequence[Migration], applied: Sequence[Applied]) -> tuple[Migration, ...]:
    """The migrations still to be applied, in order.

    A database ahead of the folder is fine (an older release started again after a newer one). Raises
    MigrationError when an applied file was edited or is gone, or when one to be applied would come before
    one that was.
    """
    by_number = {migration.number: migration for migration in available}
    newest = max(by_number, default=0)
    last_applied = 0
    for done in applied:
        last_applied = max(last_applied, done.number)
        known = by_number.pop(done.number, None)
        label = f"{done.number:04}_{done.name}.sql"
        if known is None:
            if done.number <= newest:
                raise MigrationError(f"{label} was applied to this database but is gone; restore the file")
        elif known.checksum != done.checksum:
            raise MigrationError(
                f"{label} was edited after it was applied; restore it and put the change into a new migration"
            )
    waiting = tuple(by_number[number] for number in sorted(by_number))
    if waiting and waiting[0].number < last_applied:
        raise MigrationError(
            f"{waiting[0].number:04}_{waiting[0].name}.sql comes before {last_applied:04}, which was applied "
            "already; give it the next free number"
        )
    return waiting


def migrate(
    dsn: str, migrations: Sequence[Migration], *, lock_timeout: float = 30.0
) -> tuple[Migration, ...]:
    """Bring the database at `dsn` up to date; returns what was applied now.

    Each migration and its journal row commit together: an interrupted run carries on where it stopped.
    Raises MigrationError (see `plan`; also when another runner holds the lock for `lock_timeout` seconds)
    and psycopg.Error when the database refuses a statement.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT set_config('lock_timeout', %s, false)", [f"{round(lock_timeout * 1000)}ms"]
        )
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
        except errors.LockNotAvailable as error:
            raise MigrationError(
                f"another process has been migrating this database for {lock_timeout:g} s; "
                "look for it in pg_locks (locktype advisory) and try again"
            ) from error
        connection.execute(_JOURNAL)
        waiting = plan(migrations, _journal(connection.execute(_READ_JOURNAL).fetchall()))
        for migration in waiting:
            with connection.transaction():
                connection.execute(migration.text.encode())
                connection.execute(
                    "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)",
                    [migration.number, migration.name, migration.checksum],
                )
        return waiting


async def check_applied(
    connection: psycopg.AsyncConnection[tuple[object, ...]], migrations: Sequence[Migration]
) -> None:
    """A readiness check: the database has every one of `migrations`. Raises MigrationError when not."""
    try:
        rows = await (await connection.execute(_READ_JOURNAL)).fetchall()
    except errors.UndefinedTable as error:
        raise MigrationError("no migration was applied yet; run migrate") from error
    waiting = plan(migrations, _journal(rows))
    if waiting:
        names = ", ".join(f"{migration.number:04}_{migration.name}" for migration in waiting)
        raise MigrationError(f"not applied yet: {names}; run migrate")


def _journal(rows: Sequence[tuple[object, ...]]) -> list[Applied]:
    return [Applied(int(str(number)), str(name), str(checksum)) for number, name, checksum in rows]
