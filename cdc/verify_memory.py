"""How far a comparison has come, kept in the target so that one that was killed goes on where it was.

One row of `strangler_cdc.verification` for each stream and question (`fingerprint`: mapping, tables, snapshot).
It holds keys, never values. What had been found unequal is kept as the stretch it lies in, and is compared anew: a
finding is only as good as the process that made it. Whoever has the advisory lock writes; a second comparison of the
same stream works without memory.
"""

import hashlib
import json
from collections.abc import Mapping as MappingOf
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from cdc.compare_sql import Key, Stretch
from cdc.mapping import TableMapping

_TOO_OLD = 3600.0  # seconds; what was compared before is no evidence for today


@dataclass(frozen=True, slots=True)
class TableMemory:
    """Compared are all rows up to `after` (everything when `done`), but for the stretches `unequal`."""

    after: Key | None = None
    done: bool = False
    rows: int = 0
    unequal: tuple[Stretch, ...] = ()


class Memory:
    """The row of one comparison. `connection` is autocommit, to the target, and keeps the lock."""

    def __init__(self, connection: psycopg.Connection[Any], stream: str, fingerprint: str) -> None:
        """Takes the lock when it is free."""
        self._connection = connection
        self._stream = stream
        self._fingerprint = fingerprint
        self._ours = _there(connection) and self._lock()

    @property
    def kept(self) -> bool:
        """Whether this comparison can be taken up again."""
        return self._ours

    def load(self) -> dict[str, TableMemory]:
        """What is remembered, by target table; empty when there is nothing."""
        if not self._ours:
            return {}
        self._connection.execute(
            "DELETE FROM strangler_cdc.verification"
            " WHERE saved_at < clock_timestamp() - make_interval(secs => %s)",
            [_TOO_OLD],
        )
        row = self._connection.execute(
            "SELECT state FROM strangler_cdc.verification WHERE stream = %s AND fingerprint = %s",
            [self._stream, self._fingerprint],
        ).fetchone()
        return {} if row is None else {name: _parse(table) for name, table in row[0].items()}

    def save(self, tables: MappingOf[str, TableMemory]) -> None:
        """Remember `tables`."""
        if not self._ours:
            return
        state = json.dumps({name: asdict(table) for name, table in tables.items()})
        self._connection.execute(
            "INSERT INTO strangler_cdc.verification (stream, fingerprint, state) VALUES (%s, %s, %s)"
            " ON CONFLICT (stream, fingerprint) DO UPDATE"
            " SET state = EXCLUDED.state, saved_at = clock_timestamp()",
            [self._stream, self._fingerprint, state],
        )

    def forget(self) -> None:
        """The comparison has ended, or is to begin anew."""
        if self._ours:
            self._connection.execute(
                "DELETE FROM strangler_cdc.verification WHERE stream = %s AND fingerprint = %s",
                [self._stream, self._fingerprint],
            )

    def _lock(self) -> bool:
        row = self._connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended('strangler_cdc verify ' || %s, 0))", [self._stream]
        ).fetchone()
        assert row is not None
        return bool(row[0])


def fingerprint(tables: tuple[TableMapping, ...], snapshot: str) -> str:
    """The same for the same question about the same copy: `snapshot` is the position of the stream's snapshot."""
    told = [
        (str(table.source), str(table.target), [(part.source, part.target) for part in table.key],
         [(column.name, column.sql) for column in table.columns])
        for table in tables
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([told, snapshot]).encode()).hexdigest()


def _parse(table: MappingOf[str, Any]) -> TableMemory:
    return TableMemory(
        _key(table["after"]),
        table["done"],
        table["rows"],
        tuple(Stretch(_key(each["after"]), _key(each["upto"])) for each in table["unequal"]),
    )


def _key(parts: list[str] | None) -> Key | None:
    return None if parts is None else tuple(parts)


def _there(connection: psycopg.Connection[Any]) -> bool:
    # a schema made by an earlier version lacks it, and perhaps a role without rights asks
    row = connection.execute(
        "SELECT coalesce(has_table_privilege(to_regclass('strangler_cdc.verification'),"
        " 'SELECT, INSERT, UPDATE, DELETE'), false)"
    ).fetchone()
    assert row is not None
    return bool(row[0])
