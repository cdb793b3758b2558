"""Our change stream in a process of its own, as in earnest, so that its memory and its share of the cores are its own.

The process imports everything, says that it is ready and waits for the word; interpreter and imports, paid once in
the life of a stream, are in no figure.
"""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from cdc.changes import Lsn, Transaction
from cdc.garbage import rows_left_alone
from cdc.pipeline import StreamConfig, run
from cdc.sources.slot import SlotSource

_MB = 1_000_000


class Stream:
    """Runs `config` from `go` until the block ends."""

    def __init__(self, config: StreamConfig) -> None:
        here, there = multiprocessing.Pipe()
        self._pipe = here
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_stream, args=(config, there), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        assert self._pipe.recv() == "ready"
        return self

    def go(self) -> None:
        """Begin."""
        self._pipe.send("go")

    def forget_peak(self) -> None:
        """Measure the peak from now on (proc(5), clear_refs)."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """The most resident memory it had, as the kernel saw it; not a sample."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / _MB
        raise RuntimeError("the kernel tells no VmHWM")

    def alive(self) -> bool:
        """Whether it still runs: a fault ends it, its traceback is on stderr."""
        return self._process.is_alive()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive():
            self._pipe.send("stop")
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            raise RuntimeError("the stream did not stop within a minute")
        if kind is None and self._process.exitcode:
            raise RuntimeError(f"the stream failed (exit code {self._process.exitcode}), see above")


def _stream(config: StreamConfig, pipe: Connection) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if config.kafka is not None:
        import_module("cdc.sources.kafka")  # which the stream does when it needs it, once in its life
    pipe.send("ready")
    if pipe.recv() != "go":
        return
    stop = threading.Event()

    def listen() -> None:
        pipe.recv()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    with rows_left_alone():  # as the commands that run a stream do
        run(config, stop)


def read_alone(config: StreamConfig, *, after: Lsn, upto: Lsn, from_first: bool = False) -> float:
    """Read and decode what the slot holds between the two, in a process of its own; row changes a second, of the whole
    or from the first ones that came on. Nothing is confirmed, so the slot can be read again.
    """
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_read, args=(config, after, upto, from_first, there), daemon=True)
    process.start()
    rate: float = here.recv()
    process.join(60)
    return rate


def _read(config: StreamConfig, after: Lsn, upto: Lsn, from_first: bool, pipe: Connection) -> None:
    source = SlotSource(
        config.source_dsn, slot=config.slot, publication=config.publication, tables=config.mapping.sources()
    )
    rows, position = 0, after
    before: int | None = None if from_first else 0
    began = time.perf_counter()
    source.start(after)
    while position < upto:
        for event in source.read(1.0):
            position = max(position, event.position)
            if isinstance(event, Transaction):
                rows += len(event.changes)
        if before is None and rows:
            before, began = rows, time.perf_counter()
    seconds = time.perf_counter() - began
    source.close()
    pipe.send((rows - (before or 0)) / seconds)


def until(
    asked: Callable[[], Any],
    *,
    what: str,
    seconds: float = 300.0,
    alive: Callable[[], bool],
    every: float = 0.005,
) -> None:
    """Ask until it is so, again after `every` seconds. Raises RuntimeError after `seconds` in all, or when who works on
    it has died.
    """
    deadline = time.monotonic() + seconds
    while not asked():
        if not alive():
            raise RuntimeError(f"the stream ended before {what}; what it said is above")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
