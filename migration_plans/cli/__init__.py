"""The command line `strangler`: one verb a file, each loaded only when it is called.

`main` is the console script. Verbs raise; main alone turns errors into messages and exit codes (exits.py).
Commands of packages above this one (`up`, `down`, `demo`) are found by the entry-point group
`strangler.commands`.
"""

import json
import logging
import sys
from collections.abc import Sequence

import click

from chassis import logs
from migration_plans.cli.exits import ExitCode, describe
from migration_plans.cli.verbs import strangler


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of docs/reference/contracts.md."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # processes (proxy, controller, ...) configure their own; a verb's answer on stdout stays free of log lines
    logs.configure("strangler", level=logging.WARNING)
    try:
        result = strangler.main(args=given, prog_name="strangler", standalone_mode=False)
        code = result if isinstance(result, int) else ExitCode.DONE
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; nothing more was done", err=True)
        code = ExitCode.FAILED
    except Exception as error:
        told = describe(error)
        if told is None:
            raise
        if "--json" in given:
            click.echo(json.dumps({"error": told.as_dict()}))
        click.echo(f"strangler: {told.message}", err=True)
        code = told.code
    sys.exit(int(code))
