"""The supervisor with real processes: order, logs, crashes, what it leaves behind (nothing)."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop.children import group_is_empty
from workshop.postgres import free_port
from workshop.probe import http_ready
from workshop.restart import RestartPolicy
from workshop.supervisor import (
    Happening,
    PortsTakenError,
    Program,
    ProgramFailedError,
    Supervisor,
)

pytestmark = pytest.mark.anyio

QUICK = RestartPolicy(first_delay=0.01, longest_delay=0.05, crashes=3, window=60.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def told() -> list[Happening]:
    return []


@pytest.fixture
def supervisor(told: list[Happening]) -> Supervisor:
    return Supervisor(tell=told.append, policy=QUICK)


def program(
    directory: Path, name: str, code: str, *, ready: str = "ready", deadline: float = 20.0, stop: float = 5.0
) -> Program:
    """A Python program that is ready when its log says so."""
    log = directory / f"{name}.log"

    def says() -> bool:
        return log.exists() and ready in log.read_text()

    async def probe() -> str | None:
        return None if says() else f"its log does not say {ready!r}"

    return Program(
        name=name, command=[sys.executable, "-uc", code], log=log, probe=probe, env=dict(os.environ),
        deadline=deadline, stop_timeout=stop,
    )  # fmt: skip


WAITS = "import signal; print('ready'); signal.pause()"


async def until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


async def test_programs_end_in_reverse_order(
    tmp_path: Path, supervisor: Supervisor, told: list[Happening]
) -> None:
    for name in ("first", "second", "third"):
        await supervisor.start(program(tmp_path, name, WAITS))
    groups = [unit.pid for unit in supervisor.units]
    await supervisor.stop()
    assert [happening.name for happening in told if happening.kind == "stopped"] == [
        "third",
        "second",
        "first",
    ]
    assert all(group is not None and group_is_empty(group) for group in groups)


async def test_a_program_that_ends_too_early_is_named_with_its_last_lines(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    broken = program(tmp_path, "broken", "import sys; sys.exit('the database is not there')")
    with pytest.raises(ProgramFailedError, match="ended with exit code 1") as caught:
        await supervisor.start(broken)
    await supervisor.stop()
    assert "the database is not there" in str(caught.value)
    assert str(broken.log) in str(caught.value)


async def test_a_program_that_never_becomes_ready_is_given_its_probes_reason(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    port = free_port()
    silent = program(tmp_path, "silent", WAITS, deadline=0.5)
    silent.probe = http_ready(port)
    with pytest.raises(ProgramFailedError, match=rf"not ready after 0.5 s: http://127.0.0.1:{port}/ready"):
        await supervisor.start(silent)
    await supervisor.stop()
    assert silent.pid is None


async def test_a_program_that_ends_by_itself(tmp_path: Path, supervisor: Supervisor) -> None:
    await supervisor.run_to_end(program(tmp_path, "task", "print('done')"))
    assert (tmp_path / "task.log").read_text() == "done\n"
    assert supervisor.units == ()
    with pytest.raises(ProgramFailedError, match="exit code 3"):
        await supervisor.run_to_end(program(tmp_path, "bad", "import sys; sys.exit(3)"))
    with pytest.raises(ProgramFailedError, match=r"did not end within 0.3 s"):
        await supervisor.run_to_end(program(tmp_path, "slow", WAITS, deadline=0.3))


async def test_what_crashes_is_started_again(
    tmp_path: Path, supervisor: Supervisor, told: list[Happening]
) -> None:
    await supervisor.start(program(tmp_path, "fragile", WAITS))
    watching = asyncio.ensure_future(supervisor.watch())
    first = supervisor.pid("fragile")
    os.kill(first, signal.SIGKILL)
    await until(lambda: any(happening.text == "fragile runs again" for happening in told))
    assert supervisor.pid("fragile") != first
    assert any("was ended by signal SIGKILL" in happening.text for happening in told)
    watching.cancel()
    await supervisor.stop()


async def test_what_crashes_too_often_is_given_up(
    tmp_path: Path, supervisor: Supervisor, told: list[Happening]
) -> None:
    hopeless = program(
        tmp_path, "hopeless", "print('ready'); import time; time.sleep(0.3); raise SystemExit(7)"
    )
    await supervisor.start(hopeless)
    with pytest.raises(ProgramFailedError, match="hopeless: crashed 3 times"):
        await asyncio.wait_for(supervisor.watch(), 30)
    assert sum(happening.kind == "crashed" for happening in told) == 3
    await supervisor.stop()


async def test_what_is_not_essential_is_given_up_alone(
    tmp_path: Path, supervisor: Supervisor, told: list[Happening]
) -> None:
    hopeless = program(
        tmp_path, "hopeless", "print('ready'); import time; time.sleep(0.3); raise SystemExit(7)"
    )
    hopeless.essential = False
    await supervisor.start(program(tmp_path, "shop", WAITS))
    await supervisor.start(hopeless)
    watching = asyncio.ensure_future(supervisor.watch())
    await until(lambda: bool(supervisor.given_up))
    reason = supervisor.given_up["hopeless"]
    assert "crashed 3 times" in reason
    assert str(hopeless.log) in reason
    assert [happening.name for happening in told if happening.kind == "gave-up"] == ["hopeless"]
    # the rest runs on, and is still kept running
    os.kill(supervisor.pid("shop"), signal.SIGKILL)
    await until(lambda: any(happening.text == "shop runs again" for happening in told))
    assert not watching.done()
    watching.cancel()
    await supervisor.stop()


async def test_a_watcher_that_needs_all_is_told_of_any(tmp_path: Path, supervisor: Supervisor) -> None:
    hopeless = program(
        tmp_path, "hopeless", "print('ready'); import time; time.sleep(0.3); raise SystemExit(7)"
    )
    hopeless.essential = False
    await supervisor.start(hopeless)
    with pytest.raises(ProgramFailedError, match="hopeless: crashed 3 times"):
        await asyncio.wait_for(supervisor.watch(all_essential=True), 30)
    await supervisor.stop()


async def test_children_of_a_program_are_swept_away(tmp_path: Path, supervisor: Supervisor) -> None:
    code = (
        "import subprocess, sys, signal;"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('ready', child.pid); signal.pause()"
    )
    await supervisor.start(program(tmp_path, "parent", code))
    child = int((tmp_path / "parent.log").read_text().split()[1])
    await supervisor.stop()
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_a_stopped_or_deaf_process_is_ended_too(tmp_path: Path, supervisor: Supervisor) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready')\nwhile True: signal.pause()"
    await supervisor.start(program(tmp_path, "deaf", deaf, stop=0.5))
    await supervisor.start(program(tmp_path, "stopped", WAITS, stop=5.0))
    groups = [unit.pid for unit in supervisor.units]
    os.kill(supervisor.pid("stopped"), signal.SIGSTOP)
    await supervisor.stop()
    assert all(group is not None and group_is_empty(group) for group in groups)


def test_taken_ports_are_all_named_and_nothing_is_started(supervisor: Supervisor) -> None:
    with socket.socket() as one, socket.socket() as two:
        for listener in (one, two):
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        taken = {"proxy": one.getsockname()[1], "admin": two.getsockname()[1]}
        with pytest.raises(PortsTakenError) as caught:
            supervisor.claim_ports({**taken, "monolith": free_port()})
        assert caught.value.taken == taken
        assert "ss -ltnp" in caught.value.remedy


async def test_a_port_belongs_to_one_supervisor_until_it_stops(supervisor: Supervisor) -> None:
    # nobody listens yet: a second supervisor that only looked would start its programs on the same ports
    ports = {"monolith": free_port(), "proxy": free_port()}
    supervisor.claim_ports(ports)
    other = Supervisor(tell=lambda _: None)
    with pytest.raises(PortsTakenError) as caught:
        other.claim_ports({**ports, "proxy": free_port()})
    assert list(caught.value.taken) == ["monolith"]
    await supervisor.stop()
    other.claim_ports(ports)
    await other.stop()


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from workshop.supervisor import Program, Supervisor\n"
        "async def ready(): return None\n"
        "async def main():\n"
        "    supervisor = Supervisor(tell=lambda happening: None)\n"
        f"    command = [sys.executable, '-uc', {WAITS!r}]\n"
        "    unit = Program('x', command, Path(sys.argv[1]), ready, dict(os.environ))\n"
        "    await supervisor.start(unit)\n"
        "    print(unit.pid, flush=True)\n"
        "    await supervisor.watch()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "x.log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline, "the child has outlived its parent"
        time.sleep(0.02)
