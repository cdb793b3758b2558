"""What the documents say is checked against the code: links, make targets, commands, files."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cdc.mapping import parse_mapping
from chassis.yamlfile import parse
from migration_plans.cli.verbs import strangler
from strangler_proxy.routes import parse_routes

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", DOCS, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize("page", DOCS, ids=_name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named <= known


def _command_lines(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`(strangler [^`\n]+)`", text)
    blocks = re.findall(r"```(?:console|bash|sh|shell)\n(.*?)```", text, flags=re.DOTALL)
    listed = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [*inline, *(line for line in listed if line.startswith("strangler "))]


@pytest.mark.parametrize("page", DOCS, ids=_name)
def test_commands_and_options_exist(page: Path) -> None:
    for line in _command_lines(page):
        words = shlex.split(line.split(" # ")[0].replace("…", "").replace("|", " "), comments=True)[1:]
        command: click.Command = strangler
        context = click.Context(strangler, info_name="strangler")
        for word in words:
            if word.startswith("-"):
                options = {name for parameter in command.params for name in parameter.opts}
                options |= {name for parameter in command.params for name in parameter.secondary_opts}
                assert word.split("=")[0].rstrip("]") in options | {"--help"}, f"{line}: no option {word}"
            elif isinstance(command, click.Group):
                found = command.get_command(context, word)
                assert found is not None or not word.isalpha() or word.isupper(), f"{line}: no command {word}"
                command = found or command


def test_every_decision_has_its_number_and_title() -> None:
    for number, page in enumerate(sorted((ROOT / "docs" / "adr").glob("*.md")), start=1):
        assert page.name.startswith(f"{number:04d}-")
        assert page.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_every_dependency_has_its_reason() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", pyproject, flags=re.MULTILINE | re.DOTALL)
    assert listed is not None
    names = re.findall(r'"([a-z0-9.-]+)', listed.group(1))
    reasons = (ROOT / "docs" / "adr" / "0002-dependencies.md").read_text(encoding="utf-8").lower()
    assert [name for name in names if f"`{name}`" not in reasons] == []


def test_the_routes_file_of_the_reference_is_legal() -> None:
    page = (ROOT / "docs" / "reference" / "routes.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert example is not None
    routes = parse_routes(example.group(1).encode(), "routes.md")
    assert list(routes.groups) == ["catalog", "orders", "dashboard"]


def test_the_mapping_of_the_reference_is_legal() -> None:
    page = (ROOT / "docs" / "reference" / "mapping.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert example is not None
    data, places = parse(example.group(1), "mapping.md")
    mapping = parse_mapping(data["tables"], places)
    assert [str(table.target) for table in mapping.tables] == ["product", "stock"]
