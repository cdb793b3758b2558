"""Debezium beside the slot: readers of one log, to see what Debezium says and what we make of it. It reads as an
embedded engine, or as a connector of Kafka Connect whose topic we read.

One engine start takes three seconds, so a history is written first and read once.
"""

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.changes import Lsn, TableName, Transaction
from cdc.columntypes import read_schema_columns, read_tables
from cdc.connect import Connect, KafkaSettings, connector_config, forget
from cdc.decode.debezium import Decoder, Table
from cdc.decode.debezium_values import Modes
from cdc.encode.debezium import Encoder
from cdc.encode.debezium_schemas import Schemas
from cdc.seams import Source
from cdc.sources.embedded import EmbeddedSource, engine_properties
from cdc.sources.kafka import KafkaSource
from cdc.sources.slot import SlotSource, created_slot
from tests.cdc_shop import admin
from tests.kafka_lab import PASSWORD, KafkaLab
from workshop.postgres import EmbeddedPostgres

QUICK_JAVA = "-XX:TieredStopAtLevel=1 -Xshare:auto"
PUBLICATION = "everything"
ENOUGH = "enough"
"""Prefix of the message that ends a history."""


@contextmanager
def engine_role(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A role that may come over TCP: Java's driver knows no Unix sockets."""
    name = f"engine_{secrets.token_hex(4)}"
    with admin(postgres.dsn()) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(PASSWORD)
            )
        )
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def over_tcp(postgres: EmbeddedPostgres, database: str, role: str) -> str:
    """The DSN of `database` (also a DSN) as `role`, over TCP."""
    return make_conninfo(
        host="127.0.0.1",
        port=postgres.port,
        dbname=str(conninfo_to_dict(database)["dbname"]),
        user=role,
        password=PASSWORD,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """A database with tables, a publication of all of them, and slots before the history; the connector's is named like
    nobody else's, for Connect is shared.
    """

    dsn: str
    keys: Mapping[TableName, tuple[str, ...]]
    ignored: Mapping[TableName, frozenset[str]]
    begin: Lsn
    connector: str

    def slot(self) -> SlotSource:
        """Our own reader."""
        return SlotSource(self.dsn, slot="ours", publication=PUBLICATION, tables=list(self.keys))

    def properties(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The engine's configuration: the connector's own, changed by `more`."""
        connector = connector_config(
            name="theirs", source_dsn=self.dsn, publication=PUBLICATION, keys=dict(self.keys), topic="unused"
        )
        return engine_properties(connector, self.dsn) | dict(more or {})

    def engine(self, more: Mapping[str, str] | None = None) -> EmbeddedSource:
        """Debezium's reader."""
        return EmbeddedSource(self.properties(more), read_tables=self._tables)

    @contextmanager
    def kafka(self, lab: KafkaLab, more: Mapping[str, str] | None = None) -> Iterator[KafkaSource]:
        """The reader of a topic that a connector on `lab` fills, until it ends."""
        config = connector_config(
            name=self.connector,
            source_dsn=self.dsn,
            publication=PUBLICATION,
            keys=dict(self.keys),
            topic=self.connector,
            more=_for_connect(more or {}),
        )
        settings = KafkaSettings(lab.bootstrap, lab.connect, topic=self.connector)
        with Connect(lab.connect) as connect:
            connect.register(self.connector, config)
        try:
            yield KafkaSource(
                lab.bootstrap,
                topic=self.connector,
                group=self.connector,
                read_tables=self._tables,
                modes=Modes.of(config),
            )
        finally:
            forget(settings, name=self.connector)

    def decoder(self, more: Mapping[str, str] | None = None) -> Decoder:
        """What reads its records."""
        return Decoder(self._tables(), Modes.of(self.properties(more)))

    def encoder(self, *, schemas: bool = False) -> Encoder:
        """What writes our transactions as its records."""
        database = str(conninfo_to_dict(self.dsn)["dbname"])
        tables = self._tables()
        known = None
        if schemas:
            with admin(self.dsn) as connection:
                columns = read_schema_columns(connection, tables)
            known = Schemas(prefix="theirs", tables=tables, columns=columns, keys=self.keys)
        return Encoder(prefix="theirs", database=database, tables=tables, keys=self.keys, schemas=known)

    def _tables(self) -> dict[TableName, Table]:
        with admin(self.dsn) as connection:
            return read_tables(connection, {name: self.ignored.get(name, frozenset()) for name in self.keys})

    def write(self, *statements: str) -> None:
        """Each in a transaction of its own."""
        with admin(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement)

    def end(self) -> None:
        """The history is written."""
        self.write(f"SELECT pg_logical_emit_message(true, '{ENOUGH}', '')")


def _for_connect(more: Mapping[str, str]) -> dict[str, str]:
    """The engine names both converters at once, Connect each."""
    both = "converter.schemas.enable"
    said = {name: value for name, value in more.items() if name != both}
    return said | ({f"{part}.{both}": more[both] for part in ("key", "value")} if both in more else {})


def make_bench(
    dsn: str,
    *,
    ddl: str,
    keys: Mapping[str, tuple[str, ...]],
    ignored: Mapping[str, frozenset[str]] | None = None,
) -> Bench:
    """Create tables, publication and slots. `keys`: tables of schema public and their primary keys."""
    with admin(dsn) as connection:
        connection.execute(ddl)
        listed = sql.SQL(", ").join(map(sql.Identifier, keys))
        connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(PUBLICATION), listed)
        )
        connector = f"conform_{secrets.token_hex(4)}"
        for slot in (connector, "theirs", "ours"):
            with created_slot(dsn, slot) as created:
                begin = created.consistent_point
    return Bench(
        dsn,
        {TableName("public", name): key for name, key in keys.items()},
        {TableName("public", name): columns for name, columns in (ignored or {}).items()},
        begin,
        connector,
    )


def read_history(source: Source, after: Lsn, *, timeout: float = 60.0) -> list[Transaction]:
    """All transactions up to the message that ends the history, without it."""
    source.start(after)
    found: list[Transaction] = []
    deadline = time.monotonic() + timeout
    try:
        while True:
            assert time.monotonic() < deadline, f"the history did not end; {len(found)} transactions came"
            for event in source.read(0.2):
                if not isinstance(event, Transaction):
                    continue
                if any(message.prefix == ENOUGH for message in event.messages):
                    return found
                found.append(event)
    finally:
        source.close()


def read_records(
    bench: Bench, more: Mapping[str, str] | None = None
) -> list[tuple[str, Any, Any, dict[str, str]]]:
    """Debezium's own records: topic, key, value, headers; up to the END of the message that ends the history."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cdc.sources.debezium_engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    timer = threading.Timer(60.0, child.kill)
    timer.start()
    found: list[tuple[str, Any, Any, dict[str, str]]] = []
    over = False
    try:
        child.stdin.write(json.dumps(bench.properties(more)).encode() + b"\n")
        child.stdin.flush()
        for line in child.stdout:
            _, topic, key, value, headers = line.decode().rstrip("\n").split("\t")
            said = json.loads(value) if value else None
            body = said.get("payload", said) if said else {}
            over = over or body.get("message", {}).get("prefix") == ENOUGH
            found.append((topic, json.loads(key) if key else None, said, json.loads(headers or "{}")))
            if over and body.get("status") == "END":
                return found
        raise AssertionError(f"the engine ended after {len(found)} records")
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
