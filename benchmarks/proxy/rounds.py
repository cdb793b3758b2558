"""The part of the run that drives load: contenders take turns, round after round.

A round is every contender once, in an order that moves on by one each time, so that none always runs
first or behind a hot neighbour. A contender is started for its turn, warmed up, driven in every setup, and ended.
In the first round it shows before that that it does its work (`equivalence.py`). Ours shows after each turn
that its outcomes add up to the requests that wrk counted.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

from benchmarks.proxy.contenders import Site, contender, upstream
from benchmarks.proxy.corpus import GROUPS
from benchmarks.proxy.equivalence import check
from benchmarks.proxy.figures import NGINX, NOISE, OURS, UPSTREAM, Body, Round, Setup
from benchmarks.proxy.load import Wrk
from benchmarks.proxy.processes import BenchmarkError, Cores, Launch, Server, serving
from workshop.postgres import free_port

_SETTLED_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    contenders: Sequence[str]
    bodies: Sequence[Body]
    connections: Sequence[int]
    rounds: int
    seconds: int

    def turns(self, cores: Cores) -> "list[Turn]":
        """Who has a turn in every round: each contender pinned, ours with many groups, then scaling."""
        setups = [
            Setup(body=body, connections=connections)
            for body in self.bodies
            for connections in self.connections
        ]
        turns = [Turn(name, setups, cores.contender) for name in self.contenders]
        if OURS in self.contenders:
            small = [replace(setup, groups=GROUPS) for setup in setups if setup.body is Body.SMALL]
            at = next(number for number, turn in enumerate(turns) if turn.name == OURS)
            turns.insert(at + 1, Turn(OURS, small, cores.contender))
        for name in (NGINX, OURS):
            if name in self.contenders and self.rounds > 1:
                for workers in (1, 2):
                    setup = Setup(connections=self.connections[-1], workers=workers, pinned=False)
                    turns.append(Turn(name, [setup], cores.every))
        return [turn for turn in turns if turn.setups]


@dataclass(frozen=True, slots=True)
class Turn:
    """One start of one contender and what it is then driven through (same groups and workers in all)."""

    name: str
    setups: Sequence[Setup]
    cores: Sequence[int]


@contextmanager
def site(directory: Path, cores: Sequence[int]) -> Iterator[tuple[Site, Server]]:
    """Both upstreams, running."""
    here = Site(directory, free_port(), free_port())
    with serving(upstream(here), log=directory / "upstream.out", cores=cores) as server:
        yield here, server


def measure(plan: Plan, *, directory: Path, cores: Cores) -> list[Round]:
    """All rounds. Raises BenchmarkError when a contender does not start or does not do its work."""
    found: list[Round] = []
    wrk = Wrk.prepare(directory, cores.others)
    free = Wrk(directory, cores.every)
    turns = plan.turns(cores)
    with site(directory, cores.others) as (here, upstreams):
        for number in range(plan.rounds):
            first = number % len(turns)
            for turn in [*turns[first:], *turns[:first]]:
                pinned = turn.setups[0].pinned
                found += _take(
                    turn, here, upstreams, number=number, seconds=plan.seconds, wrk=wrk if pinned else free
                )
    return found


def _take(turn: Turn, here: Site, upstreams: Server, *, number: int, seconds: int, wrk: Wrk) -> list[Round]:
    def drive(server: Server, setup: Setup, seconds: int) -> Round:
        return wrk.drive(
            server, upstream=upstreams, contender=turn.name, setup=setup, seconds=seconds, number=number
        )

    if turn.name == UPSTREAM:
        return [_told(drive(upstreams, setup, seconds)) for setup in turn.setups]
    launch = contender(turn.name, here, turn.setups[0])
    log = here.directory / "contender.out"
    with serving(launch, log=log, cores=turn.cores) as server:
        if number == 0:
            check(turn.name, launch.port)
        counted_before = _settled(launch)
        warm = drive(server, turn.setups[0], 1)
        driven = [_told(drive(server, setup, seconds)) for setup in turn.setups]
        if launch.admin_port is not None:
            _agree([warm, *driven], launch, counted_before)
    return driven


def _told(done: Round) -> Round:
    """Say on stderr what came of it."""
    sys.stderr.write(
        f"  {done.number + 1} {done.contender:24} {done.setup!s:42} {done.requests_per_second:10,.0f} requests/s"
        f"   p99 {done.p99_ms:8.2f} ms   {done.cpu_us:8.1f} µs a request   busy {done.busy:4.0%}"
        + (f"   {done.errors} errors" if done.errors else "")
        + (f"   others {done.others:.0%}" if done.others > NOISE else "")
        + "\n"
    )
    return done


def _counted(launch: Launch) -> int:
    """Requests that our proxy has counted."""
    if launch.admin_port is None:
        return 0
    with urlopen(f"http://127.0.0.1:{launch.admin_port}/admin/outcomes", timeout=10) as answer:
        groups = json.load(answer)["groups"].values()
    return sum(arm["requests"] for group in groups for arm in group.values())


def _settled(launch: Launch) -> int:
    """The count once everything sent so far is in it: workers report every few milliseconds."""
    last = _counted(launch)
    while launch.admin_port is not None:
        time.sleep(_SETTLED_SECONDS)
        now = _counted(launch)
        if now == last:
            break
        last = now
    return last


def _agree(rounds: Sequence[Round], launch: Launch, before: int) -> None:
    """Raises BenchmarkError when wrk and our outcomes count differently. wrk stops in the middle: for each of its
    connections, one request may have been counted by us and not by it."""
    told = sum(each.requests for each in rounds)
    slack = sum(each.setup.connections for each in rounds)
    counted = _settled(launch) - before
    if not told <= counted <= told + slack:
        raise BenchmarkError(
            f"wrk had {told} answers; our outcomes say {counted}, where {told} to {told + slack} would be right"
        )
