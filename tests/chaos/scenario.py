"""What happens in one seeded run: which fault, at which step, how it is meant to end. Pure.

    plan(seed) ──► Scenario ──► run_seed.py does it to real processes
    expect(fault, stored=...) ──► must the stream heal, must it stop, or may it do either

The first seeds go once round every legal pair of fault and step; only later ones throw dice. A seed repeats the plan of
a run, not how the processes interleave in it.
"""

import random
from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """Where the stream is when the fault comes. How it is held there stands in `steps.py`."""

    SLOT_CREATED = "slot-created"
    MID_SNAPSHOT = "mid-snapshot"
    SNAPSHOT_BEFORE_COMMIT = "snapshot-before-commit"
    STREAM_BEGINS = "stream-begins"
    MID_BATCH = "mid-batch"
    ROWS_BEFORE_POSITION = "rows-before-position"
    APPLIED_BEFORE_CONFIRM = "applied-before-confirm"
    MID_LARGE = "mid-large-transaction"
    ANY_TIME = "any-time"


BEFORE_START = frozenset({Step.SLOT_CREATED, Step.MID_SNAPSHOT, Step.SNAPSHOT_BEFORE_COMMIT})
"""Steps of the snapshot: the stream has to be held from its first moment on."""


class Fault(StrEnum):
    """What is done to the stream."""

    KILL_STREAM = "kill-stream"
    STOP_STREAM = "stop-stream"
    FREEZE_STREAM = "freeze-stream"
    KILL_SOURCE = "kill-source"
    KILL_TARGET = "kill-target"
    RESTART_SOURCE = "restart-source"
    RESTART_TARGET = "restart-target"
    END_SESSIONS = "end-sessions"
    CLOSE_SOURCE = "close-source"
    CLOSE_TARGET = "close-target"
    RESET_SOURCE = "reset-source"
    RESET_TARGET = "reset-target"
    SILENCE_SOURCE = "silence-source"
    SILENCE_TARGET = "silence-target"
    FULL_DISK = "full-disk"
    SLOT_DROPPED = "slot-dropped"
    SLOT_MADE_ANEW = "slot-made-anew"
    SLOT_INVALIDATED = "slot-invalidated"
    FAILOVER = "failover"
    FAILOVER_WITH_SLOT = "failover-with-slot"
    FAILOVER_BEHIND = "failover-behind"
    RESTORED = "source-restored"
    OLD_COPY = "old-copy-of-source"


class Ending(StrEnum):
    """How a run has to end: caught up and equal row for row; stopped with an error that says what to do; or either of
    the two.
    """

    EQUAL = "equal"
    STOPPED = "stopped"
    EITHER = "either"


LOSES_LOG = frozenset({Fault.SLOT_DROPPED, Fault.SLOT_MADE_ANEW, Fault.SLOT_INVALIDATED, Fault.FAILOVER})
"""After these the source cannot give what the target lacks."""

FORKS = frozenset({Fault.FAILOVER_BEHIND, Fault.RESTORED, Fault.OLD_COPY})
"""After these the target holds what the source does not know, though a slot of the right name is there."""

STOPS = LOSES_LOG | FORKS


def legal(fault: Fault, step: Step) -> bool:
    """Whether the fault can come at the step. A disk is filled by the stream's own writing, whenever that is; a slot
    loses its log only when it lags behind; a target is ahead of its source only once it is filled.
    """
    match fault:
        case Fault.FULL_DISK:
            return step in {Step.ANY_TIME, Step.MID_SNAPSHOT}
        case Fault.SLOT_INVALIDATED:
            return step in {Step.ANY_TIME, Step.STREAM_BEGINS, Step.MID_LARGE}
        case _ if fault in FORKS:
            return step not in BEFORE_START
        case _:
            return True


PAIRS = tuple((fault, step) for fault in Fault for step in Step if legal(fault, step))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. `products`: rows at the beginning. `linger`: seconds from reaching the step to the fault. `lasts`:
    seconds from the fault to its repair. `killed_first`: the stream is dead while the fault is done to the others.
    """

    seed: int
    fault: Fault
    step: Step
    products: int
    linger: float
    lasts: float
    killed_first: bool

    def __str__(self) -> str:
        dead = " (stream killed first)" if self.killed_first else ""
        return f"seed {self.seed}: {self.fault} at {self.step}{dead}"


def scenario(seed: int, number: int) -> Scenario:
    """The plan of run `seed`, the `number`th from a slot."""
    dice = random.Random(seed)
    fault, step = PAIRS[number] if number < len(PAIRS) else dice.choice(PAIRS)
    return Scenario(
        seed=seed,
        fault=fault,
        step=step,
        products=dice.choice((20, 200, 1000)),
        linger=dice.choice((0.0, 0.0, dice.uniform(0.0, 0.2))),
        lasts=dice.uniform(0.05, 0.6),
        killed_first=fault in STOPS and dice.random() < 0.5,
    )


def expect(fault: Fault, *, stored: bool) -> Ending:
    """How it must end. `stored`: the target held a position when the fault came."""
    if fault in FORKS:
        return Ending.STOPPED
    if fault not in LOSES_LOG:
        return Ending.EQUAL
    # before the snapshot is stored it can simply be taken again, if the stream comes by to see that it must
    return Ending.STOPPED if stored else Ending.EITHER
