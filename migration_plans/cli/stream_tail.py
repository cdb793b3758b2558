"""`strangler cdc tail`: watch the changes of a plan's tables, as Debezium would tell them."""

import json
import os
import secrets
import signal
import sys
import threading
from datetime import UTC, datetime

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc.changes import Lsn, Transaction
from cdc.columntypes import read_tables
from cdc.encode.debezium import Encoder
from cdc.sessions import connect
from cdc.sources.slot import SlotSource
from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, with_session
from migration_plans.drivers.cdc_stream import CdcStream

_WAIT = 0.2  # seconds; how soon SIGTERM is seen


@click.command()
@with_session
@click.option("--limit", type=click.IntRange(min=1), help="End after so many transactions.")
def tail(*, session: Session, limit: int | None) -> None:
    """Print what is committed to PLAN's source tables from now on, one JSON object a line, until SIGINT or SIGTERM.

    Records are Debezium's envelopes (topic, key, value, headers) without schemas. They are read through a temporary
    slot of the command's own: the plan's stream is not touched, and nothing is left behind.

    \b
    Example:
      strangler cdc tail catalog
      strangler cdc tail catalog --limit 1
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
        encoder = Encoder(
            prefix=config.slot,
            database=str(conninfo_to_dict(config.source_dsn).get("dbname", "")),
            tables=tables,
            keys=keys,
        )
        source.start(Lsn(0))
        click.echo(f"watching {', '.join(map(str, keys))}", err=True)
        left = limit
        while not stop.is_set() and left != 0:
            for event in source.read(_WAIT):
                source.confirm(event.position)
                if not isinstance(event, Transaction) or left == 0:
                    continue
                _print(encoder, event)
                if left is not None and not event.more:
                    left -= 1
    except psycopg.Error as error:
        raise SaysNoError(f"the source cannot be read: {str(error).strip()}") from error
    except BrokenPipeError:
        # whoever read has had enough; Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        source.close()


def _print(encoder: Encoder, transaction: Transaction) -> None:
    for record in encoder.encode(transaction, now=datetime.now(UTC)):
        line = {"topic": record.topic, "key": record.key, "value": record.value, "headers": record.headers}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()
