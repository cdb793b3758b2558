"""A worker process: the data path, and a link to the parent.

It begins in `start.py`. All descriptors are inherited; the last two are the tables of rate limits
(`gateway/rate_table.py`) and of who wrote lately (`write_table.py`). The listening
socket belongs to the parent, which keeps it open: connections that arrive while a killed worker is being
replaced wait in its queue and are served by the next one.

Outcomes are sent at most 15 ms after the first one, a failure at once (within 2 ms when failures come thick
and fast), so that whoever decides about a rollback sees it before the next user meets it.
"""

import asyncio
import gc
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop

from chassis.logs import configure
from chassis.resilience.breaker import BreakerState
from strangler_proxy.gateway.rate_table import RateTable
from strangler_proxy.identity import CookieSigner
from strangler_proxy.link import Link, Message
from strangler_proxy.plane import DataPlane
from strangler_proxy.table import Routes
from strangler_proxy.write_table import WriteTable

_FLUSH_SECONDS = 0.015
_URGENT_SECONDS = 0.002
_ORPHAN_DRAIN_SECONDS = 1.0
_REPORT_SECONDS = 0.5


@dataclass(slots=True)
class FlushTimes:
    """When outcomes are to be sent. Pure; seconds of any monotonic clock.

    The pause between urgent flushes counts from the last flush, not from the last failure: a burst of
    failures must not push the next flush into the future by 2 ms for each of them.
    """

    _flushed_at: float = float("-inf")

    def due(self, now: float, *, urgent: bool) -> float:
        """When an outcome recorded `now` is to be sent at the latest."""
        return max(now, self._flushed_at + _URGENT_SECONDS) if urgent else now + _FLUSH_SECONDS

    def flushed(self, now: float) -> None:
        """Everything recorded so far was sent."""
        self._flushed_at = now


class Worker:
    """Wires the data plane to the link."""

    def __init__(
        self,
        *,
        link_socket: socket.socket,
        listener: socket.socket,
        rates: int,
        writes: int,
        compiled: bool,
    ) -> None:
        self._compiled = compiled
        self._rates = RateTable(rates)
        self._writes = writes
        self._link_socket = link_socket
        self._listener = listener
        self._link = Link(self._on_message)
        self._plane: DataPlane | None = None
        self._started = asyncio.Event()
        self._start: Message = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_at = 0.0
        self._reported: dict[str, Any] = {}
        self._times = FlushTimes()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> int:
        """Serve until SIGTERM or the parent's end; the exit code."""
        stop = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, stop.set)
        # Ctrl-C reaches the whole process group; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        await self._loop.create_connection(lambda: self._link, sock=self._link_socket)
        orphaned = asyncio.ensure_future(self._link.lost.wait())
        started = asyncio.ensure_future(self._started.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({orphaned, started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            return 0
        plane = self._plane = DataPlane(
            routes=Routes.from_wire(self._start["routes"]),
            signer=CookieSigner(bytes.fromhex(self._start["secret"])),
            loop=self._loop,
            on_outcome=self._on_outcome,
            on_breaker=self._on_breaker,
            rates=self._rates,
            writes=WriteTable(self._writes, row=self._start["row"], rows=self._start["rows"]),
            tell_emptied=lambda group: self._link.send({"t": "emptied", "group": group}),
            want_keys=lambda issuer: self._link.send({"t": "keys_wanted", "issuer": issuer}),
        )
        for issuer, keys in self._start["keys"].items():
            plane.gateway.keys_came(issuer, keys)
        plane.members_came(self._start["members"])
        await plane.listen(self._listener)
        self._acknowledge()
        self._report_members()
        await asyncio.wait({orphaned, stopped}, return_when=asyncio.FIRST_COMPLETED)
        seconds = _ORPHAN_DRAIN_SECONDS if orphaned.done() else float(self._start["drain_seconds"])
        finished = await plane.drain(seconds)
        if not finished:
            structlog.get_logger().warning("requests cut off", drained_seconds=seconds)
        self._send_outcomes()  # even when the parent is slow to read: there is no later
        self._link.close()
        await self._link.lost.wait()
        for waiter in (orphaned, started, stopped):
            waiter.cancel()
        return 0

    def _on_message(self, message: Message) -> None:
        if message["t"] == "start":
            self._start = message
            self._started.set()
        elif self._plane is None:
            self._prepare(message)
        else:
            self._obey(self._plane, message)

    def _prepare(self, message: Message) -> None:
        """The data plane is not there yet: what it begins with has changed."""
        match message["t"]:
            case "routes":
                self._start = self._start | {"routes": message["routes"]}
            case "members":
                self._start = self._start | {"members": message["of"]}
            case "keys":
                self._start["keys"][message["issuer"]] = message["keys"]
            case "invalidate":
                self._link.send({"t": "invalidated", "serial": message["serial"]})
            case other:
                structlog.get_logger().error("unknown message from the parent", type=other)

    def _obey(self, plane: DataPlane, message: Message) -> None:
        match message["t"]:
            case "routes":
                plane.apply(Routes.from_wire(message["routes"]))
                self._acknowledge()
            case "members":
                plane.members_came(message["of"])
            case "keys":
                plane.gateway.keys_came(message["issuer"], message["keys"])
            case "invalidate":
                plane.gateway.empty(message["groups"])
                self._link.send({"t": "invalidated", "serial": message["serial"]})
            case other:
                structlog.get_logger().error("unknown message from the parent", type=other)

    def _acknowledge(self) -> None:
        assert self._plane is not None
        version = self._plane.routes.version
        self._link.send(
            {"t": "applied", "version": version, "at_ns": time.time_ns(), "compiled": self._compiled}
        )

    def _report_members(self) -> None:
        assert self._plane is not None
        self._loop.call_later(_REPORT_SECONDS, self._report_members)
        members = self._plane.report_members()
        if members != self._reported and not self._link.blocked:
            self._reported = members
            self._link.send({"t": "members", "of": members})

    def _on_breaker(self, backend: str, state: BreakerState) -> None:
        self._link.send({"t": "breaker", "backend": backend, "state": state.value})
        structlog.get_logger().warning("breaker changed", backend=backend, state=state.value)

    def _on_outcome(self, urgent: bool) -> None:  # a callback's single argument
        if self._flush_timer is not None and not urgent:
            return  # it was set earlier, for at most as far ahead
        due = self._times.due(self._loop.time(), urgent=urgent)
        if self._flush_timer is not None:
            if self._flush_at <= due:
                return
            self._flush_timer.cancel()
        self._flush_at = due
        self._flush_timer = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        assert self._plane is not None
        if self._link.blocked:
            # The parent does not read: keep adding up here instead of filling a buffer, and try again.
            self._flush_at = self._loop.time() + _FLUSH_SECONDS
            self._flush_timer = self._loop.call_at(self._flush_at, self._flush)
            return
        self._send_outcomes()

    def _send_outcomes(self) -> None:
        assert self._plane is not None
        self._times.flushed(self._loop.time())
        outcomes = self._plane.recorder.drain()
        if outcomes is not None:
            self._link.send({"t": "outcomes", **outcomes})
        recorder = self._plane.comparisons
        comparisons = recorder.drain() if recorder is not None else None
        if comparisons is not None:
            self._link.send({"t": "comparisons", **comparisons})


async def _serve(link_fd: int, listen_fd: int, rates_fd: int, writes_fd: int, *, compiled: bool) -> int:
    link_socket, listener = socket.socket(fileno=link_fd), socket.socket(fileno=listen_fd)
    worker = Worker(
        link_socket=link_socket, listener=listener, rates=rates_fd, writes=writes_fd, compiled=compiled
    )
    return await worker.run()


def run(link_fd: int, listen_fd: int, rates_fd: int, writes_fd: int, *, compiled: bool) -> int:
    """Serve until SIGTERM or the parent's end; the exit code. `compiled`: so is the data path."""
    configure("proxy")
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    # What is loaded now lives as long as the process. A request makes some twenty containers and no cycle,
    # so the collector's default of looking after every 700 allocations would find nothing, hundreds of
    # times a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(link_fd, listen_fd, rates_fd, writes_fd, compiled=compiled))
