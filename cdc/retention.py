"""How much log the source keeps for a slot, and how much more it may.

A slot whose reader is dead keeps the log for ever: the source's disk fills and its database stops, or, with
`max_slot_wal_keep_size`, the slot loses what it needs and everything has to be copied anew. Both are seen here long
before. Source: PostgreSQL 16 manual, view `pg_replication_slots`.
"""

from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Retention:
    """A slot, seen from the server that keeps its log. All sizes in bytes.

    `exists` False: there is no such slot, all else is nothing. `retained`: log kept for it; `keep_at_most`:
    the setting `max_slot_wal_keep_size`, None when it is not limited; `safe`: what may still be written until the
    slot loses its log, None when not limited. `status`: reserved, extended, unreserved, lost (`wal_status`).
    """

    exists: bool
    active: bool = False
    retained: int = 0
    status: str = ""
    safe: int | None = None
    keep_at_most: int | None = None


def read_retention(source: psycopg.Connection[Any], slot: str) -> Retention:
    """How `slot` stands. `source` is any session on its server; needs no privilege. Raises psycopg.Error."""
    row = source.execute(
        "SELECT active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,"
        " coalesce(wal_status, ''), safe_wal_size,"
        " (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [slot],
    ).fetchone()
    if row is None:
        return Retention(exists=False)
    active, retained, status, safe, keep = row
    return Retention(True, active, retained, status, safe, keep if keep >= 0 else None)
