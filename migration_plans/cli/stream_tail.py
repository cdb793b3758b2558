"""`strangler cdc tail`: watch the changes of a plan's tables, as Debezium would tell them."""

import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc.changes import Lsn, Transaction
from cdc.columntypes import read_schema_columns, read_tables
from cdc.encode.debezium import Encoder, Envelope
from cdc.encode.debezium_schemas import SchemaError, Schemas
from cdc.sessions import connect
from cdc.sources.slot import SlotSource
from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, with_session
from migration_plans.drivers.cdc_stream import CdcStream

_WAIT = 0.2  # seconds; how soon SIGTERM is seen


@click.command()
@with_session
@click.option("--limit", type=click.IntRange(min=1), help="End after so many transactions.")
@click.option(
    "--schemas", is_flag=True, help="Wrap keys and values with their schemas, as schemas.enable=true does."
)
@click.option("--heartbeats", is_flag=True, help="Print a heartbeat where the log moves on without a change.")
def tail(*, session: Session, limit: int | None, schemas: bool, heartbeats: bool) -> None:
    """Print what is committed to PLAN's source tables from now on, one JSON object a line, until SIGINT or SIGTERM.

    Records are Debezium's envelopes (topic, key, value, headers), without schemas unless asked. They are read through a
    temporary slot of the command's own: the plan's stream is not touched, and nothing is left behind.

    \b
    Example:
      strangler cdc tail catalog
      strangler cdc tail catalog --limit 1
      strangler cdc tail catalog --schemas
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    config = CdcStream(session.plan).config()
    keys = {table.source: tuple(part.source for part in table.key) for table in config.mapping.tables}
    source = SlotSource(
        config.source_dsn,
        slot=f"tail_{secrets.token_hex(6)}",
        publication=config.publication,
        tables=config.mapping.sources(),
        temporary=True,
    )
    try:
        with connect(config.source_dsn, name="strangler_cdc tail") as connection:
            tables = read_tables(connection, dict.fromkeys(keys, frozenset()))
            columns = read_schema_columns(connection, tables) if schemas else {}
        encoder = Encoder(
            prefix=config.slot,
            database=str(conninfo_to_dict(config.source_dsn).get("dbname", "")),
            tables=tables,
            keys=keys,
            schemas=Schemas(prefix=config.slot, tables=tables, columns=columns, keys=keys)
            if schemas
            else None,
        )
        source.start(Lsn(0))
        click.echo(f"watching {', '.join(map(str, keys))}", err=True)
        left = limit
        while not stop.is_set() and left != 0:
            for event in source.read(_WAIT):
                source.confirm(event.position)
                if left == 0:
                    continue
                if not isinstance(event, Transaction):
                    _print([encoder.heartbeat(now=datetime.now(UTC))] if heartbeats else [])
                    continue
                _print(encoder.encode(event, now=datetime.now(UTC)))
                if left is not None and not event.more:
                    left -= 1
    except psycopg.Error as error:
        raise SaysNoError(f"the source cannot be read: {str(error).strip()}") from error
    except SchemaError as error:
        raise SaysNoError(str(error)) from error
    except BrokenPipeError:
        # whoever read has had enough; Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        source.close()


def _print(records: Iterable[Envelope]) -> None:
    for record in records:
        line = {"topic": record.topic, "key": record.key, "value": record.value, "headers": record.headers}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()
