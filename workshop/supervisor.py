"""The supervisor: starts programs in order, waits until each is ready, keeps them running, ends them all.

    start(program)   spawn it with its own log file, ask its probe until it is ready or its deadline passes
    run_to_end(...)  the same for a program that ends by itself (migrations, seeding)
    watch()          start again what crashes, as `workshop.restart` decides; what it gives up stays down, and
                     only an essential unit takes the others along
    stop()           end everything in reverse order; what does not end in time is killed

Every program is a process group of its own: Ctrl-C in a terminal reaches the supervisor alone, which then
ends the others in order, and what a program leaves behind in its group is swept away. Should the supervisor
itself be killed, the kernel kills its children (`workshop.children`).

All of it runs on one asyncio loop in the main thread: the kernel ties a child to the thread that forked it.
"""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from workshop.children import end_with_parent, group_is_empty
from workshop.probe import Probe, port_is_free
from workshop.restart import GiveUp, Restart, RestartPolicy, after_crash

_POLL = 0.05
_TAIL_LINES = 15


class StackError(Exception):
    """The stack cannot start or go on. `remedy` says what to do next."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n{remedy}" if remedy else message)


class PortsTakenError(StackError):
    """Something else listens on ports we need; nothing was started."""

    def __init__(self, taken: Mapping[str, int]) -> None:
        self.taken = dict(taken)
        listed = ", ".join(f"{port} (for {name})" for name, port in taken.items())
        super().__init__(
            f"taken on 127.0.0.1: {listed}; nothing was started",
            remedy="stop what listens there (`ss -ltnp` shows it) or choose other ports (see --help)",
        )


class ProgramFailedError(StackError):
    """A program ended or did not become ready; the message holds the last lines of its log."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        self.name = name
        self.reason = reason
        self.log = log
        lines = tail(log)
        shown = "\n".join(f"  | {line}" for line in lines) if lines else "  | (nothing was written to it)"
        super().__init__(
            f"{name}: {reason}\nlast lines of {log}:\n{shown}", remedy=f"read {log} for what went wrong"
        )


def tail(log: Path, lines: int = _TAIL_LINES) -> list[str]:
    """The last `lines` lines of `log`, none when there is no such file."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64 * 1024))
        return file.read().decode(errors="replace").splitlines()[-lines:]


class Unit(Protocol):
    """Something the supervisor keeps running. `Program` is one; `workshop.stack` makes PostgreSQL another."""

    @property
    def name(self) -> str:
        """What people call it; also names its log."""
        ...

    @property
    def log(self) -> Path:
        """Where it writes."""
        ...

    @property
    def deadline(self) -> float:
        """Seconds it has to become ready."""
        ...

    @property
    def essential(self) -> bool:
        """Whether the others are of no use without it."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        ...

    def spawn(self) -> None:
        """Start it; return at once."""
        ...

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        ...

    async def not_ready(self) -> str | None:
        """None when it can serve, else the reason why it cannot yet."""
        ...

    async def stop(self) -> None:
        """End it and all it started; return when they are gone."""
        ...


@dataclass(slots=True)
class Program:
    """An operating-system process as a `Unit`. `env` is its whole environment; times in seconds."""

    name: str
    command: Sequence[str]
    log: Path
    probe: Probe
    env: Mapping[str, str]
    cwd: Path | None = None
    deadline: float = 30.0
    essential: bool = True
    stop_timeout: float = 10.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def spawn(self) -> None:
        """Start it in a process group of its own, its output appended to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # only a bound system call, safe after a fork with threads; see workshop.children.
                # SIGKILL: a program that is stopped (SIGSTOP) would never act on anything milder
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509
            )

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll() if self._process else None

    async def not_ready(self) -> str | None:
        """None when its probe is content, else the probe's reason."""
        return await self.probe()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `stop_timeout` seconds; then sweep what it left in its group."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped process would not see the SIGTERM
            if not await _within(self.stop_timeout, lambda: process.poll() is not None):
                process.kill()
                await _within(self.stop_timeout, lambda: process.poll() is not None)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not await _within(self.stop_timeout, lambda: group_is_empty(process.pid)):
            raise StackError(
                f"{self.name}: processes of group {process.pid} do not end",
                remedy=f"look at them with `ps -o pid,stat,wchan,args -g {process.pid}`",
            )


@dataclass(frozen=True, slots=True)
class Happening:
    """What the supervisor did or saw at `at` (seconds since 1970).

    `kind` is starting, ready, crashed, gave-up, stopped or note.
    """

    at: float
    name: str
    kind: str
    text: str


class Supervisor:
    """Keeps units running. `tell` is called with every Happening, on the loop."""

    def __init__(self, *, tell: Callable[[Happening], None], policy: RestartPolicy | None = None) -> None:
        self._tell = tell
        self._policy = policy or RestartPolicy()
        self._units: list[Unit] = []
        self._crashes: dict[str, list[float]] = {}
        self._given_up: dict[str, str] = {}
        self._claims: list[socket.socket] = []

    @property
    def units(self) -> Sequence[Unit]:
        """What was started and not yet stopped, in starting order."""
        return tuple(self._units)

    @property
    def given_up(self) -> Mapping[str, str]:
        """Units that stay down, with the reason and the log to read."""
        return dict(self._given_up)

    def claim_ports(self, ports: Mapping[str, int]) -> None:
        """Make `ports` (purpose: port) ours until `stop`. Raises PortsTakenError, and then none is.

        That nobody listens there yet is not enough: another supervisor may have just looked as well, and our
        probes would take its programs for ours.
        """
        taken = {name: port for name, port in ports.items() if not port_is_free(port)}
        for name, port in ports.items():
            if name not in taken and not self._claim(port):
                taken[name] = port
        if taken:
            self._release_ports()
            raise PortsTakenError(taken)

    def _claim(self, port: int) -> bool:
        if sys.platform != "linux":
            return True
        # an abstract Unix address: nothing on disk, gone with the process however it ends
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0strangler-workshop-port-{port}")
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True

    def _release_ports(self) -> None:
        while self._claims:
            self._claims.pop().close()

    def pid(self, name: str) -> int:
        """Process id of the running unit `name`. Raises StackError when it does not run."""
        for unit in self._units:
            if unit.name == name and unit.pid is not None:
                return unit.pid
        raise StackError(f"{name} is not running")

    def say(self, name: str, kind: str, text: str) -> None:
        """Tell a Happening."""
        self._tell(Happening(at=time.time(), name=name, kind=kind, text=text))

    async def start(self, unit: Unit) -> None:
        """Start `unit` and return when it is ready. Raises ProgramFailedError naming its log otherwise."""
        began = time.monotonic()
        self._units.append(unit)
        unit.spawn()
        self.say(unit.name, "starting", f"starting {unit.name} (process {unit.pid})")
        await self._until_ready(unit)
        self.say(unit.name, "ready", f"{unit.name} is ready after {time.monotonic() - began:.1f} s")

    async def run_to_end(self, program: Program) -> None:
        """Run a program that ends by itself. Raises ProgramFailedError when it fails or takes too long."""
        began = time.monotonic()
        self._units.append(program)
        program.spawn()
        self.say(program.name, "starting", f"running {program.name} (process {program.pid})")
        done = await _within(program.deadline, lambda: program.exit_code() is not None)
        await program.stop()
        self._units.remove(program)
        if not done:
            raise ProgramFailedError(program.name, f"did not end within {program.deadline:g} s", program.log)
        if code := program.exit_code():
            raise ProgramFailedError(program.name, _ended(code), program.log)
        self.say(program.name, "ready", f"{program.name} done in {time.monotonic() - began:.1f} s")

    async def watch(self, *, all_essential: bool = False) -> None:
        """Start again what crashes.

        A unit that crashes too often is given up. Raises ProgramFailedError for one that is essential (with
        `all_essential`: for any); the others stay down, are told and kept in `given_up`, and the rest runs on.
        Raises StackError when the remains of an essential unit cannot be ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for unit in self._units:
                    group.create_task(self._keep(unit, essential=unit.essential or all_essential))
        except* StackError as failures:
            raise next(_leaves(failures)) from None

    async def stop(self) -> None:
        """End every unit in reverse order. Raises the first fault after all were tried."""
        faults: list[Exception] = []
        while self._units:
            unit = self._units.pop()
            try:
                await unit.stop()
            except Exception as error:
                faults.append(error)
            else:
                self.say(unit.name, "stopped", f"{unit.name} stopped")
        self._release_ports()
        if faults:
            raise faults[0]

    async def _keep(self, unit: Unit, *, essential: bool) -> None:
        try:
            await self._keep_running(unit)
        except StackError as error:
            if essential:
                raise
            self._given_up[unit.name] = error.message.splitlines()[0] + f"; its log is {unit.log}"
            self.say(unit.name, "gave-up", f"{self._given_up[unit.name]}; the rest goes on without it")

    async def _keep_running(self, unit: Unit) -> NoReturn:
        """Raises ProgramFailedError when it crashed too often, StackError when its remains do not end."""
        while True:
            await _within(math.inf, lambda: unit.exit_code() is not None)
            code = unit.exit_code()
            assert code is not None
            crashes = self._crashes.setdefault(unit.name, [])
            crashes.append(time.monotonic())
            self.say(unit.name, "crashed", f"{unit.name} {_ended(code)}")
            match after_crash(crashes, self._policy):
                case GiveUp(crashes=count, seconds=seconds):
                    await unit.stop()
                    raise ProgramFailedError(
                        unit.name, f"crashed {count} times in {seconds:.0f} s, given up", unit.log
                    )
                case Restart(delay=delay):
                    await asyncio.sleep(delay)
            await unit.stop()  # what the crashed process left in its group
            try:
                unit.spawn()
                await self._until_ready(unit)
            except StackError as error:
                self.say(unit.name, "note", f"{unit.name} was started again: {error.message}")
                await unit.stop()
            else:
                self.say(unit.name, "ready", f"{unit.name} runs again")

    async def _until_ready(self, unit: Unit) -> None:
        deadline = time.monotonic() + unit.deadline
        while True:
            if (code := unit.exit_code()) is not None:
                raise ProgramFailedError(unit.name, f"{_ended(code)} before it was ready", unit.log)
            reason = await unit.not_ready()
            if reason is None:
                return
            if time.monotonic() >= deadline:
                raise ProgramFailedError(
                    unit.name, f"not ready after {unit.deadline:g} s: {reason}", unit.log
                )
            await asyncio.sleep(_POLL)


def _leaves(group: BaseExceptionGroup[StackError]) -> Iterator[StackError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {signal.Signals(-code).name}"


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL)
    return True
