"""The ledger: what is so, and how it came to be so. The only code that touches schema `ledger`.

A change is one transaction: the migration's row moves from version n to n+1 only if it still is at n
(compare and set), and one row is appended to the history. The history refuses UPDATE, DELETE and TRUNCATE
(ledger_schema.sql) and is chained: each row's hash covers the row and the hash before it, and the
migration's row holds the newest, so that somebody with the power to drop the trigger still cannot alter or
cut the past unseen (`check_chain`).

Reading needs nobody's permission. One controller a migration is ensured by an advisory lock, which
PostgreSQL frees by itself when the process that held it dies.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import dict_row

from migration_plans.record import Record
from migration_plans.stages import State

_GENESIS = "0" * 64
_INSTALL_LOCK = 0x57A6_1E06


class LedgerUnreachableError(Exception):
    """PostgreSQL with the ledger does not answer."""


class ConflictError(Exception):
    """Somebody else changed the migration first; read again and decide again."""


class LockedError(Exception):
    """Another controller holds this migration."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the history. `at` is UTC, ISO 8601."""

    seq: int
    at: str
    actor: str
    event: str
    state: str
    stage: str
    percent: str
    detail: Mapping[str, Any]
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Shape for `--json`."""
        return {
            "seq": self.seq,
            "at": self.at,
            "actor": self.actor,
            "event": self.event,
            "state": self.state,
            "stage": self.stage,
            "percent": float(self.percent),
            "detail": dict(self.detail),
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Chain:
    """What a check of the hash chain found: `broken_at` is the first event that does not fit, None when all
    do.
    """

    entries: int
    broken_at: int | None
    why: str = ""


class Ledger:
    """One connection to the ledger, opened when first needed and again after it was lost.

    Every method raises LedgerUnreachableError when the database does not answer.
    """

    def __init__(self, dsn: str, *, timeout: float = 3.0) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._held: set[str] = set()
        self._one_at_a_time = threading.RLock()

    def close(self) -> None:
        """Close the connection; locks held by it are freed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def install(self) -> None:
        """Make the tables unless they are there. Safe to call from several processes at once."""
        with self._transaction() as connection:
            if _installed(connection):
                return
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALL_LOCK])
            if not _installed(connection):
                script = files(__package__).joinpath("ledger_schema.sql").read_text(encoding="utf-8")
                connection.execute(script.encode())

    def read(self, name: str) -> Record | None:
        """The present of migration `name`; None when it was never started."""
        with self._transaction() as connection:
            if not _installed(connection):
                return None
            row = connection.execute(
                "SELECT version, record FROM ledger.migration WHERE name = %s", [name]
            ).fetchone()
        return None if row is None else replace(Record.from_dict(row["record"]), version=row["version"])

    def append(
        self, record: Record, *, event: str, actor: str, detail: Mapping[str, Any] | None = None
    ) -> Record:
        """Make `record` the present and write `event` into the history, in one transaction.

        `record.version` is the version this decision was made on (0: not started yet). Returns the record
        with its new version. Raises ConflictError when the ledger has moved on meanwhile: nothing is
        written then.
        """
        with self._transaction() as connection:
            head = connection.execute(
                "SELECT version, head_seq, head_hash FROM ledger.migration WHERE name = %s FOR UPDATE",
                [record.name],
            ).fetchone() or {"version": 0, "head_seq": 0, "head_hash": _GENESIS}
            if head["version"] != record.version:
                raise ConflictError(
                    f"{record.name} has moved on to version {head['version']} of the ledger "
                    f"(this was decided on {record.version}); look at `strangler status` and try again"
                )
            written = replace(record, version=record.version + 1)
            entry = {
                "migration": record.name,
                "seq": head["head_seq"] + 1,
                "at": datetime.now(UTC).isoformat(timespec="microseconds"),
                "actor": actor,
                "event": event,
                "state": record.state.value,
                "stage": record.stage_name,
                "percent": str(record.percent),
                "detail": json.dumps(detail or {}, sort_keys=True, allow_nan=False),
                "previous": head["head_hash"],
            }
            entry["hash"] = _digest(entry)
            values = {
                **entry,
                "name": record.name,
                "version": written.version,
                "record": json.dumps(written.as_dict(), allow_nan=False),
            }
            if record.version == 0:
                inserted = connection.execute(
                    "INSERT INTO ledger.migration (name, version, record, head_seq, head_hash) "
                    "VALUES (%(name)s, %(version)s, %(record)s, %(seq)s, %(hash)s) ON CONFLICT DO NOTHING",
                    values,
                )
                if inserted.rowcount == 0:
                    raise ConflictError(f"{record.name} was started by somebody else a moment ago")
            else:
                connection.execute(
                    "UPDATE ledger.migration SET version = %(version)s, record = %(record)s, head_seq = %(seq)s, "
                    "head_hash = %(hash)s WHERE name = %(name)s",
                    values,
                )
            connection.execute(
                "INSERT INTO ledger.history (migration, seq, at, actor, event, state, stage, percent, detail, "
                "previous, hash) VALUES (%(migration)s, %(seq)s, %(at)s, %(actor)s, %(event)s, %(state)s, %(stage)s, "
                "%(percent)s, %(detail)s, %(previous)s, %(hash)s)",
                values,
            )
        return written

    def history(self, name: str, *, last: int | None = None) -> list[Entry]:
        """The events of migration `name`, oldest first; with `last`, only that many of the newest."""
        with self._transaction() as connection:
            if not _installed(connection):
                return []
            rows = connection.execute(
                "SELECT seq, at, actor, event, state, stage, percent, detail, hash FROM ledger.history "
                "WHERE migration = %s ORDER BY seq DESC LIMIT %s",
                [name, last],
            ).fetchall()
        return [Entry(**row) for row in reversed(rows)]

    def check_chain(self, name: str) -> Chain:
        """Recompute every hash of the history of `name`."""
        with self._transaction() as connection:
            head = connection.execute(
                "SELECT head_seq, head_hash FROM ledger.migration WHERE name = %s", [name]
            ).fetchone()
            rows = connection.execute(
                "SELECT migration, seq, at, actor, event, state, stage, percent, detail::text AS detail, "
                "previous, hash FROM ledger.history WHERE migration = %s ORDER BY seq",
                [name],
            ).fetchall()
        expected = _GENESIS
        for place, row in enumerate(rows, start=1):
            if row["seq"] != place:
                return Chain(len(rows), place, f"event {place} is missing")
            if row["previous"] != expected:
                return Chain(len(rows), place, f"event {place} does not follow the one before it")
            expected = row["hash"]
            if _digest(row) != expected:
                return Chain(len(rows), place, f"event {place} was altered")
        if head is not None and (head["head_seq"], head["head_hash"]) != (len(rows), expected):
            return Chain(
                len(rows), len(rows) + 1, f"{head['head_seq'] - len(rows)} events at the end are missing"
            )
        return Chain(len(rows), None)

    def acquire(self, name: str) -> None:
        """Become the controller of `name` until `close`. Raises LockedError when another process is."""
        with self._transaction() as connection:
            _lock(connection, name)
        self._held.add(name)

    def release(self, name: str) -> None:
        """Stop being the controller of `name`."""
        self._held.discard(name)
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_lock_key(name)])

    def controlled(self, name: str) -> bool:
        """Whether a controller of `name` is running anywhere: a dead one's lock is gone at once."""
        key = _lock_key(name) % 2**64
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
                "AND classid = %s::bigint::oid AND objid = %s::bigint::oid "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS there",
                [key >> 32, key & 0xFFFF_FFFF],
            ).fetchone()
        return bool(row and row["there"])

    def observe(self, name: str, body: Mapping[str, Any]) -> None:
        """Publish what the controller of `name` sees now."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO ledger.observation (name, at, body) VALUES (%s, clock_timestamp(), %s) "
                "ON CONFLICT (name) DO UPDATE SET at = excluded.at, body = excluded.body",
                [name, json.dumps(body, allow_nan=False)],
            )

    def observation(self, name: str) -> tuple[float, Mapping[str, Any]] | None:
        """What the controller of `name` saw last, and how many seconds ago; None when there never was one."""
        with self._transaction() as connection:
            if not _installed(connection):
                return None
            row = connection.execute(
                "SELECT extract(epoch FROM clock_timestamp() - at)::float8 AS age, body FROM ledger.observation "
                "WHERE name = %s",
                [name],
            ).fetchone()
        return None if row is None else (row["age"], row["body"])

    def record_delivery(self, name: str, *, seq: int, target: str, delivered: bool, detail: str) -> None:
        """Write down one attempt to deliver the alert about event `seq` to `target`."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO ledger.delivery (migration, seq, target, delivered, detail) VALUES (%s, %s, %s, %s, %s)",
                [name, seq, target, delivered, detail],
            )

    def undelivered(self, name: str, *, events: Sequence[str], target: str, attempts: int) -> list[Entry]:
        """Events of the given kinds that `target` has not heard of after fewer than `attempts` attempts."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT h.seq, h.at, h.actor, h.event, h.state, h.stage, h.percent, h.detail, h.hash "
                "FROM ledger.history h LEFT JOIN ledger.delivery d "
                "  ON d.migration = h.migration AND d.seq = h.seq AND d.target = %s "
                "WHERE h.migration = %s AND h.event = ANY(%s) "
                "GROUP BY h.migration, h.seq HAVING count(d.id) < %s AND NOT coalesce(bool_or(d.delivered), false) "
                "ORDER BY h.seq",
                [target, name, list(events), attempts],
            ).fetchall()
        return [Entry(**row) for row in rows]

    def deliveries(self, name: str) -> list[dict[str, Any]]:
        """Every attempt to deliver an alert of `name`, oldest first."""
        with self._transaction() as connection:
            return connection.execute(
                "SELECT seq, target, at, delivered, detail FROM ledger.delivery WHERE migration = %s ORDER BY id",
                [name],
            ).fetchall()

    @contextmanager
    def guard(self, record: Record) -> Iterator[None]:
        """Hold the ledger at `record.version` for the length of the block; others who want to change it wait.

        For an action that must not happen if a person has just decided otherwise. Raises ConflictError,
        before the block runs, when the ledger has moved on.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT version FROM ledger.migration WHERE name = %s FOR UPDATE", [record.name]
            ).fetchone()
            if row is None or row["version"] != record.version:
                raise ConflictError(f"{record.name} has moved on from version {record.version} of the ledger")
            yield

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        with self._one_at_a_time, self._connected() as connection, connection.transaction():
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._dsn,
                    row_factory=dict_row,
                    autocommit=True,
                    connect_timeout=max(2, round(self._timeout)),
                    options=f"-c statement_timeout={round(self._timeout * 1000)}",
                    application_name="strangler ledger",
                )
                # the lost connection took its locks along; go on only if nobody else has them by now
                try:
                    for name in self._held:
                        _lock(self._connection, name)
                except LockedError:
                    self.close()  # else the next call would go on over this connection, without the lock
                    raise
            yield self._connection
        except psycopg.OperationalError as error:
            self.close()
            raise LedgerUnreachableError(
                f"the ledger does not answer ({str(error).strip().splitlines()[0]}); "
                f"is PostgreSQL up, and STRANGLER_LEDGER_DSN right?"
            ) from error


def state_of(record: Record | None) -> State:
    """The state, `planned` for a migration nobody has started."""
    return State.PLANNED if record is None else record.state


def _installed(connection: psycopg.Connection[dict[str, Any]]) -> bool:
    # not to_regclass: within a transaction it may still believe what was so before another process's install
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'ledger' AND tablename = 'observation') "
        "AS there"
    ).fetchone()
    return bool(row and row["there"])


def _lock(connection: psycopg.Connection[dict[str, Any]], name: str) -> None:
    row = connection.execute("SELECT pg_try_advisory_lock(%s) AS got", [_lock_key(name)]).fetchone()
    if row is None or not row["got"]:
        raise LockedError(f"another controller is running {name}; one is enough, see `strangler status`")


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _digest(entry: Mapping[str, Any]) -> str:
    keys = ("migration", "seq", "at", "actor", "event", "state", "stage", "percent", "detail", "previous")
    return hashlib.sha256(json.dumps([entry[key] for key in keys]).encode()).hexdigest()
