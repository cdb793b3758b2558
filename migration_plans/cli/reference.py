"""The reference pages that are made from code: `python -m migration_plans.cli.reference [--check]`.

    docs/reference/cli.md             every verb, from its click command (also `up`, `down`, `demo`, through the
                                      entry points)
    docs/reference/stages.md          the state table of stages.py
    docs/reference/plan.schema.json   the models of plan.py
    docs/reference/doctor.md          the registry of the doctor's checks

Without an option the pages are written; with `--check` they are compared and nothing is written: exit code 4 names
those that are not what the code says.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cdc.doctor.page import page as doctor_page
from migration_plans.cli.exits import ExitCode
from migration_plans.cli.verbs import strangler
from migration_plans.plan import json_schema
from migration_plans.stages import markdown

_WRITE = "python -m migration_plans.cli.reference"
_DOCS = Path(__file__).parents[2] / "docs" / "reference"
_EXAMPLE = re.compile(r"Examples?:\n")


def pages() -> dict[str, str]:
    """Every generated page: name in docs/reference, and the text that the code gives it now."""
    return {
        "cli.md": command_line(),
        "stages.md": markdown(),
        "doctor.md": doctor_page(),
        "plan.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def command_line() -> str:
    """The page docs/reference/cli.md."""
    top = click.Context(strangler, info_name="strangler")
    blocks = [
        "# Command line",
        f"Written by `{_WRITE}` from the commands themselves; do not edit.",
        *_help(strangler),
        "\n".join(f"* [`{path}`](#{path.replace(' ', '-')})" for path, _, _ in _commands(top)),
    ]
    for path, command, context in _commands(top):
        blocks += [f"## {path}", f"```\n{_usage(command, context)}\n```", *_help(command)]
        options = _options(command, context)
        if options:
            blocks.append("\n".join(["| option | meaning |", "|---|---|", *options]))
    return "\n\n".join(blocks) + "\n"


def _commands(context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner.command_path, command, inner
        if isinstance(command, click.Group):
            yield from _commands(inner)


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _help(command: click.Command) -> Iterator[str]:
    """The help in Markdown: what click would not wrap (marked by a backspace) stays as it is, examples are code."""
    for paragraph in re.split(r"\n{2,}", inspect.cleandoc(command.help or "")):
        kept = paragraph.startswith("\b\n")
        text = paragraph.removeprefix("\b\n")
        if kept and (found := _EXAMPLE.match(text)):
            yield "Example:\n\n```sh\n" + inspect.cleandoc("\n" + text[found.end() :]) + "\n```"
        else:
            yield text if kept else " ".join(text.split("\n"))


def _options(command: click.Command, context: click.Context) -> list[str]:
    rows = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        record = parameter.get_help_record(context)
        assert record is not None, "only hidden options have no help record"
        names, meaning = record
        if isinstance(parameter.envvar, str) and parameter.envvar not in meaning:
            meaning = f"{meaning}  [env: {parameter.envvar}]"
        rows.append(f"| `{_cell(names)}` | {_cell(meaning.strip())} |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@click.command()
@click.option("--check", is_flag=True, help="Compare, and write nothing.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DOCS,
    help="Where the pages are.  [default: docs/reference]",
)
def reference(*, check: bool, directory: Path) -> None:
    """Write the generated reference pages, or compare them.

    \b
    Example:
      python -m migration_plans.cli.reference --check
    """
    stale = [
        directory / name
        for name, text in pages().items()
        if not _says(directory / name, text.encode("utf-8"))
    ]
    if check:
        for path in stale:
            click.echo(f"{path}: is not what the code says; write it: {_WRITE}", err=True)
        sys.exit(ExitCode.GATE_SAYS_NO if stale else ExitCode.DONE)
    directory.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_bytes(pages()[path.name].encode("utf-8"))
        click.echo(f"{path}: written")


def _says(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


if __name__ == "__main__":
    reference()
