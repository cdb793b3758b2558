"""`strangler up` and `strangler down` as a person uses them: commands, HTTP, SQL, exit codes; nothing is imported
from the stack itself.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from workshop.postgres import EmbeddedPostgres, free_port

ROOT = Path(__file__).resolve().parents[2]
STRANGLER = str(Path(sys.executable).with_name("strangler"))
SMALL = ["--products", "60", "--users", "10", "--orders", "5"]
PORTS = ("port", "admin-port", "monolith-port", "catalog-port", "postgres-port")


def clean_environment(**extra: str) -> dict[str, str]:
    ours = ("SHOP_", "CATALOG_", "STRANGLER_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | extra


def free_ports() -> dict[str, int]:
    return {name: free_port() for name in PORTS}


def options(ports: Mapping[str, int]) -> list[str]:
    return [text for name, port in ports.items() for text in (f"--{name}", str(port))]


def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [STRANGLER, *arguments], cwd=ROOT, env=clean_environment(**extra), capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip


def processes_of(directory: Path) -> list[str]:
    """Command lines and environments of live processes that mention `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if state not in "ZX" and str(directory).encode() in text:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def until_gone(directory: Path, ports: Mapping[str, int]) -> None:
    deadline = time.monotonic() + 20
    while (left := processes_of(directory)) or any(answers(port) for port in ports.values()):
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.05)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stack_environment(directory: Path) -> dict[str, str]:
    lines = (directory / "run" / "stack.env").read_text().splitlines()
    pairs = [shlex.split(line)[1].partition("=")[::2] for line in lines]
    return dict(pairs)


def read_state(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((directory / "run" / "state.json").read_text())
    return state


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, int]]]:
    """A stack in the background, for the tests that only look at it."""
    directory, ports = tmp_path_factory.mktemp("up"), free_ports()
    done = run("up", "--var", str(directory), *options(ports), *SMALL)
    try:
        assert done.returncode == 0, done.stderr
        yield directory, ports
    finally:
        run("down", "--var", str(directory), "--wipe", "--yes")
        until_gone(directory, ports)


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    """A directory for a stack of the test's own; its data are wiped afterwards."""
    yield tmp_path / "var"
    run("down", "--var", str(tmp_path / "var"), "--wipe", "--yes")


def test_everything_answers_and_the_urls_are_printed(running: tuple[Path, dict[str, int]]) -> None:
    _, ports = running
    through_proxy = httpx.get(f"http://127.0.0.1:{ports['port']}/api/products/")
    assert through_proxy.status_code == 200
    assert through_proxy.json()["count"] > 0
    dashboard = httpx.get(f"http://127.0.0.1:{ports['port']}/api/dashboard")
    assert dashboard.status_code == 200
    assert dashboard.json()["_errors"] == {}
    assert dashboard.json()["products"]["count"] == through_proxy.json()["count"]
    assert dashboard.json().keys() == {"products", "categories", "cart", "_errors"}
    for port in ("monolith-port", "catalog-port", "admin-port"):
        assert httpx.get(f"http://127.0.0.1:{ports[port]}/ready").status_code == 200
    status = httpx.get(f"http://127.0.0.1:{ports['admin-port']}/admin/status").json()
    assert status["groups"]["catalog"]["percent"] == 0


def test_the_environment_file_is_private_and_its_roles_stay_apart(
    running: tuple[Path, dict[str, int]],
) -> None:
    directory, _ = running
    for name in ("stack.env", "secrets.json"):
        assert (directory / "run" / name).stat().st_mode & 0o777 == 0o600
    environment = stack_environment(directory)
    with psycopg.connect(environment["SHOP_DATABASE_URL"]) as shop:
        row = shop.execute("SELECT count(*) FROM catalog_product").fetchone()
        assert row == (60,)
    for mine, other in (("CATALOG", "shop"), ("SHOP", "catalog")):
        dsn = psycopg.conninfo.make_conninfo(environment[f"{mine}_DATABASE_URL"], dbname=other)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(dsn)


def test_a_second_one_in_the_same_directory_is_refused(running: tuple[Path, dict[str, int]]) -> None:
    directory, _ = running
    done = run("up", "--var", str(directory), *options(free_ports()), *SMALL)
    assert done.returncode == 5
    assert "already running" in done.stderr
    assert "strangler down" in done.stderr


def test_taken_ports_are_named_and_nothing_is_started(
    running: tuple[Path, dict[str, int]], var: Path
) -> None:
    _, taken = running
    ports = free_ports() | {"port": taken["port"], "catalog-port": taken["catalog-port"]}
    done = run("up", "--var", str(var), *options(ports), *SMALL)
    assert done.returncode == 5
    assert str(taken["port"]) in done.stderr
    assert str(taken["catalog-port"]) in done.stderr
    assert "nothing was started" in done.stderr
    until_gone(var, {"postgres-port": ports["postgres-port"]})
    assert not (var / "postgres").exists()


def test_two_at_the_same_moment_are_one_too_many(var: Path) -> None:
    ports = free_ports()
    command = [STRANGLER, "up", "--var", str(var), *options(ports), *SMALL]
    both = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5], said
    assert httpx.get(f"http://127.0.0.1:{ports['port']}/api/products/").status_code == 200
    assert run("down", "--var", str(var)).returncode == 0
    until_gone(var, ports)


def test_what_was_left_by_a_killed_supervisor_is_ended(tmp_path: Path) -> None:
    """A process that outlived its supervisor is ended; one that got a recycled id is nobody's business."""
    ours, other = (
        subprocess.Popen(["sleep", "100"], start_new_session=True, env=clean_environment()) for _ in range(2)
    )
    births = [int(Path(f"/proc/{each.pid}/stat").read_text().split()[21]) for each in (ours, other)]
    (tmp_path / "run").mkdir()
    state = {
        "phase": "ready", "pid": 1, "fault": "", "message": "", "urls": {}, "given_up": {}, "happenings": [],
        "groups": {"proxy": ours.pid, "controller": other.pid},
        "births": {"proxy": births[0], "controller": births[1] - 1},
    }  # fmt: skip
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    try:
        done = run("down", "--var", str(tmp_path), "--json")
        assert json.loads(done.stdout)["was_running"] is False
        assert ours.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for command in ("up", "demo"):
        done = run(command, "--var", str(file / "var"), *options(free_ports()), *SMALL)
        assert done.returncode == 1
        assert str(file) in done.stderr
        assert "--var" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_disk_that_takes_no_more_is_said_to_be_full(var: Path) -> None:
    ports = free_ports()
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    full = f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", full, STRANGLER, "up", "--var", str(var), *options(ports), *SMALL],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{var} cannot be written" in done.stderr
    until_gone(var, ports)


def test_what_crashes_is_started_again(running: tuple[Path, dict[str, int]]) -> None:
    directory, ports = running
    state = json.loads((directory / "run" / "state.json").read_text())
    os.kill(state["groups"]["catalogue"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx.HTTPError, FileNotFoundError):
            now = json.loads((directory / "run" / "state.json").read_text())
            ready = httpx.get(f"http://127.0.0.1:{ports['catalog-port']}/ready").status_code == 200
            if ready and now["groups"]["catalogue"] != state["groups"]["catalogue"]:
                break
        assert time.monotonic() < deadline, "the catalogue did not come back"
        time.sleep(0.05)


def test_what_is_given_up_stays_down_and_the_shop_stays_open(var: Path) -> None:
    ports = free_ports()
    done = run("up", "--var", str(var), *options(ports), *SMALL)
    assert done.returncode == 0, done.stderr
    shop = f"http://127.0.0.1:{ports['port']}/api/products/"
    deadline = time.monotonic() + 90
    killed: set[int] = set()
    while not (state := read_state(var))["given_up"]:
        assert time.monotonic() < deadline, state["happenings"][-10:]
        pid = state["groups"]["controller"]
        if pid not in killed:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert httpx.get(shop).status_code == 200
        time.sleep(0.05)
    assert list(state["given_up"]) == ["controller"]
    assert str(var / "log" / "controller.log") in state["given_up"]["controller"]
    assert state["phase"] == "ready"
    assert httpx.get(shop).status_code == 200
    again = run("up", "--var", str(var), *options(free_ports()), *SMALL)
    assert again.returncode == 5
    assert "given up there: controller" in again.stderr
    down = json.loads(run("down", "--var", str(var), "--json").stdout)
    assert down == {"was_running": True, "left": [], "given_up": state["given_up"]}
    until_gone(var, ports)


def test_data_stay_and_a_killed_supervisor_takes_everything_along(var: Path) -> None:
    ports = free_ports()
    done = run("up", "--var", str(var), "--json", *options(ports), *SMALL)
    assert done.returncode == 0, done.stderr
    supervisor = json.loads(done.stdout)["pid"]
    with psycopg.connect(stack_environment(var)["SHOP_DATABASE_URL"]) as shop:
        shop.execute("UPDATE catalog_product SET name = 'Kept' WHERE id = 1")
    os.kill(supervisor, signal.SIGKILL)
    until_gone(var, ports)
    down = run("down", "--var", str(var), "--json")
    assert (down.returncode, json.loads(down.stdout)) == (
        0,
        {"was_running": False, "left": [], "given_up": {}},
    )

    again = run("up", "--var", str(var), *options(ports), *SMALL)
    assert again.returncode == 0, again.stderr
    with psycopg.connect(stack_environment(var)["SHOP_DATABASE_URL"]) as shop:
        assert shop.execute("SELECT name FROM catalog_product WHERE id = 1").fetchone() == ("Kept",)
    down = run("down", "--var", str(var))
    assert (down.returncode, down.stdout.strip()) == (0, "stopped; nothing is left running")
    until_gone(var, ports)

    wiped = run("down", "--var", str(var), "--wipe", "--yes")
    assert wiped.returncode == 0, wiped.stderr
    assert not (var / "run" / "secrets.json").exists()
    assert not (var / "media").exists()


@pytest.mark.parametrize("foreground", [True, False])
def test_ctrl_c_in_the_middle_leaves_nothing(var: Path, *, foreground: bool) -> None:
    ports = free_ports()
    mode = ["--foreground"] if foreground else []
    process = subprocess.Popen(
        [STRANGLER, "up", "--var", str(var), *mode, *options(ports), *SMALL],
        cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # whoever runs the tests in the background may have it ignored, which a child inherits
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread of ours holds a lock)
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "running shop-migrate" in line:  # the longest part, and most of the others, are still to come
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.wait(60) == (0 if foreground else 130), rest
    until_gone(var, ports)


def test_a_service_that_does_not_start_is_named_with_its_log(var: Path) -> None:
    ports = free_ports()
    done = run("up", "--var", str(var), *options(ports), *SMALL, CATALOG_POOL_SIZE="0")
    assert done.returncode == 1
    assert "catalogue" in done.stderr
    assert str(var / "log" / "catalogue-migrate.log") in done.stderr
    assert "CATALOG_POOL_SIZE" in done.stderr
    until_gone(var, ports)


def test_a_server_without_logical_wal_is_refused_with_the_remedy(tmp_path: Path, var: Path) -> None:
    ports = free_ports()
    replica = {"wal_level": "replica"}
    with EmbeddedPostgres(tmp_path / "other", durable=False, settings=replica, keep=False) as server:
        done = run("up", "--var", str(var), "--dsn", server.dsn(), *options(ports), *SMALL)
        assert done.returncode == 4
        assert "ALTER SYSTEM SET wal_level = 'logical'" in done.stderr
        with psycopg.connect(server.dsn()) as admin:
            names = admin.execute(
                "SELECT count(*) FROM pg_database WHERE datname IN ('shop', 'catalog')"
            ).fetchone()
            assert names == (0,)
        until_gone(var, ports)


def test_a_routes_file_with_a_fault_is_refused_by_line(tmp_path: Path, var: Path) -> None:
    routes = tmp_path / "routes.yaml"
    lines = (ROOT / "routes.yaml").read_text().splitlines(keepends=True)
    line = next(number for number, text in enumerate(lines, start=1) if text.strip().startswith("percent:"))
    lines[line - 1] = lines[line - 1].replace("percent: 0", "percent: 101")
    routes.write_text("".join(lines))
    ports = free_ports()
    done = run("up", "--var", str(var), "--routes", str(routes), *options(ports), *SMALL)
    assert done.returncode == 3
    assert f"{routes}:{line}" in done.stderr
    assert not (var / "log" / "postgres.log").exists()
    until_gone(var, ports)
