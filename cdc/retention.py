"""How much log the source keeps for a slot, and how much more it may.

A slot whose reader is dead keeps the log for ever: the source's disk fills and its database stops, or, with
`max_slot_wal_keep_size`, the slot loses what it needs and everything has to be copied anew. Both are seen here long
before. Source: PostgreSQL 16 manual, view `pg_replication_slots`.

The room on the disk is not to be had by SQL. It is looked up where the server runs on this machine and lets our role
read its setting `data_directory` (`pg_read_all_settings`); elsewhere it is not known, and only sizes of log count.
"""

import os
from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Retention:
    """A slot, seen from the server that keeps its log. All sizes in bytes.

    `exists` False: there is no such slot, all else is nothing. `retained`: log kept for it; `keep_at_most`:
    the setting `max_slot_wal_keep_size`, None when it is not limited; `safe`: what may still be written until the
    slot loses its log, None when not limited; `disk_free`: what the server may still write to the disk of its log,
    None when not known. `status`: reserved, extended, unreserved, lost (`wal_status`).
    """

    exists: bool
    active: bool = False
    retained: int = 0
    status: str = ""
    safe: int | None = None
    keep_at_most: int | None = None
    disk_free: int | None = None


def read_retention(source: psycopg.Connection[Any], slot: str) -> Retention:
    """How `slot` stands. `source` is any session on its server; needs no privilege. Raises psycopg.Error."""
    row = source.execute(
        "SELECT active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,"
        " coalesce(wal_status, ''), safe_wal_size,"
        " (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),"
        " (SELECT setting FROM pg_settings WHERE name = 'data_directory')"  # NULL to those who may not know
        " FROM pg_replication_slots WHERE slot_name = %s",
        [slot],
    ).fetchone()
    if row is None:
        return Retention(exists=False)
    active, retained, status, safe, keep, directory = row
    return Retention(
        exists=True,
        active=active,
        retained=retained,
        status=status,
        safe=safe,
        keep_at_most=keep if keep >= 0 else None,
        disk_free=_free(directory) if directory and _here(source) else None,
    )


def _here(source: psycopg.Connection[Any]) -> bool:
    """Whether the server is reached over a socket of this machine; one over TCP may be a forwarded port."""
    return source.info.host.startswith(("/", "@"))


def _free(directory: str) -> int | None:
    for path in (f"{directory}/pg_wal", directory):
        try:
            disk = os.statvfs(path)
        except OSError:
            continue  # only the server's own user may look inside; or another machine's directory
        return disk.f_bavail * disk.f_frsize
    return None
