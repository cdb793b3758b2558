"""Contenders take turns: each fills an empty target of its own, then they catch up with each load, one after the other.

A load is written while nobody reads, then the time runs from the word *go* (connection, start of the stream and all)
until its last change stands in the target. How much of that is the start is shown on a line of its own: the same with
one row to catch up. So a slow writer or its share of the cores is in no figure. Who comes first changes with each
load, and the two turns lie seconds apart: a machine that others use as well is not the same a minute later.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from benchmarks.cdc import latency
from benchmarks.cdc.figures import NATIVE, OURS, PIPE, Measurement
from benchmarks.cdc.loads import LOADS, Amount
from benchmarks.cdc.process import Stream, read_alone, until
from benchmarks.cdc.shapes import SOURCE
from benchmarks.cdc.site import PEER_SLOT, Place, Site, Subscription
from cdc.changes import Lsn
from cdc.sources.slot import drop_slot
from cdc.verify import verify

Tell = Callable[[str], None]
Found = Iterator[tuple[str, str, float]]
"""Contender, work, value."""
Alive = Callable[[], bool]


def measure(site: Site, amount: Amount, rows: int, tell: Tell) -> list[Measurement]:
    """Every round of one shape. `rows` are in the source."""
    found = []
    for number in range(amount.rounds):
        tell(f"{site.shape.table}, round {number + 1} of {amount.rounds}")
        site.clean()
        for name, work, value in _round(site, amount, rows, number):
            found.append(
                Measurement(
                    work=work + site.shape.suffix, contender=name, round=number, value=round(value, 3)
                )
            )
    return found


class _Contender(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def slot(self) -> str: ...

    @property
    def place(self) -> Place: ...

    def fill(self, rows: int) -> Found:
        """Copy the table, and begin to keep what comes."""

    def running(self) -> "AbstractContextManager[Running]":
        """Prepared to apply changes until the block ends."""

    def end(self) -> None:
        """Let go of the slot."""


class Running(Protocol):
    """What applies changes."""

    def go(self) -> None:
        """Begin."""

    def alive(self) -> bool:
        """Whether it still runs."""


class _Ours:
    name = OURS

    def __init__(self, site: Site) -> None:
        self._site = site
        self.slot = site.config.slot
        self.place = site.ours

    def fill(self, rows: int) -> Found:
        with self.running() as stream:
            began = time.perf_counter()
            stream.go()
            until(self._site.position, what="the snapshot is there", alive=stream.alive)
            yield OURS, "snapshot", rows / (time.perf_counter() - began)

    def running(self) -> AbstractContextManager[Running]:
        return Stream(self._site.config)

    def end(self) -> None:
        drop_slot(self._site.source, self.slot)


class _Native:
    name = NATIVE
    slot = PEER_SLOT

    def __init__(self, site: Site) -> None:
        self._site = site
        self.place = site.peers
        self._kept = ExitStack()
        self._subscription: Subscription | None = None

    def fill(self, rows: int) -> Found:
        site = self._site
        began = time.perf_counter()
        site.pipe(site.shape.select, site.piped)
        yield PIPE, "snapshot", rows / (time.perf_counter() - began)
        if site.piped != site.peers:
            site.pipe(f"SELECT * FROM {SOURCE}", site.peers)  # noqa: S608  (our own name)
        self._subscription = self._kept.enter_context(site.subscription())

    @contextmanager
    def running(self) -> Iterator[Running]:
        assert self._subscription is not None
        try:
            yield _Enabled(self._subscription)
        finally:
            self._subscription.disable()

    def end(self) -> None:
        self._kept.close()


class _Enabled:
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def go(self) -> None:
        self._subscription.enable()

    def alive(self) -> bool:
        return True


def _round(site: Site, amount: Amount, rows: int, number: int) -> Found:
    ours = _Ours(site)
    contenders: list[_Contender] = [ours, _Native(site)]
    turn = number
    straight = not site.shape.suffix
    try:
        for contender in _in_turn(contenders, turn):
            yield from contender.fill(rows)
        _settle(site, contenders)
        if straight:
            turn += 1
            for name, seconds in _catch_up(_in_turn(contenders, turn), site.mark()):
                yield name, "start", 1_000 * seconds
            _settle(site, contenders)
        for work, load in LOADS.items():
            position = site.position()
            assert position is not None
            count = load(site, amount)
            end = site.end_of_log()
            mark = site.mark()
            if work == "ten" and straight:
                yield (
                    OURS,
                    "source",
                    read_alone(site.config, after=Lsn.parse(position[0]), upto=Lsn.parse(end)),
                )
            turn += 1
            for name, seconds in _catch_up(_in_turn(contenders, turn), mark):
                yield name, work, count / seconds
            _settle(site, contenders)
        if straight:
            for contender in _in_turn(contenders, turn):
                with _begun(site, contender) as alive:
                    for work, value in latency.measure(site, amount, contender.place, alive):
                        yield contender.name, work, value
            with _begun(site, ours):
                report = verify(site.config)
            if not report.equal:
                raise RuntimeError(f"the target differs, no figure counts: {report}")
            yield OURS, "verification", rows / report.seconds
    finally:
        for contender in contenders:
            contender.end()


def _in_turn(contenders: Sequence[_Contender], turn: int) -> Sequence[_Contender]:
    return contenders if turn % 2 == 0 else contenders[::-1]


def _catch_up(contenders: Sequence[_Contender], mark: str) -> Iterator[tuple[str, float]]:
    for contender in contenders:
        with contender.running() as run:
            began = time.perf_counter()
            run.go()
            contender.place.await_mark(mark, run.alive)
            yield contender.name, time.perf_counter() - began


@contextmanager
def _begun(site: Site, contender: _Contender) -> Iterator[Alive]:
    """It runs, and has nothing to catch up with."""
    with contender.running() as run:
        run.go()
        contender.place.await_mark(site.mark(), run.alive)
        yield run.alive


def _settle(site: Site, contenders: Sequence[_Contender]) -> None:
    """Nobody would read again what has been applied, by whomever."""
    with ExitStack() as stack:
        lives = [stack.enter_context(_begun(site, contender)) for contender in contenders]
        for contender, alive in zip(contenders, lives, strict=True):
            site.settle(contender.slot, alive)


__all__: Sequence[str] = ("measure",)
