"""The stack in the background: `strangler up` starts it, `strangler down` ends it.

The supervisor is a process of its own, this module run as a program. It holds a lock on its pid file as long
as it lives, so a pid file left by a crash is recognised, and a recycled process id is never signalled. What
it does it writes to `run/state.json`, replaced as a whole; `up` follows that file until the stack is ready.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from chassis import logs
from chassis.problems import InvalidFileError
from workshop.children import birth, group_is_empty
from workshop.databases import ServerUnreachableError, UnfitServerError
from workshop.layout import Layout, Ports, Seed
from workshop.postgres import EmbeddedPostgres
from workshop.stack import StackConfig, bring_up
from workshop.supervisor import Happening, PortsTakenError, StackError, Supervisor

Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]
# what went wrong, as the exit codes of the CLI distinguish it
Fault = Literal["", "failed", "refused-file", "conflict", "unfit", "unreachable"]

_POLL = 0.05
_LOCK_ATTEMPTS = 10
# exit codes of the supervisor's process: it is one too many; its directory takes no more
_CONFLICT, _CANNOT_WRITE = 5, 74
_STOP_SECONDS = 60.0
_ORPHAN_SECONDS = 8.0  # for what the kernel told to end when its supervisor was killed


class AlreadyRunningError(StackError):
    """Another supervisor holds the lock."""

    def __init__(self, pid: int, layout: Layout) -> None:
        self.pid = pid
        super().__init__(
            f"a stack is already running in {layout.var} (supervisor {pid}); nothing was started"
            + "".join(f"\ngiven up there: {reason}" for reason in _given_up(layout).values()),
            remedy="`strangler down` stops it, `--var DIR` uses another directory",
        )


@dataclass(frozen=True, slots=True)
class State:
    """What the supervisor last said of itself.

    `groups` are the process groups it started, by name, `births` when their first processes began (see
    workshop.children); `given_up` says why of each unit that stays down.
    """

    phase: Phase
    pid: int
    fault: Fault = ""
    message: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    births: Mapping[str, int | None] = field(default_factory=dict)
    given_up: Mapping[str, str] = field(default_factory=dict)
    happenings: tuple[str, ...] = ()


def running(layout: Layout) -> int | None:
    """Process id of the supervisor that holds the lock, None when nobody does."""
    try:
        handle = os.open(layout.lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    return None


def read_state(layout: Layout) -> State | None:
    """The last state, None when there is none."""
    try:
        data = json.loads(layout.state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return State(**{**data, "happenings": tuple(data["happenings"])})


def start(config: StackConfig, *, tell: Callable[[str], None], timeout: float = 300.0) -> State:
    """Start a supervisor in the background and return its state when the stack is ready.

    `tell` is called with each thing that happens meanwhile. Raises AlreadyRunningError; returns a state with
    phase `failed` when the stack did not come up. Ended by an exception (Ctrl-C), it ends the supervisor too.
    """
    layout = config.layout
    if (pid := running(layout)) is not None:
        raise AlreadyRunningError(pid, layout)
    layout.logs.mkdir(parents=True, exist_ok=True)
    with (layout.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workshop.background"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    told = 0
    deadline = time.monotonic() + timeout
    try:
        assert process.stdin is not None
        with process.stdin as pipe:  # not an argument: a DSN may hold a password, and arguments are public
            pipe.write(_dump(config).encode())
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            state = read_state(layout)
            if (
                state is not None and state.pid == process.pid
            ):  # else an earlier one's, or somebody was faster
                for line in state.happenings[told:]:
                    tell(line)
                told = len(state.happenings)
                if state.phase in ("ready", "failed"):
                    if state.phase == "failed":
                        process.wait(_STOP_SECONDS)
                    return state
            if ended:
                break
            time.sleep(_POLL)
    except BaseException:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)
        raise
    if process.returncode == _CONFLICT:
        raise AlreadyRunningError(running(layout) or 0, layout)
    if process.returncode == _CANNOT_WRITE:
        raise StackError(
            f"{layout.var} cannot be written: the disk is full or read-only; nothing is running",
            remedy="make room, or `--var DIR` names another directory",
        )
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)
    raise StackError("the supervisor ended without a word", remedy=f"read {layout.logs / 'supervisor.log'}")


@dataclass(frozen=True, slots=True)
class Stopped:
    """Whether a stack was running, and what of it had been given up before, with the reasons."""

    was_running: bool
    given_up: Mapping[str, str]


def stop(layout: Layout, *, timeout: float = _STOP_SECONDS) -> Stopped:
    """End the stack. Returns when nothing of it is left, also of one whose supervisor was killed.

    Raises StackError naming the processes that are left when there are some after `timeout` seconds.
    """
    pid = running(layout)
    state = read_state(layout)
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while running(layout) is not None or left_over(state):
        if not pid and time.monotonic() >= deadline - timeout + _ORPHAN_SECONDS:
            for group in _groups_left(state).values():  # nobody else is there to do it
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        if time.monotonic() >= deadline:
            left = left_over(state)
            raise StackError(
                f"still running after {timeout:g} s: {', '.join(left) or f'the supervisor {pid}'}",
                remedy=f"read {layout.logs / 'supervisor.log'}; `kill -9 {pid}` ends it and its children",
            )
        time.sleep(_POLL)
    given_up = state.given_up if state is not None and pid is not None else {}
    return Stopped(was_running=pid is not None, given_up=given_up)


def wipe(layout: Layout) -> None:
    """Delete the embedded server's data and what the stack wrote beside it; logs and reports stay.

    Raises AlreadyRunningError while a stack runs there.
    """
    with locked(layout):
        EmbeddedPostgres(layout.postgres).destroy()
        for directory in ("media", "mail", "static"):
            shutil.rmtree(layout.var / directory, ignore_errors=True)
        for file in (layout.secrets, layout.environment, layout.state, layout.routes):
            file.unlink(missing_ok=True)


def left_over(state: State | None) -> list[str]:
    """`name (group N)` of each process group of `state` that still has a live process."""
    return [f"{name} (group {group})" for name, group in _groups_left(state).items()]


def _groups_left(state: State | None) -> Mapping[str, int]:
    if state is None:
        return {}
    return {
        name: group
        for name, group in state.groups.items()
        # an id in use by a group is not given to a process; so another birth means that ours is long gone
        if not group_is_empty(group) and birth(group) in (None, state.births.get(name))
    }


async def serve(config: StackConfig, *, tell: Callable[[Happening], None] | None = None) -> State:
    """Be the supervisor: bring the stack up, keep it until SIGTERM or SIGINT, take it down.

    Raises AlreadyRunningError. Everything else that goes wrong is in the returned (and written) state.
    """
    with locked(config.layout):
        writer = _StateWriter(config.layout)
        log = structlog.get_logger("workshop.supervisor")

        def on_happening(happening: Happening) -> None:
            with suppress(OSError):  # a full disk must not end the shop, nor keep it from being stopped
                log.info(happening.text, unit=happening.name, kind=happening.kind)
            groups = {unit.name: unit.pid for unit in supervisor.units if unit.pid is not None}
            writer.happened(happening.text, groups, supervisor.given_up)
            if tell is not None:
                tell(happening)

        supervisor = Supervisor(tell=on_happening)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        wanted_end = False

        def end() -> None:
            nonlocal wanted_end
            if not wanted_end:
                wanted_end = True
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        final = replace(writer.state, phase="stopped")
        try:
            stack = await bring_up(config, supervisor)
            writer.ready(stack.urls())
            await supervisor.watch()
        except asyncio.CancelledError:
            if not wanted_end:
                raise
        except (StackError, InvalidFileError) as error:
            log.error("the stack failed", error=str(error))  # noqa: TRY400  (the message names the log)
            final = replace(final, phase="failed", fault=fault_of(error), message=str(error))
        except Exception as error:
            # whatever it is, what was started is ended in order below
            with suppress(OSError):
                log.exception("the supervisor failed")
            final = replace(final, phase="failed", fault="failed", message=f"{type(error).__name__}: {error}")
        writer.put(phase="stopping")
        try:
            await supervisor.stop()
        except StackError as error:
            final = replace(
                final, phase="failed", fault="failed", message=f"{final.message}\n{error}".strip()
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        return writer.put(phase=final.phase, fault=final.fault, message=final.message)


def _given_up(layout: Layout) -> Mapping[str, str]:
    state = read_state(layout)
    return state.given_up if state is not None else {}


class _StateWriter:
    def __init__(self, layout: Layout) -> None:
        self._path = layout.state
        self.state = State(phase="starting", pid=os.getpid())
        self._write()

    def happened(self, text: str, groups: Mapping[str, int], given_up: Mapping[str, str]) -> None:
        """Add a line; `groups` grows only, so that `down` can check each."""
        self.put(
            happenings=(*self.state.happenings, text)[-200:],
            groups={**self.state.groups, **groups},
            births={**self.state.births, **{name: birth(pid) for name, pid in groups.items()}},
            given_up=given_up,
        )

    def put(self, **changes: Any) -> State:
        self.state = replace(self.state, **changes)
        # a full disk must not end the shop: the state is written whole again at the next event
        with suppress(OSError):
            self._write()
        return self.state

    def ready(self, urls: Mapping[str, str]) -> None:
        """Whoever waits for it must read this: raises OSError when it cannot be written."""
        self.state = replace(self.state, phase="ready", urls=urls)
        self._write()

    def _write(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(self.state), indent=1), encoding="utf-8")
        partial.replace(self._path)


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the lock of `layout` for the length of the block. Raises AlreadyRunningError."""
    layout.run.mkdir(parents=True, exist_ok=True)
    handle = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "r+") as file:
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                text = file.read().strip()
                # `running` holds the lock for a moment when it looks; only a supervisor leaves a number
                if text.isdigit() or attempt == _LOCK_ATTEMPTS - 1:
                    raise AlreadyRunningError(int(text) if text.isdigit() else 0, layout) from None
                time.sleep(_POLL)
        file.seek(0)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def fault_of(error: Exception) -> Fault:
    """What kind of fault `error` is, for exit codes."""
    match error:
        case PortsTakenError():
            return "conflict"
        case InvalidFileError():
            return "refused-file"
        case UnfitServerError():
            return "unfit"
        case ServerUnreachableError():
            return "unreachable"
        case _:
            return "failed"


def _dump(config: StackConfig) -> str:
    data = asdict(config)
    return json.dumps(data, default=str)


def _load(text: str) -> StackConfig:
    data = json.loads(text)
    return StackConfig(
        **{
            **data,
            "layout": Layout(Path(data["layout"]["var"])),
            "ports": Ports(**data["ports"]),
            "seed": Seed(**data["seed"]),
            "routes": Path(data["routes"]),
            "plan": Path(data["plan"]),
            "plan_settings": tuple(data["plan_settings"]),
        }
    )


def main() -> int:
    """Entry point of the background process, which reads its configuration as JSON from stdin."""
    logs.configure("supervisor")
    try:
        state = asyncio.run(serve(_load(sys.stdin.read())))
    except AlreadyRunningError as error:
        structlog.get_logger("workshop.supervisor").error(error.message)
        return _CONFLICT
    except OSError:
        return _CANNOT_WRITE  # there may be no place for more words
    return 0 if state.phase == "stopped" else 1


if __name__ == "__main__":
    sys.exit(main())
