"""Bad input through the real command: file, line and remedy are named, the exit code tells which kind of fault."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from migration_plans import examples
from workshop.postgres import free_port

STRANGLER = Path(sys.executable).with_name("strangler")
TWICE = "groups:\n  other: {backend: catalog, paths: [/api/products], percent: 0}\n"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in `directory`, with none of our variables set."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("STRANGLER_", "SHOP_"))
    }
    return subprocess.run(
        [str(STRANGLER), *arguments], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("change", "where", "said", "remedy"),
    [
        (("soak: 0s", "saok: 0s"), "plan.yaml:16:", "unknown key 'saok'", "correct its spelling"),
        (("{ramp: 10}", "{ramp: 101}"), "plan.yaml:15:", "up to 100", "got 101"),
        (("group: catalog", "group: cart"), "plan.yaml:3:", "no group 'cart'", "correct `group` in the plan"),
        (("columns:", "columms:"), "plan.yaml:14:", "columms", ""),
    ],
    ids=["unknown key", "ramp 101", "unknown group", "unknown key of the mapping"],
)
def test_plan(tmp_path: Path, change: tuple[str, str], where: str, said: str, remedy: str) -> None:
    examples.write(tmp_path, plan=examples.PLAN.replace(*change))
    before = content(tmp_path)
    done = run(tmp_path, "plan", "check", "plan.yaml", "--offline")
    assert done.returncode == 3, done.stderr
    assert all(part in done.stderr for part in (where, said, remedy)), done.stderr
    assert "nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (("sticky: user", "stikcy: user"), "routes.yaml:12:", "unknown key 'stikcy'"),
        (("percent: 0", "percent: 101"), "routes.yaml:10:", "between 0 and 100"),
        (("    backend: catalog\n", "    backend: catalogg\n"), "routes.yaml:8:", "catalogg"),
        (("groups:\n", TWICE), "routes.yaml:10:", "/api/products"),
    ],
    ids=["unknown key", "percent 101", "unknown backend", "two groups with one path"],
)
@pytest.mark.parametrize(
    "command",
    [("plan", "check", "plan.yaml", "--offline"), ("proxy", "--port", "1")],
    ids=lambda command: str(command[0]),
)
def test_routes(
    tmp_path: Path, command: tuple[str, ...], change: tuple[str, str], where: str, said: str
) -> None:
    examples.write(tmp_path, routes=examples.ROUTES.replace(*change))
    before = content(tmp_path)
    done = run(tmp_path, *command)
    assert done.returncode == 3, done.stderr
    assert all(part in done.stderr for part in (where, said, "nothing was changed")), done.stderr
    assert "Traceback" not in done.stderr
    assert content(tmp_path) == before


def test_percentage_on_the_command_line(tmp_path: Path) -> None:
    examples.write(tmp_path)
    before = content(tmp_path)
    done = run(tmp_path, "traffic", "catalog=101", "--yes")
    assert done.returncode == 2
    assert "from 0 to 100" in done.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_port_taken(tmp_path: Path, option: str) -> None:
    examples.write(tmp_path)
    ports = {"--port": free_port(), "--admin-port": free_port()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports[option] = taken.getsockname()[1]
        done = run(tmp_path, "proxy", *(str(word) for pair in ports.items() for word in pair))
    assert done.returncode == 5, done.stderr
    assert f"port {ports[option]} is taken" in done.stderr
    assert "choose another port" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_to_ask_is_told_apart_from_bad_input(tmp_path: Path) -> None:
    examples.write(tmp_path)
    done = run(tmp_path, "start", "plan.yaml")
    assert done.returncode == 2
    assert "STRANGLER_LEDGER_DSN" in done.stderr
