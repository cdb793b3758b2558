"""Run one stream without a plan: `python -m cdc FILE --slot NAME --publication NAME`.

FILE holds a mapping under `tables:`. The databases are named by the environment variables CDC_SOURCE_DSN and
CDC_TARGET_DSN, because a command line is visible to every user of the machine. Exit codes: 0 stopped by
SIGTERM or SIGINT, 1 the stream cannot go on, 2 wrong usage, 3 the file was refused, 5 already running.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from threading import Event

import psycopg

from cdc.decode.pgoutput import DecodeError
from cdc.garbage import rows_left_alone
from cdc.mapping import parse_mapping
from cdc.parked import OnRefused
from cdc.pipeline import StreamConfig, StreamError, run
from cdc.sinks.session import AlreadyRunningError
from chassis import logs
from chassis.problems import InvalidFileError
from chassis.yamlfile import load


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal comes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cdc", description="Run one change stream.")
    parser.add_argument("file", type=Path, help="YAML file with the mapping under the key 'tables'")
    parser.add_argument("--slot", required=True, help="the stream's name and replication slot")
    parser.add_argument("--publication", required=True, help="publication on the source")
    parser.add_argument(
        "--park", type=int, metavar="KEYS", help="park refused changes of at most so many keys"
    )
    chosen = parser.parse_args(arguments)
    dsns = {name: os.environ.get(name, "") for name in ("CDC_SOURCE_DSN", "CDC_TARGET_DSN")}
    for name, dsn in dsns.items():
        if not dsn:
            parser.error(f"set the environment variable {name} to the connection URL")
    logs.configure("cdc")
    stop = Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, lambda *_: stop.set())
    try:
        data, places = load(chosen.file)
        tables = data.get("tables") if isinstance(data, dict) else None
        config = StreamConfig(
            slot=chosen.slot,
            publication=chosen.publication,
            mapping=parse_mapping(tables, places),
            source_dsn=dsns["CDC_SOURCE_DSN"],
            target_dsn=dsns["CDC_TARGET_DSN"],
            on_refused=OnRefused.STOP if chosen.park is None else OnRefused.PARK,
            max_parked=chosen.park or 1,
        )
        with rows_left_alone():
            run(config, stop)
    except InvalidFileError as error:
        print(error, file=sys.stderr)
        return 3
    except AlreadyRunningError as error:
        print(error, file=sys.stderr)
        return 5
    except (StreamError, DecodeError, psycopg.Error) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
