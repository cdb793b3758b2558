"""`python -m extracted.catalog migrate`: bring the catalogue's database up to date."""

import argparse
import os
import sys

import psycopg
import structlog

from chassis import logs
from chassis.migrations import MigrationError, migrate, read_migrations
from chassis.settings import SettingsError, read
from extracted.catalog.app import MIGRATIONS, Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit code is 0 when done, 1 when it failed (the log says why), 2 for usage."""
    parser = argparse.ArgumentParser(prog="python -m extracted.catalog", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="apply the migrations that CATALOG_DATABASE_URL's database lacks")
    parser.parse_args(arguments)
    logs.configure("catalog")
    log = structlog.stdlib.get_logger("extracted.catalog")
    try:
        settings = read(Settings, os.environ)
        done = migrate(settings.database_url, read_migrations(MIGRATIONS))
    except (SettingsError, MigrationError, psycopg.Error) as error:
        log.error("migrate failed", reason=str(error).strip())  # noqa: TRY400  (the message is the remedy)
        return 1
    log.info("migrated", applied=[f"{migration.number:04}_{migration.name}" for migration in done])
    return 0


if __name__ == "__main__":
    sys.exit(main())
