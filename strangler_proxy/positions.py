"""How far each backend has applied the default backend's log, as far as this worker knows.

    passing answers (X-Strangler-Applied) ─┐
                                           ├─► Applied.then ─► known
    GET /position, while somebody waits ───┘

A worker asks for a position only for `_WAITED` seconds after somebody needed one, one request at a time. What
cannot be asked or read changes nothing: what is known grows old, and old is not fresh. Instances of one backend
are taken to read one database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from strangler_proxy.fetch import Fetch, Fetched
from strangler_proxy.freshness import NEVER, Applied, parse_lsn

if TYPE_CHECKING:
    from strangler_proxy.plane import DataPlane

_WAITED = 2.0  # seconds
_TIMEOUT = 1.0
_MAX_BODY = 4096


def told_by(body: bytes, *, asked_at: float, heard_at: float) -> Applied | None:
    """What the answer of `GET /position` says: `{"applied": LSN, "lag_ms": NUMBER}`; None when it says no
    position. `lag_ms` may be missing or null."""
    try:
        said = json.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("applied"), str):
        return None
    position = parse_lsn(said["applied"].encode())
    lag = said.get("lag_ms")
    caught_up = NEVER
    if isinstance(lag, int | float) and lag >= 0:
        caught_up = asked_at - lag / 1000
    return Applied(position, asked_at, heard_at, caught_up) if position else None


@dataclass(slots=True)
class _Asking:
    """A backend that is asked: until when, and not before `due`; the request under way."""

    until: float
    due: float = 0.0
    fetch: Fetch | None = None
    complained: str = ""


@dataclass(slots=True)
class Positions:
    """Of one worker. All times are readings of `plane.now`."""

    plane: DataPlane
    _known: dict[str, Applied] = field(default_factory=dict)
    _asking: dict[str, _Asking] = field(default_factory=dict)

    def known(self, backend: str) -> Applied | None:
        """What is known of `backend`, None for nothing."""
        return self._known.get(backend)

    def heard(self, backend: str, lsn: bytes, *, asked_at: float) -> None:
        """An answer of `backend` that tells `lsn` passes by; it was asked at `asked_at` or later."""
        position = parse_lsn(lsn)
        if position:
            self._learn(backend, Applied(position, asked_at, self.plane.now()))

    def want(self, backend: str) -> None:
        """Somebody waits for `backend`: it is asked for a while."""
        now = self.plane.now()
        asking = self._asking.get(backend)
        if asking is None:
            asking = self._asking[backend] = _Asking(now)
        asking.until = now + _WAITED

    def poll(self, now: float) -> None:
        """Ask those that somebody waits for, where it is time."""
        for name, asking in self._asking.items():
            if asking.fetch is None and asking.due <= now < asking.until:
                self._ask(name, asking, now)

    def close(self) -> None:
        """Leave nothing under way."""
        for asking in self._asking.values():
            if asking.fetch is not None:
                asking.fetch.cancel()

    def _learn(self, backend: str, said: Applied) -> None:
        known = self._known.get(backend)
        self._known[backend] = said if known is None else known.then(said)

    def _ask(self, name: str, asking: _Asking, now: float) -> None:
        plane = self.plane
        backend = plane.routes.backends.get(name)
        if backend is None or backend.position is None:
            asking.until = now
            return
        asking.due = now + backend.position.every
        path = backend.position.path.encode()
        instance = plane.instance(backend, safe=True) if backend.several is not None else backend
        if instance is None:
            return
        asking.fetch = Fetch(
            plane,
            backend=instance,
            method=b"GET",
            target=path,
            lines=[
                b"Host: %b\r\n" % instance.url.partition("//")[2].encode(),
                b"Accept: application/json\r\n",
            ],
            seconds=_TIMEOUT,
            max_body=_MAX_BODY,
            done=lambda fetched: self._answered(name, asking, fetched, now),
        ).start()

    def _answered(self, name: str, asking: _Asking, fetched: Fetched, asked_at: float) -> None:
        asking.fetch = None
        said, fault = None, ""
        if fetched.failure is not None:
            fault = fetched.failure.value
        elif fetched.status != 200:
            fault = f"status {fetched.status}"
        else:
            said = told_by(fetched.body, asked_at=asked_at, heard_at=self.plane.now())
            fault = "" if said is not None else "no position in the answer"
        if said is not None:
            self._learn(name, said)
        if fault and fault != asking.complained:
            structlog.get_logger().warning("applied position unknown", backend=name, reason=fault)
        asking.complained = fault
