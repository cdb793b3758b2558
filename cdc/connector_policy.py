"""What to do about a stream's connector, from what Connect and the source say of it. Pure; `now` is an argument.

    the slot is gone                changes are lost: let the stream look anew, `start.decide_start` says what to do
    there is no such connector      register it again, not before SETTLED seconds: a worker that has just started knows
                                    none; then ever later (BACK_OFF)
    it has another configuration    register ours again, then ever later: whoever changed it may do so over and over
    a part failed                   restart what failed: at once, then ever later
    paused, stopped                 a person did it: say so, touch nothing
    unassigned, restarting          Connect is at work (workers come and go): say so after PATIENCE seconds
    all parts run                   nothing; after WELL_FOR seconds earlier attempts are forgotten
      but not on the slot           Debezium says nothing while it waits for a slot that somebody else reads, so we do:
                                    at once when it is somebody else, after PATIENCE seconds when nobody reads it

Connect restarts no failed task by itself (https://kafka.apache.org/documentation/#connect_administration). The watcher
that asks, and does what is decided here, is `cdc.connector_watch`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cdc.connect import ConnectorStatus, State, TaskStatus
from cdc.connector_faults import remedy

BACK_OFF: Final = (0.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds between an attempt and the next; the last one repeats."""

WELL_FOR: Final = 60.0
"""Seconds that everything has to run before the next fault counts as the first."""

PATIENCE: Final = 10.0
"""Seconds that Connect may take to share its work out anew, and Debezium to take its slot."""

SETTLED: Final = 3.0
"""Seconds that Connect has to know nothing of the connector before it is taken for lost."""

READER: Final = "Debezium Streaming"
"""The application name of the session with which Debezium reads a slot."""

_SHOWN = 150  # characters of a fault at either end: Debezium puts its whole state between the two


class Act(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    RESTART = "restart"
    REGISTER = "register"
    LOOK_ANEW = "look_anew"


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """The slot on the source. `pid`: of the session that reads it, None when nobody does; `reader`: its application
    name, "" when it has none or may not be seen (another role's).
    """

    exists: bool
    pid: int | None = None
    reader: str = ""


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


def judge(
    watched: Watched, *, status: ConnectorStatus | None, slot: SlotSeen, now: float
) -> tuple[Watched, Verdict]:
    """The next memory and the verdict on `status` (None: Connect knows no such connector) and `slot` at `now`."""
    if not slot.exists:
        return Watched(), Verdict(Act.LOOK_ANEW, "the connector's slot does not exist any more")
    if status is None:
        since = now if watched.unsettled_since is None else watched.unsettled_since
        if now - since < SETTLED:
            return replace(watched, well_since=None, unsettled_since=since), Verdict(Act.NOTHING, "")
        lost = "Kafka Connect does not know the connector any more"
        return _attempt(replace(watched, unsettled_since=since), Act.REGISTER, lost, now)
    if status.fault:
        return _attempt(replace(watched, unsettled_since=None), Act.RESTART, _words(status), now)
    return _unbroken(watched, status, slot, now)


def reconfigured(watched: Watched, *, fault: str, now: float) -> tuple[Watched, Verdict]:
    """The next memory and the verdict when the connector runs with another configuration, which `fault` describes."""
    return _attempt(watched, Act.REGISTER, fault, now)


def _unbroken(
    watched: Watched, status: ConnectorStatus, slot: SlotSeen, now: float
) -> tuple[Watched, Verdict]:
    """Nothing failed: it works, somebody holds it, or it is on its way."""
    if status.running and slot.pid is not None and slot.reader == READER:
        return _well(watched, now), Verdict(Act.NOTHING, "")
    told = ""
    if status.connector.state in (State.PAUSED, State.STOPPED):
        told = f"the connector is {status.connector.state.value}: somebody asked Kafka Connect for it"
    elif status.running and slot.pid is not None:
        other = repr(slot.reader) if slot.reader else "a session without a visible name"
        told = f"the connector runs, but its slot is read by somebody else: {other}, process {slot.pid}"
    if told:
        return replace(watched, well_since=None, unsettled_since=None), Verdict(Act.NOTHING, told)
    since = now if watched.unsettled_since is None else watched.unsettled_since
    late = "the connector runs, but nobody reads its slot" if status.running else _words(status)
    return (
        replace(watched, well_since=None, unsettled_since=since),
        Verdict(Act.NOTHING, late if now - since >= PATIENCE else ""),
    )


def _well(watched: Watched, now: float) -> Watched:
    since = now if watched.well_since is None else watched.well_since
    forget = now - since >= WELL_FOR
    return Watched(
        attempts=0 if forget else watched.attempts,
        tried_at=None if forget else watched.tried_at,
        well_since=since,
    )


def _attempt(watched: Watched, act: Act, fault: str, now: float) -> tuple[Watched, Verdict]:
    """`act` when its time has come, else only the fault."""
    bad = replace(watched, well_since=None)
    wait = BACK_OFF[min(bad.attempts, len(BACK_OFF) - 1)]
    if bad.tried_at is not None and now - bad.tried_at < wait:
        return bad, Verdict(Act.NOTHING, fault)
    return replace(bad, attempts=bad.attempts + 1, tried_at=now), Verdict(act, fault)


def _words(status: ConnectorStatus) -> str:
    parts = [("the connector", status.connector)]
    parts += [(f"task {number}", task) for number, task in enumerate(status.tasks)]
    said = [_part(name, part) for name, part in parts if part.state is not State.RUNNING]
    return "; ".join(said) or "the connector has no task"


def _part(name: str, part: TaskStatus) -> str:
    if not part.fault:
        return f"{name} is {part.state.value}"
    told = remedy(part.fault)
    return f"{name} is {part.state.value}: {_shortened(part.fault)}" + (f"; {told}" if told else "")


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} … {text[-_SHOWN:]}"
