"""With `--json` standard output holds one JSON document, whatever becomes of the verb."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest

from migration_plans import cli, examples
from migration_plans.cli.verbs import strangler

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
VARIABLES = (
    "SHOP_CDC_DSN",
    "SHOP_DATABASE_URL",
    "CATALOG_CDC_DSN",
    "CATALOG_DATABASE_URL",
    "STRANGLER_LEDGER_DSN",
)
GIVEN = {"plan_name": "plan.yaml", "key": "public.product:1"}
"""Arguments that verbs ask for."""
ABOVE = {"up", "down", "demo"}
"""Verbs of the workshop start and end processes; tests/acceptance runs them."""


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            if name in ABOVE or found is None:
                continue
            if isinstance(found, click.Group):
                yield from verbs(found, (*path, name))
            elif any(parameter.name == "as_json" for parameter in found.params):
                yield (*path, name), found


VERBS = dict(verbs(strangler))


def called(path: tuple[str, ...], *more: str) -> list[str]:
    """The verb with what it cannot do without."""
    words = list(path)
    for parameter in VERBS[path].params:
        if isinstance(parameter, click.Argument) and (parameter.required or parameter.name == "plan_name"):
            words.append(GIVEN[parameter.name or ""])
        elif parameter.name in ("yes", "every") and isinstance(parameter, click.Option) and parameter.is_flag:
            words += [parameter.opts[0]]
        elif parameter.required and isinstance(parameter, click.Option):
            words += [parameter.opts[0], "because"]
    return [*words, "--json", *more]


def answered(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    return int(left.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the example plan; every server that it names is away."""
    plan = examples.PLAN.replace(
        "publication: strangler_catalog", "publication: strangler_catalog, source: kafka"
    )
    examples.write(tmp_path, plan=plan, routes=examples.ROUTES)
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("STRANGLER_PROXY_ADMIN", "http://127.0.0.1:1")
    monkeypatch.setenv("STRANGLER_CONNECT", "http://127.0.0.1:1")
    monkeypatch.setenv("STRANGLER_KAFKA", "127.0.0.1:1")
    monkeypatch.delenv("STRANGLER_PLAN", raising=False)
    monkeypatch.delenv("STRANGLER_ROUTES", raising=False)
    return tmp_path


def test_the_verbs_are_found() -> None:
    assert {
        ("verify",),
        ("doctor",),
        ("comparisons",),
        ("cdc", "status"),
        ("cdc", "connector", "status"),
    } <= set(VERBS)
    assert len(VERBS) > 20


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_servers_that_are_away_are_one_document(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, body = answered(capsys, called(path))
    if code:
        assert body["error"]["code"] == code
        assert body["error"]["message"]
    else:
        assert path in (("plan", "show"), ("plan", "check"), ("traffic",)), "this verb needs a server"
        assert "error" not in body


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_a_wrong_option_is_one_document(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, body = answered(capsys, called(path, "--no-such-option"))
    assert (code, body["error"]["code"]) == (2, 2)
    assert "--no-such-option" in body["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [path for path, verb in VERBS.items() if any(each.name == "plan_name" for each in verb.params)],
    ids=" ".join,
)
def test_a_plan_that_is_refused_is_one_document(
    desk: Path, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "plan.yaml").write_text("plan: [")
    code, body = answered(capsys, called(path))
    assert (code, body["error"]["code"]) == (3, 3)
    assert body["error"]["problems"][0]["line"] > 0


def test_what_a_verb_found_and_its_refusal_are_one_document(
    desk: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE UNLOGGED TABLE product (id bigint PRIMARY KEY, name text NOT NULL)")
        connection.execute("CREATE TABLE item (item_id bigint PRIMARY KEY, title text NOT NULL)")
    for name in VARIABLES:
        monkeypatch.setenv(name, database)
    code, body = answered(capsys, ["doctor", "plan.yaml", "--only", "source-unlogged", "--json"])
    assert (code, body["error"]["code"]) == (4, 4)
    assert [finding["id"] for finding in body["findings"]] == ["source-unlogged"]


@pytest.mark.usefixtures("desk")
def test_lines_of_json_end_with_the_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["verify", "plan.yaml", "--json-lines"])
    assert left.value.code == 6
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["error"]["code"] == 6
