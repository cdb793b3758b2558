"""The command line `strangler`: one verb a file, each loaded only when it is called.

`main` is the console script. Verbs raise; main alone turns errors into messages and exit codes (exits.py).
Commands of packages above this one (`up`, `down`, `demo`) are found by the entry-point group
`strangler.commands`.
"""

import logging
import sys
from collections.abc import Sequence

import click

from chassis import logs
from migration_plans.cli.answer import Answer
from migration_plans.cli.exits import ExitCode, Told, describe
from migration_plans.cli.verbs import strangler


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of docs/reference/contracts.md."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # processes (proxy, controller, ...) configure their own; a verb's answer on stdout stays free of log lines
    logs.configure("strangler", level=logging.WARNING)
    lines = "--json-lines" in given
    answer = Answer(wanted="--json" in given or lines, lines=lines)
    error: Told | None = None
    code: int = ExitCode.DONE
    try:
        result = strangler.main(args=given, prog_name="strangler", standalone_mode=False, obj=answer)
        code = result if isinstance(result, int) else ExitCode.DONE
    except click.ClickException as wrong:
        wrong.show()
        error = Told(
            ExitCode.USAGE if isinstance(wrong, click.UsageError) else ExitCode.FAILED, wrong.format_message()
        )
    except (click.Abort, KeyboardInterrupt):
        error = Told(ExitCode.FAILED, "stopped; nothing more was done")
        click.echo(error.message, err=True)
    except Exception as failure:
        error = describe(failure)
        if error is None:
            raise
        click.echo(f"strangler: {error.message}", err=True)
    answer.end(error)
    sys.exit(int(code if error is None else error.code))
