"""What people do with parked keys: look, try again, give up. While the stream runs, or while it does not.

A *lot* is what has to be treated together: parked changes linked by keys (`cdc.parked`). A lot is applied again in
one target transaction, folded first, so that a later change which makes an earlier one's error moot is enough;
then, if that is refused, one by one. It leaves the table in the same transaction. The lock of the stream's parked
keys is taken before any row, as the applier does.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from cdc import schema
from cdc.changes import Change, Lsn, Operation, TableName
from cdc.mapping import Mapping
from cdc.parked import Address, ParkedChange, Refusal, as_transactions, lots, read_relation, read_row
from cdc.seams import StreamError
from cdc.sessions import connect
from cdc.sinks.parking import lock_name
from cdc.sinks.plans import passes
from cdc.sinks.postgres import PostgresSink

_PATIENCE = "10s"  # for the stream to come to the end of its target transaction


class NotParkedError(Exception):
    """Nothing is parked under this key; the message says what is."""


class BusyError(Exception):
    """The stream is within a long target transaction, or a row is locked; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Parked changes that are linked by keys, in source order. `numbers` are their rows' ids."""

    stream: str
    numbers: tuple[int, ...]
    entries: tuple[ParkedChange, ...]
    parked_at: tuple[datetime, ...]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The keys that wait, in the order in which they were parked."""
        return tuple(dict.fromkeys(address for entry in self.entries for address in entry.addresses))

    @property
    def tables(self) -> frozenset[TableName]:
        """The source tables; a key never leaves its table, so there is one."""
        return frozenset(entry.change.relation.table for entry in self.entries)

    @property
    def refusals(self) -> tuple[ParkedChange, ...]:
        """The changes that the target refused; the others only wait behind them."""
        return tuple(entry for entry in self.entries if entry.refusal is not None)


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a lot: applied, or `error` says why it still is not."""

    lot: Lot
    error: str = ""


_READ = """
SELECT stream, id, keys, position::text, xid, commit_time, operation, relation, before, after,
       sqlstate, error, error_column, parked_at
FROM strangler_cdc.parked WHERE (stream = %(stream)s OR starts_with(stream, %(stream)s || '/'))
AND (%(keys)s::text[] IS NULL OR keys && %(keys)s) ORDER BY stream, id
"""


def read_parked(target: str | psycopg.Connection[Any], *, stream: str) -> tuple[Lot, ...]:
    """Everything that is parked of `stream`, and of its shards, in the database `target`.

    Raises psycopg.OperationalError when the database is not reachable.
    """
    if isinstance(target, str):
        with connect(target, name="strangler_cdc parked") as connection:
            return read_parked(connection, stream=stream)
    if not schema.complete(target):
        return ()
    return _read(target, stream, None)


def _read(target: psycopg.Connection[Any], stream: str, keys: list[Address] | None) -> tuple[Lot, ...]:
    """What is parked of `stream`; with `keys` only what touches one of them."""
    rows = psycopg.Cursor(target).execute(_READ, {"stream": stream, "keys": keys}).fetchall()
    found: list[Lot] = []
    for name in dict.fromkeys(row[0] for row in rows):
        read = [(row[1], _entry(row), row[-1]) for row in rows if row[0] == name]
        for lot in lots(read, lambda each: each[1].addresses):
            numbers, entries, moments = zip(*lot, strict=True)
            found.append(Lot(name, numbers, entries, moments))
    return tuple(found)


def find(target: str, *, stream: str, address: Address) -> Lot:
    """The lot that the key `address` is in. Raises NotParkedError, psycopg.OperationalError."""
    parked = read_parked(target, stream=stream)
    for lot in parked:
        if address in lot.addresses:
            return lot
    known = [each for lot in parked for each in lot.addresses]
    listed = f"parked are {', '.join(known[:10])}{' …' if len(known) > 10 else ''}" if known else "nothing is"
    raise NotParkedError(f"no key {address} is parked in stream {stream}: {listed}")


def target_keys(parked: Sequence[Lot], mapping: Mapping) -> frozenset[tuple[str, tuple[str, ...]]]:
    """The rows of the target that are parked: its table, and the values of the mapping's key. Rows whose key is
    computed by an expression are left out: what it gives is only known to PostgreSQL.
    """
    found: set[tuple[str, tuple[str, ...]]] = set()
    tables = {table.source: table for table in mapping.tables}
    for entry in (entry for lot in parked for entry in lot.entries):
        table = tables.get(entry.change.relation.table)
        if table is None or any(column.copied is None for column in table.key_columns()):
            continue
        names = entry.change.relation.names()
        for row in (entry.change.before, entry.change.after):
            values = [] if row is None else [row[names.index(part.source)] for part in table.key]
            texts = tuple(value.decode(errors="replace") for value in values if isinstance(value, bytes))
            if len(texts) == len(table.key):
                found.add((str(table.target), texts))
    return frozenset(found)


def retry(
    target_dsn: str,
    *,
    stream: str,
    mapping: Mapping,
    address: Address | None = None,
) -> tuple[Retried, ...]:
    """Apply the lot of `address` again, or with None every lot; each in a transaction of its own.

    Of several, those that are refused are tried again as long as others succeed (one may hold the unique
    value that another needs). Raises NotParkedError, BusyError, psycopg.OperationalError.
    """
    waiting = (
        [find(target_dsn, stream=stream, address=address)]
        if address
        else list(read_parked(target_dsn, stream=stream))
    )
    with ExitStack() as stack:
        sinks: dict[str, PostgresSink] = {}
        for name in dict.fromkeys(lot.stream for lot in waiting):
            sink = sinks[name] = PostgresSink(target_dsn, stream=name, mapping=mapping, applier=False)
            stack.callback(sink.close)
            sink.connection.execute(f"SET lock_timeout = '{_PATIENCE}'".encode())
        return _retry_all(sinks, waiting)


def retry_partition(sink: PostgresSink, *, stream: str) -> tuple[Retried, ...]:
    """As `retry`, every lot of `stream`, through a sink that the caller keeps (`applier=False`)."""
    return _retry_all({stream: sink}, list(read_parked(sink.connection, stream=stream)))


def _retry_all(sinks: dict[str, PostgresSink], waiting: list[Lot]) -> tuple[Retried, ...]:
    done: list[Retried] = []
    refused: list[Retried] = []
    while waiting:
        refused = []
        for lot in waiting:
            outcome = _retry(sinks[lot.stream], lot)
            (refused if outcome.error else done).append(outcome)
        if len(refused) == len(waiting):
            break
        waiting = [each.lot for each in refused]
    return (*done, *refused)


def skip(target_dsn: str, lot: Lot) -> int:
    """Throw away what waits under the keys of `lot`, also what has joined it since: they keep the rows that the
    target has. Returns the number of changes. Raises BusyError, psycopg.OperationalError.
    """
    with connect(target_dsn, name=f"strangler_cdc skip {lot.stream}", lock_timeout=_PATIENCE) as target:
        try:
            with target.transaction():
                _lock(target, lot)
                present = _present(target, lot)
                for each in present:
                    _remove(target, each)
        except psycopg.errors.LockNotAvailable as error:
            raise _busy(lot) from error
    return sum(len(each.numbers) for each in present)


def _retry(sink: PostgresSink, lot: Lot) -> Retried:
    connection = sink.connection
    error = ""
    try:
        with connection.transaction():
            _lock(connection, lot)
            for each in _present(connection, lot):
                sink.replay(list(as_transactions(each.entries)))
                _remove(connection, each)
    except psycopg.errors.LockNotAvailable as busy:
        raise _busy(lot) from busy
    except StreamError as refused:
        error = str(refused)
    except psycopg.Error as refused:
        if passes(refused):
            raise
        # a deferred constraint, at the commit
        error = " ".join(filter(None, (refused.diag.message_primary, refused.diag.message_detail)))
    if error:
        sink.forget_plans()
    return Retried(lot, error)


def _lock(connection: psycopg.Connection[Any], lot: Lot) -> None:
    psycopg.Cursor(connection).execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock_name(lot.stream)]
    )


def _present(connection: psycopg.Connection[Any], lot: Lot) -> list[Lot]:
    """What `lot` has become since it was read: the stream parks more behind it, a key change may join it to another,
    a TRUNCATE takes it away.
    """
    known: set[Address] = set()
    touched = set(lot.addresses)
    found: tuple[Lot, ...] = ()
    while touched != known:
        known = touched
        found = tuple(
            each for each in _read(connection, lot.stream, sorted(known)) if each.stream == lot.stream
        )
        touched = known.union(*(each.addresses for each in found))
    return [each for each in found if set(each.numbers) & set(lot.numbers)]


def _remove(connection: psycopg.Connection[Any], lot: Lot) -> None:
    psycopg.Cursor(connection).execute(
        "DELETE FROM strangler_cdc.parked WHERE stream = %s AND id = ANY(%s)", [lot.stream, list(lot.numbers)]
    )


def _busy(lot: Lot) -> BusyError:
    return BusyError(
        f"stream {lot.stream} did not come to the end of its transaction within {_PATIENCE}, or somebody holds a "
        "lock on a row; nothing was changed, try again"
    )


def _entry(row: Sequence[Any]) -> ParkedChange:
    _, _, keys, position, xid, commit_time, operation, relation, before, after, sqlstate, error, column, _ = (
        row
    )
    described = read_relation(relation)
    return ParkedChange(
        addresses=tuple(keys),
        change=Change(
            Operation(operation), described, read_row(before, described), read_row(after, described)
        ),
        position=Lsn.parse(position),
        commit_time=commit_time,
        xid=xid,
        refusal=None if error is None else Refusal(sqlstate or "", error, column or ""),
    )
