"""Read the write-ahead log of a PostgreSQL server through a logical replication slot.

psycopg 3 has no replication cursor, but its public `pq` layer carries the streaming protocol:
START_REPLICATION switches the connection to COPY BOTH, `get_copy_data` yields XLogData (`w`) and keepalives
(`k`), `put_copy_data` sends standby status updates (`r`). Source: PostgreSQL 16 manual, "Streaming
Replication Protocol".

The server may forget the log up to the *flush* position we report, and only that. We report what the pipeline
confirmed, that is, what is committed in the target and on its disk; never what was merely received.
"""

import select
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as StopEvent
from typing import Any

import psycopg
from psycopg import pq

from cdc.changes import Event, Lsn, TableName, Transaction, Watermark, literal, quote
from cdc.decode.frames import drain
from cdc.decode.transactions import Assembler
from cdc.lineage import Origin
from cdc.origin import identify
from cdc.seams import BEGIN_ANEW, AwayError, StreamError
from cdc.sessions import connect, connect_for_replication, failure

_KEEPALIVE = ord("k")
_KEEPALIVE_BODY = struct.Struct(">xQqB")
_STATUS_UPDATE = struct.Struct(">cQQQqB")
_SECONDS_1970_TO_2000 = 946_684_800

_FEEDBACK_EVERY = 0.25  # seconds, when there is news
_SIGN_OF_LIFE_EVERY = 1.0  # seconds; the server drops us after its wal_sender_timeout
_ASK_AFTER = 10.0  # seconds of silence until we ask the server for a sign of life
_EVENTS_AT_ONCE = 1_000
_LOOKS_AGAIN = 16  # times that a call asks, without waiting, whether more has arrived
_DEAD_AFTER = 30.0  # seconds of silence until we give the connection up


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot as the server shows it. `lost`: the log it needs has been removed."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed: Lsn | None
    lost: bool


@dataclass(frozen=True, slots=True)
class CreatedSlot:
    """A new slot: a snapshot with this name sees exactly what committed before `consistent_point` of `origin`."""

    consistent_point: Lsn
    snapshot: str
    origin: Origin


class SlotTimeoutError(Exception):
    """The slot could not be created in time: running write transactions have to end first."""


def slot_state(connection: psycopg.Connection[Any], slot: str) -> SlotState | None:
    """The slot called `slot`, None when there is none. `connection` is an ordinary one to the source."""
    row = connection.execute(
        "SELECT slot_name, coalesce(plugin, ''), coalesce(database, ''), active_pid, "
        "confirmed_flush_lsn::text,"
        " coalesce(wal_status, '') = 'lost' FROM pg_replication_slots WHERE slot_name = %s",
        [slot],
    ).fetchone()
    if row is None:
        return None
    name, plugin, database, pid, confirmed, lost = row
    return SlotState(name, plugin, database, pid, Lsn.parse(confirmed) if confirmed else None, bool(lost))


def drop_slot(connection: psycopg.Connection[Any], slot: str, *, timeout: float = 10.0) -> bool:
    """Drop `slot` if it is there and belongs to the database of `connection`; True when so. Waits up to
    `timeout` seconds for a reader that is leaving.

    Raises psycopg.errors.ObjectInUse when a process still reads from it.
    """
    deadline = time.monotonic() + timeout
    while (state := slot_state(connection, slot)) is not None and state.database == connection.info.dbname:
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        except psycopg.errors.UndefinedObject:
            return True  # somebody else dropped it between the two statements
        else:
            return True
    return False


@contextmanager
def created_slot(
    dsn: str,
    slot: str,
    *,
    temporary: bool = False,
    timeout: float | None = None,
    stop: StopEvent | None = None,
) -> Iterator[CreatedSlot]:
    """Create `slot` and export its snapshot, which can be imported until the `with` block ends.

    The server waits for every write transaction that is running; `timeout` seconds bound that (None: for
    ever), `stop` ends it. Raises SlotTimeoutError, with the process ids in the way, and psycopg.Error. A
    slot that is not temporary stays.
    """
    connection = connect_for_replication(dsn, name=f"strangler_cdc create {slot}")
    try:
        origin = identify(connection).origin
        kind = "TEMPORARY LOGICAL" if temporary else "LOGICAL"
        command = f"CREATE_REPLICATION_SLOT {quote(slot)} {kind} pgoutput (SNAPSHOT 'export')"
        result = _exec_with_timeout(connection, command, timeout, stop)
        if result is None:
            raise SlotTimeoutError(_who_is_in_the_way(dsn, slot, timeout))
        point, snapshot = result.get_value(0, 1), result.get_value(0, 2)
        assert point is not None
        assert snapshot is not None
        yield CreatedSlot(Lsn.parse(point.decode()), snapshot.decode(), origin)
    finally:
        connection.close()


def _exec_with_timeout(
    connection: psycopg.Connection[Any], command: str, timeout: float | None, stop: StopEvent | None
) -> pq.abc.PGresult | None:
    pgconn = connection.pgconn
    deadline = None if timeout is None else time.monotonic() + timeout
    pgconn.send_query(command.encode())
    while pgconn.is_busy():
        if (deadline is not None and time.monotonic() > deadline) or (stop is not None and stop.is_set()):
            connection.cancel_safe(timeout=5.0)
            return None
        if select.select([pgconn.socket], [], [], 0.05)[0]:
            pgconn.consume_input()
    result = pgconn.get_result()
    assert result is not None
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise failure(result)
    return result


def _who_is_in_the_way(dsn: str, slot: str, timeout: float | None) -> str:
    with connect(dsn, name="strangler_cdc look") as connection:
        rows = connection.execute(
            "SELECT pid, coalesce(usename, ''), extract(epoch FROM clock_timestamp() - xact_start)::int"
            " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
            " ORDER BY xact_start LIMIT 5"
        ).fetchall()
    running = ", ".join(f"pid {pid} ({user}, {seconds} s)" for pid, user, seconds in rows)
    after = "the stream was told to stop" if timeout is None else f"{timeout:g} s"
    return (
        f"slot {slot} was not created within {after}: it waits for running write transactions to end "
        f"({running or 'none is running any more'}); end them or try again"
    )


class SlotSource:
    """Streams the transactions of `publication` from `slot`. See `cdc.seams.Source`."""

    def __init__(
        self,
        dsn: str,
        *,
        slot: str,
        publication: str,
        tables: Collection[TableName],
        local_only: bool = False,
        temporary: bool = False,
        without_gap: bool = False,
        origin: Origin | None = None,
    ) -> None:
        """Nothing happens before `start`. `local_only` leaves out what another stream has written there. `temporary`:
        make the slot at `start`, where the log is then, and lose it with the connection. `without_gap`: refuse a slot
        that begins behind where `start` shall. `origin`: read from this source alone, None from any.
        """
        self._dsn = dsn
        self._slot = slot
        self._publication = publication
        self._tables = tables
        self._local_only = local_only
        self._temporary = temporary
        self._without_gap = without_gap
        self._origin = origin
        self._connection: psycopg.Connection[Any] | None = None
        self._assembler = Assembler(tables)
        self._received = Lsn(0)
        self._confirmed = Lsn(0)
        self._reported = Lsn(0)
        self._last_feedback = 0.0
        self._last_heard = 0.0

    def start(self, after: Lsn) -> None:
        """Connect and begin after `after`. Raises psycopg.Error, ObjectInUse while another reader has the
        slot, StreamError when a table is not there, or the slot is not, AwayError when the source is another one.
        """
        self.close()
        connection = connect_for_replication(self._dsn, name=f"strangler_cdc read {self._slot}")
        self._connection = connection
        # whoever answered a moment ago may have been followed by another: this connection is the one that is read
        if self._origin is not None and (found := identify(connection).origin) != self._origin:
            self.close()
            raise AwayError(
                f"the source was {self._origin} a moment ago and is {found} now; it is looked at anew"
            )
        if self._temporary:
            # on this connection: no other may read from a temporary slot
            connection.execute(
                f"CREATE_REPLICATION_SLOT {quote(self._slot)} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')".encode()
            )
        self._assembler = Assembler(self._tables, oids=_oids(self._dsn, self._tables))
        self._received = self._confirmed = self._reported = after
        wanted = [
            "proto_version '1'",
            f"publication_names {literal(quote(self._publication))}",
            "messages 'true'",
        ]
        if self._local_only:
            wanted.append("origin 'none'")
        command = f"START_REPLICATION SLOT {quote(self._slot)} LOGICAL {after} ({', '.join(wanted)})"
        result = connection.pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            self.close()
            error = failure(result)
            if isinstance(error, psycopg.errors.UndefinedObject):
                raise StreamError(
                    f"slot {self._slot} is gone from the source, and with it the changes after {after}; {BEGIN_ANEW}"
                ) from error
            raise error
        if self._without_gap:
            self._refuse_gap(after)
        connection.pgconn.nonblocking = 1
        self._last_heard = time.monotonic()
        self._feedback(ask=False)

    def _refuse_gap(self, after: Lsn) -> None:
        """Only now that we hold the slot can nobody make it anew. The server begins where the slot does, without a
        word, when that is further than what was asked for."""
        with connect(self._dsn, name=f"strangler_cdc read {self._slot}") as asking:
            state = slot_state(asking, self._slot)
        if state is None or state.confirmed is None or state.confirmed > after:
            self.close()
            begins = "nowhere" if state is None else f"at {state.confirmed}"
            raise StreamError(
                f"slot {self._slot} was made anew on the source: it begins {begins}, the changes since {after} can no "
                f"longer be read; {BEGIN_ANEW}"
            )

    def read(self, timeout: float) -> list[Event]:
        """What has arrived. Raises psycopg.OperationalError when the connection is lost, DecodeError."""
        pgconn = self._pgconn()
        events: list[Event] = []
        deadline = time.monotonic() + timeout
        more = _LOOKS_AGAIN
        while True:
            done = drain(pgconn.get_copy_data, self._assembler, events)
            now = time.monotonic()
            if done.taken:
                self._last_heard = now
            if done.ended:
                raise self._ended(pgconn)
            self._note_received(events)
            if done.other:
                self._take(done.other, events)
                continue
            self._keep_in_touch(now)
            if events or not done.empty or now >= deadline:
                if done.empty and more and len(events) < _EVENTS_AT_ONCE:
                    more -= (
                        1  # what came while this was decoded goes along: each call costs the caller something
                    )
                    pgconn.consume_input()
                    continue
                return events
            wait = min(deadline - now, _FEEDBACK_EVERY)
            if select.select([pgconn.socket], [], [], wait)[0]:
                pgconn.consume_input()

    def _note_received(self, events: list[Event]) -> None:
        for event in reversed(events):
            if not isinstance(event, Transaction) or not event.more:
                self._received = max(self._received, event.position)
                return

    def confirm(self, position: Lsn) -> None:
        """The server may forget the log up to `position`. Sent with the next feedback."""
        self._confirmed = max(self._confirmed, position)

    def answer(self) -> None:
        """Send feedback without reading."""
        now = time.monotonic()
        self._last_heard = now  # silence is ours, not the server's: we are not reading
        self._keep_in_touch(now)

    def close(self) -> None:
        """Close the connection; the slot stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._confirmed > self._reported and connection.pgconn.status == pq.ConnStatus.OK:
                self._last_word(connection)
            connection.close()

    def _last_word(self, connection: psycopg.Connection[Any]) -> None:
        try:
            self._send(connection.pgconn, ask=False)
        except psycopg.OperationalError:
            return  # the server is gone; it learns the position when we come back

    def _take(self, data: bytes, events: list[Event]) -> None:
        kind = data[0]
        if kind == _KEEPALIVE:
            end, _, asked = _KEEPALIVE_BODY.unpack(data)
            if not self._assembler.within_transaction:
                # The server sends in log order: all that committed before `end` is in front of this message.
                events.append(Watermark(Lsn(end)))
                self._received = max(self._received, Lsn(end))
            if asked:
                self._feedback(ask=False)
        else:
            raise psycopg.OperationalError(f"unknown replication message {data[:1]!r}")

    def _keep_in_touch(self, now: float) -> None:
        silence = now - self._last_heard
        if silence > _DEAD_AFTER:
            raise psycopg.OperationalError(f"the source has been silent for {silence:.0f} s")
        since = now - self._last_feedback
        news = self._confirmed > self._reported and since >= _FEEDBACK_EVERY
        if news or since >= _SIGN_OF_LIFE_EVERY:
            self._feedback(ask=silence >= _ASK_AFTER)

    def _feedback(self, *, ask: bool) -> None:
        self._send(self._pgconn(), ask=ask)

    def _send(self, pgconn: pq.abc.PGconn, *, ask: bool) -> None:
        confirmed = self._confirmed
        clock = int((time.time() - _SECONDS_1970_TO_2000) * 1_000_000)
        written = max(self._received, confirmed)
        pgconn.put_copy_data(_STATUS_UPDATE.pack(b"r", written, confirmed, confirmed, clock, int(ask)))
        pgconn.flush()
        self._reported = confirmed
        self._last_feedback = time.monotonic()

    def _pgconn(self) -> pq.abc.PGconn:
        if self._connection is None:
            raise psycopg.OperationalError("the source is not started")
        return self._connection.pgconn

    def _ended(self, pgconn: pq.abc.PGconn) -> psycopg.Error:
        result = pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return failure(result)
        return psycopg.OperationalError("the source ended the stream")


def _oids(dsn: str, tables: Collection[TableName]) -> dict[int, TableName]:
    """Which tables have these names now. The log calls a table what it was called at the time of the change."""
    with connect(dsn, name="strangler_cdc look") as connection:
        rows = connection.execute(
            "SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            [[table.schema for table in tables], [table.name for table in tables]],
        ).fetchall()
    found = {oid: TableName(schema, name) for oid, schema, name in rows}
    if missing := sorted(set(tables) - set(found.values())):
        raise StreamError(
            f"{', '.join(map(str, missing))} does not exist on the source under this name: its changes would be "
            "missed; rename it back, or change the mapping"
        )
    return found
