"""The reference pages are what the code says."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from migration_plans.cli.exits import ExitCode
from migration_plans.cli.reference import command_line, pages, reference
from migration_plans.cli.verbs import strangler


def test_pages_in_the_repository_are_fresh() -> None:
    result = CliRunner().invoke(reference, ["--check"])
    assert (result.exit_code, result.stderr) == (ExitCode.DONE, "")


def test_a_stale_page_is_named_and_not_written_over_by_a_check(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(reference, ["--directory", str(tmp_path)]).exit_code == ExitCode.DONE
    assert {path.name for path in tmp_path.iterdir()} == pages().keys()
    (tmp_path / "stages.md").write_text("by hand", encoding="utf-8")
    (tmp_path / "cli.md").unlink()
    result = run(reference, ["--directory", str(tmp_path), "--check"])
    assert result.exit_code == ExitCode.GATE_SAYS_NO
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        str(tmp_path / "cli.md"),
        str(tmp_path / "stages.md"),
    ]
    assert (tmp_path / "stages.md").read_text(encoding="utf-8") == "by hand"


@pytest.mark.parametrize("name", strangler.list_commands(click.Context(strangler)))
def test_every_verb_is_there_with_its_options_and_an_example(name: str) -> None:
    command = strangler.get_command(click.Context(strangler), name)
    assert command is not None
    section = command_line().split(f"\n## strangler {name}\n")[1].split("\n## strangler ")[0]
    assert f"strangler {name}" in section.split("```sh\n")[1].split("```")[0]
    for parameter in command.params:
        assert all(option in section for option in parameter.opts if option.startswith("--")), parameter.name
