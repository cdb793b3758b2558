"""What to do about a connector as Connect describes it: pure, fed with the status and the time.

    all parts run                   nothing; after WELL_FOR seconds earlier attempts are forgotten
    a part failed                   restart what failed, first at once, then ever later (BACK_OFF)
    there is no such connector      register it again, at the same pace
    paused, stopped                 a person did it: say so, touch nothing
    unassigned, restarting          Connect is at work (workers come and go): say so after PATIENCE seconds

Connect restarts no failed task by itself, and a worker's crash can lose a connector whose configuration was never
written (https://kafka.apache.org/documentation/#connect_administration). The watcher that asks Connect and does what is
decided here is `cdc.connector_watch`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cdc.connect import ConnectorStatus, State, TaskStatus

BACK_OFF: Final = (0.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds between an attempt and the next; the last one repeats."""

WELL_FOR: Final = 60.0
"""Seconds that everything has to run before the next fault counts as the first."""

PATIENCE: Final = 10.0
"""Seconds that Connect may take to share its work out anew before it is called a fault."""


class Act(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    RESTART = "restart"
    REGISTER = "register"


@dataclass(frozen=True, slots=True)
class Watched:
    """What the watcher remembers. Times in seconds of one monotonic clock; None: not so now, or never."""

    attempts: int = 0
    tried_at: float | None = None
    well_since: float | None = None
    unsettled_since: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now, and what is wrong in words for people; "" when all is well."""

    act: Act
    fault: str


def judge(watched: Watched, status: ConnectorStatus | None, now: float) -> tuple[Watched, Verdict]:
    """The next memory and the verdict on `status` (None: Connect knows no such connector) at `now`."""
    if status is None:
        return _attempt(watched, Act.REGISTER, "Kafka Connect does not know the connector any more", now)
    if status.running:
        well_since = now if watched.well_since is None else watched.well_since
        well = replace(watched, well_since=well_since, unsettled_since=None)
        if now - well_since >= WELL_FOR:
            well = replace(well, attempts=0, tried_at=None)
        return well, Verdict(Act.NOTHING, "")
    if status.fault:
        return _attempt(watched, Act.RESTART, _words(status), now)
    if status.connector.state in (State.PAUSED, State.STOPPED):
        held = f"the connector is {status.connector.state.value}: somebody asked Kafka Connect for it"
        return replace(watched, well_since=None, unsettled_since=None), Verdict(Act.NOTHING, held)
    since = now if watched.unsettled_since is None else watched.unsettled_since
    unsettled = replace(watched, well_since=None, unsettled_since=since)
    fault = f"for {now - since:.0f} s {_words(status)}" if now - since >= PATIENCE else ""
    return unsettled, Verdict(Act.NOTHING, fault)


def _attempt(watched: Watched, act: Act, fault: str, now: float) -> tuple[Watched, Verdict]:
    """`act` when its time has come, else only the fault."""
    bad = replace(watched, well_since=None, unsettled_since=None)
    wait = BACK_OFF[min(bad.attempts, len(BACK_OFF) - 1)]
    if bad.tried_at is not None and now - bad.tried_at < wait:
        return bad, Verdict(Act.NOTHING, fault)
    return replace(bad, attempts=bad.attempts + 1, tried_at=now), Verdict(act, fault)


def _words(status: ConnectorStatus) -> str:
    parts = [("connector", status.connector)]
    parts += [(f"task {number}", task) for number, task in enumerate(status.tasks)]
    said = [_part(name, part) for name, part in parts if part.state is not State.RUNNING]
    return "; ".join(said) or "the connector has no task"


def _part(name: str, part: TaskStatus) -> str:
    return f"{name} is {part.state.value}" + (f": {part.fault}" if part.fault else "")
