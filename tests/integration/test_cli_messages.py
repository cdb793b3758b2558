"""What the command line says when something is wrong, and its exit codes; help of every verb."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import click
import pytest
import structlog

from migration_plans import examples
from migration_plans.cli import main
from migration_plans.cli.exits import ExitCode
from migration_plans.cli.verbs import strangler
from migration_plans.ledger import Ledger
from migration_plans.plan import load_plan
from migration_plans.record import after, begin
from migration_plans.stages import Event
from migration_plans.testing import FakeProxyAdmin
from strangler_proxy.routes import load_routes
from workshop.postgres import free_port

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command line takes the process's logging for its own; give it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in (
        "STRANGLER_PLAN",
        "STRANGLER_ROUTES",
        "STRANGLER_PROXY_ADMIN",
        "STRANGLER_LEDGER_DSN",
        "SHOP_CDC_DSN",
    ):
        monkeypatch.delenv(name, raising=False)
    examples.write(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return call


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    context = click.Context(strangler)
    for name in strangler.list_commands(context):
        command = strangler.get_command(context, name)
        assert command is not None
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, inner) for inner in command.commands]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_help_of_every_verb_has_an_example_that_names_it(run: Run, command: tuple[str, ...]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == ExitCode.DONE
    assert "Example" in out
    assert "strangler " + " ".join(command) in out.split("Example")[1]


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("stages:", "stagse:"), 15, "unknown key 'stagse'"),
        (("{ramp: 10}", "{ramp: 101}"), 15, "percentage above 0 and up to 100"),
        (("group: catalog", "group: catalogue"), 3, "the routes file has no group 'catalogue'"),
        (("soak: 0s", "soak: never"), 16, "not a duration"),
    ],
)
def test_faults_of_the_plan(run: Run, tmp_path: Path, change: tuple[str, str], line: int, said: str) -> None:
    (tmp_path / "plan.yaml").write_text(examples.PLAN.replace(*change), encoding="utf-8")
    code, _, err = run("plan", "check", "plan.yaml", "--offline")
    assert code == ExitCode.FILE_REFUSED
    assert f"plan.yaml:{line}:" in err
    assert said in err
    assert "nothing was changed" in err


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("percent: 0", "percent: 101"), 10, "101"),
        (("backend: catalog\n", "backend: catalogg\n"), 8, "catalogg"),
        (("sticky: user", "stikcy: user"), 12, "stikcy"),
        (
            ("groups:\n", "groups:\n  other: {backend: catalog, paths: ['/api/products'], percent: 0}\n"),
            0,
            "/api/products",
        ),
    ],
)
def test_faults_of_the_routes_file(
    run: Run, tmp_path: Path, change: tuple[str, str], line: int, said: str
) -> None:
    (tmp_path / "routes.yaml").write_text(examples.ROUTES.replace(*change), encoding="utf-8")
    for arguments in (("plan", "check", "plan.yaml", "--offline"), ("traffic", "catalog=0"), ("proxy",)):
        code, _, err = run(*arguments)
        assert code == ExitCode.FILE_REFUSED, err
        assert f"routes.yaml:{line}" in err or not line
        assert said in err


def test_errors_are_json_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(examples.PLAN.replace("stages:", "stagse:"), encoding="utf-8")
    code, out, _ = run("plan", "check", "plan.yaml", "--offline", "--json")
    error = json.loads(out)["error"]
    assert code == error["code"] == 3
    assert {problem["line"] for problem in error["problems"]} == {1, 15}


def test_no_such_plan(run: Run) -> None:
    code, _, err = run("plan", "check", "nonsense")
    assert code == ExitCode.FILE_REFUSED
    assert "one of: catalog" in err


def test_missing_environment_is_wrong_usage(run: Run) -> None:
    code, _, err = run("status", "plan.yaml")
    assert code == ExitCode.USAGE
    assert "STRANGLER_LEDGER_DSN" in err


def test_unreachable_ledger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANGLER_LEDGER_DSN", f"postgresql://x@127.0.0.1:{free_port()}/x")
    code, _, err = run("status", "plan.yaml")
    assert code == ExitCode.UNREACHABLE
    assert "the ledger does not answer" in err


def test_verbs_before_the_start(run: Run, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("STRANGLER_LEDGER_DSN", database)
    for verb in ("advance", "pause", "resume", "rollback", "retry", "reset"):
        code, _, err = run(verb, "plan.yaml")
        assert code == ExitCode.CONFLICT, verb
        assert "strangler start" in err
    code, out, _ = run("history", "plan.yaml")
    assert code == ExitCode.DONE
    assert "never started" in out


def test_port_taken(run: Run, tmp_path: Path) -> None:
    with FakeProxyAdmin(tmp_path / "routes.yaml") as taken:
        port = taken.url.rpartition(":")[2]
        code, _, err = run("proxy", "--port", str(free_port()), "--admin-port", port)
    assert code == ExitCode.CONFLICT
    assert port in err


def test_traffic_shows_sets_and_asks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProxyAdmin(tmp_path / "routes.yaml") as proxy:
        monkeypatch.setenv("STRANGLER_PROXY_ADMIN", proxy.url)
        code, out, _ = run("traffic", "--json")
        assert (code, json.loads(out)["groups"]["catalog"]["live_percent"]) == (0, 0.0)
        code, out, _ = run("traffic", "catalog=12.5", "--yes", "--json")
        body = json.loads(out)
        assert (code, body["groups"]["catalog"]["live_percent"]) == (0, 12.5)
        assert len(body["workers"]) == 2
        code, _, err = run("traffic", "catalog=50")
        assert code == ExitCode.FAILED, "going up asks, and nobody answers here"
        assert "12.5 % -> 50 %" in err
        assert proxy.percent() == load_routes(tmp_path / "routes.yaml").groups["catalog"].percent == 12.5
        assert run("traffic", "catalog=0")[0] == ExitCode.DONE
        assert proxy.percent() == 0


@pytest.mark.parametrize(
    "given", ["catalog", "catalog=x", "catalog=101", "catalog=0.001", "catalog=-1", "cart=5"]
)
def test_traffic_refuses_nonsense(run: Run, given: str) -> None:
    code, _, err = run("traffic", given)
    assert code == ExitCode.USAGE
    assert given.partition("=")[0] in err


def test_traffic_with_the_proxy_away_says_what_is_not_known(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRANGLER_PROXY_ADMIN", f"http://127.0.0.1:{free_port()}")
    code, _, err = run("traffic", "catalog=0")
    assert code == ExitCode.UNREACHABLE
    assert "is written" in err


def test_advance_asks_when_the_gates_that_are_known_are_those_of_another_stage(
    run: Run, monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("STRANGLER_LEDGER_DSN", database)
    plan = load_plan(tmp_path / "plan.yaml")
    stages = [planned.stage for planned in plan.stages]
    with Ledger(database) as ledger:
        ledger.install()
        ledger.acquire(plan.name)  # a controller runs
        record = begin(plan.name, stages=stages, percent=Decimal(0), digest=plan.digest, now=0.0)
        for event in (Event.START, Event.ENTERED):
            record = ledger.append(
                after(record, event, stages=stages, now=0.0), event=event.value, actor="test"
            )
        passed = [{"gate": "soak", "outcome": "pass", "text": "live for 1 h"}]
        ledger.observe(plan.name, {"version": record.version - 1, "gates": passed})
        code, _, err = run("advance", "plan.yaml")
        assert code == ExitCode.FAILED
        assert "nothing is known of the gates" in err
        ledger.observe(plan.name, {"version": record.version, "gates": passed})
        assert run("advance", "plan.yaml")[0] == ExitCode.DONE


def test_rollback_without_a_ledger_says_what_works_without_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRANGLER_LEDGER_DSN", f"postgresql://x@127.0.0.1:{free_port()}/x")
    code, _, err = run("rollback", "plan.yaml")
    assert code == ExitCode.UNREACHABLE
    assert "strangler traffic catalog=0" in err
