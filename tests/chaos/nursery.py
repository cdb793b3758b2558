"""Streams as processes of their own, without the second that an interpreter takes to import them.

    Nursery (the test) ── one JSON line an order ──► `python -m tests.chaos.nursery` ── fork ──► the stream
                       ◄── {"pid": …} or {"pid": …, "code": …} ──┘

The nursery has imported everything and waits; a stream is a fork of it that runs the same `main` as `python -m cdc`.
Nothing else is shared: it connects, is killed and ends by itself. `test_cdc_kill.py` has the command as it is.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from workshop.children import end_with_parent

_SLOW = 60.0  # seconds for the imports, on a busy machine


@dataclass(frozen=True, slots=True)
class Order:
    """Run `program` (cdc or kafka) with `arguments`, the `environment` added to ours; what it says goes to `log`."""

    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: str


class Nursery:
    """The process from which streams are forked, while the `with` block runs; it takes those that are left along."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._codes: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # only a bound system call, safe after a fork with threads; see workshop.children
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()

    def start(self, order: Order) -> int:
        """The new stream's process id."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        deadline = time.monotonic() + _SLOW
        while (began := self._listen(0.1)) is None:
            assert time.monotonic() < deadline, "the nursery does not answer"
        return began

    def ended(self, pid: int) -> int | None:
        """The exit code, as `subprocess` has it; None while it runs."""
        self._listen(0.0)
        return self._codes.get(pid)

    def wait(self, pid: int, seconds: float) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + seconds
        while (code := self.ended(pid)) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the stream", seconds)
            self._listen(0.05)
        return code

    def _listen(self, seconds: float) -> int | None:
        """Take what the nursery says; the process that began, if one did."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        said = os.read(self._process.stdout.fileno(), 65536)
        assert said, "the nursery has died"
        began = None
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "code" in told:
                self._codes[told["pid"]] = told["code"]
            else:
                began = told["pid"]
        return began


# the nursery's own side


def main() -> None:
    """Fork what is ordered on standard input, tell what ended, until the input ends."""
    # imported here: the test that only orders has no use for them
    from cdc.__main__ import main as run_cdc
    from tests.chaos.run_kafka_stream import program as run_kafka

    end_with_us = end_with_parent(signal.SIGKILL)
    programs = {"cdc": run_cdc, "kafka": run_kafka}
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    children: dict[int, int] = {}  # by pidfd
    rest = b""
    while True:
        for fd, _ in poll.poll():
            if fd != 0:
                poll.unregister(fd)
                pid = children.pop(fd)
                os.close(fd)
                _tell({"pid": pid, "code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
                continue
            said = os.read(0, 65536)
            if not said:
                for pid in children.values():
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                order = Order(**json.loads(line))
                pid = os.fork()
                if pid == 0:
                    end_with_us()
                    _live(order, programs)
                ending = os.pidfd_open(pid)
                children[ending] = pid
                poll.register(ending, select.POLLIN)
                _tell({"pid": pid})


def _tell(what: dict[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _live(order: Order, programs: dict[str, Any]) -> None:
    """Be the stream; does not return."""
    code = 1
    try:
        log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        os.environ.update(order.environment)
        code = programs[order.program](list(order.arguments)) or 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
