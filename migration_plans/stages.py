"""What may follow what: the state by event table of a migration, and the kinds of stages a plan is made of.

The table is data. `follow(state, event)` looks it up; what is not in it is refused with the remedy of the
state. `mermaid()` and `markdown()` draw docs/reference/stages.md from it, so that the picture cannot be
wrong.

A *stage* comes from the plan and is one `StageKind`: it says which traffic it wants, whether entering it
needs work, and which gates must pass before the next one. A new kind of stage (shadow, cut over writes,
complete) is one more entry in `KINDS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class State(StrEnum):
    """Where a migration is. Every state is durable: it is in the ledger before anything is done about it."""

    PLANNED = "planned"
    ENTERING = "entering"
    SOAKING = "soaking"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    DONE = "done"


class Event(StrEnum):
    """What may happen to a migration."""

    START = "start"
    ENTERED = "entered"
    PASSED = "passed"
    FINISHED = "finished"
    ADVANCE = "advance"
    PAUSE = "pause"
    RESUME = "resume"
    BOTH_ARMS_FAIL = "both_arms_fail"
    GATE_FAILED = "gate_failed"
    EDITED = "edited"
    TRIPPED = "tripped"
    ROLLBACK = "rollback"
    AT_ZERO = "at_zero"
    RETRY = "retry"
    ACTION_FAILED = "action_failed"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class StateNote:
    """A state explains itself: what it means, who ends it, and what a person can do next."""

    meaning: str
    ended_by: str
    next: str


NOTES: Mapping[State, StateNote] = {
    State.PLANNED: StateNote("nothing has been moved", "a person", "`strangler start PLAN` begins"),
    State.ENTERING: StateNote(
        "the intent to enter the stage is recorded, its actions are under way",
        "the controller",
        "wait, or `strangler rollback PLAN`",
    ),
    State.SOAKING: StateNote(
        "the stage is live, evidence for its gates is being gathered",
        "the controller",
        "wait, or `strangler advance`, `pause` or `rollback`",
    ),
    State.PAUSED: StateNote(
        "traffic stays as it is, nothing advances; a failing service is still rolled back",
        "a person",
        "`strangler resume PLAN` goes on, `strangler rollback PLAN` goes back",
    ),
    State.ROLLING_BACK: StateNote(
        "the intent to send every request to the monolith is recorded and being carried out",
        "the controller, or the command `strangler rollback`",
        "wait; `strangler rollback PLAN` does it again, which is safe",
    ),
    State.ROLLED_BACK: StateNote(
        "every worker sends every request to the monolith; the change stream keeps running",
        "a person, or the controller when the plan retries by itself",
        "find the cause, then `strangler retry PLAN`",
    ),
    State.FAILED: StateNote(
        "an action of the stage was refused; traffic is as it was",
        "a person",
        "repair what the reason names, then `strangler retry PLAN`",
    ),
    State.DONE: StateNote(
        "every stage has passed; the service is still watched and still rolled back when it fails",
        "a person, or the controller",
        "nothing; `strangler rollback PLAN` goes back",
    ),
}

TABLE: Mapping[State, Mapping[Event, State]] = {
    State.PLANNED: {Event.START: State.ENTERING},
    State.ENTERING: {
        Event.ENTERED: State.SOAKING,
        Event.PAUSE: State.PAUSED,
        Event.BOTH_ARMS_FAIL: State.PAUSED,
        Event.EDITED: State.PAUSED,
        Event.TRIPPED: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
        Event.ACTION_FAILED: State.FAILED,
    },
    State.SOAKING: {
        Event.PASSED: State.ENTERING,
        Event.ADVANCE: State.ENTERING,
        Event.FINISHED: State.DONE,
        Event.PAUSE: State.PAUSED,
        Event.BOTH_ARMS_FAIL: State.PAUSED,
        Event.GATE_FAILED: State.PAUSED,
        Event.EDITED: State.PAUSED,
        Event.TRIPPED: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
    State.PAUSED: {
        Event.RESUME: State.ENTERING,
        Event.EDITED: State.PAUSED,
        Event.TRIPPED: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
    State.ROLLING_BACK: {Event.AT_ZERO: State.ROLLED_BACK},
    State.ROLLED_BACK: {
        Event.RETRY: State.ENTERING,
        Event.EDITED: State.PAUSED,
        Event.RESET: State.PLANNED,
    },
    State.FAILED: {
        Event.RETRY: State.ENTERING,
        Event.EDITED: State.PAUSED,
        Event.TRIPPED: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
        Event.RESET: State.PLANNED,
    },
    State.DONE: {
        Event.PAUSE: State.PAUSED,
        Event.BOTH_ARMS_FAIL: State.PAUSED,
        Event.EDITED: State.PAUSED,
        Event.TRIPPED: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
}

# States in which the service may be answering shoppers, so that its errors are watched.
GUARDED = frozenset({State.ENTERING, State.SOAKING, State.PAUSED, State.FAILED, State.DONE})


class RefusedError(Exception):
    """`event` may not happen in `state`; the message says what may be done instead."""

    def __init__(self, state: State, event: Event) -> None:
        self.state, self.event = state, event
        note = NOTES[state]
        super().__init__(
            f"{event.value!r} is refused: the migration is {state.value} ({note.meaning}); {note.next}"
        )


def follow(state: State, event: Event) -> State:
    """The state after `event`. Raises RefusedError when the table has no such step."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise RefusedError(state, event) from None


class GateName(StrEnum):
    """The gates there are; gates.py says when each passes."""

    PROXY = "proxy"
    STREAM = "stream"
    LAG = "lag"
    PARKED = "parked"
    VERIFIED = "verified"
    REQUESTS = "requests"
    ERRORS = "errors"
    SOAK = "soak"


class Kind(StrEnum):
    """The kinds of stages a plan may name."""

    PREPARE = "prepare"
    SNAPSHOT = "snapshot"
    STREAM = "stream"
    RAMP = "ramp"


@dataclass(frozen=True, slots=True)
class StageKind:
    """What a kind of stage does, and the gates in front of the next one."""

    check: str
    start: str
    undo: str
    gates: tuple[GateName, ...]
    carries_traffic: bool = False


KINDS: Mapping[Kind, StageKind] = {
    Kind.PREPARE: StageKind(
        check="the live check of the mapping finds no error",
        start="publication, grants and the schema `strangler_cdc` are made (safe to repeat)",
        undo="`strangler reset` removes slot, publication and schema",
        gates=(GateName.PROXY,),
    ),
    Kind.SNAPSHOT: StageKind(
        check="prepared",
        start="the change stream makes its slot and copies every mapped table at one position",
        undo="`strangler reset`",
        gates=(GateName.PROXY, GateName.STREAM),
    ),
    Kind.STREAM: StageKind(
        check="the snapshot is complete",
        start="changes flow; both sides are compared row by row at one position",
        undo="none needed: the monolith still owns every row",
        gates=(
            GateName.PROXY,
            GateName.STREAM,
            GateName.LAG,
            GateName.PARKED,
            GateName.VERIFIED,
            GateName.SOAK,
        ),
    ),
    Kind.RAMP: StageKind(
        check="change stream and proxy are healthy",
        start="the percentage is written to the routes file; live once every worker runs it",
        undo="percentage 0 in every worker, at once",
        gates=(
            GateName.PROXY,
            GateName.STREAM,
            GateName.LAG,
            GateName.PARKED,
            GateName.VERIFIED,
            GateName.REQUESTS,
            GateName.ERRORS,
            GateName.SOAK,
        ),
        carries_traffic=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a plan. `percent` is what the group's traffic stands at while it lasts."""

    kind: Kind
    percent: Decimal

    @property
    def name(self) -> str:
        """`prepare`, `ramp 25`, …: how ledger, status and reports call it."""
        return (
            f"{self.kind.value} {self.percent.normalize():f}" if self.kind is Kind.RAMP else self.kind.value
        )


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> planned"]
    for state, row in TABLE.items():
        joined: dict[State, list[str]] = {}
        for event, target in row.items():
            joined.setdefault(target, []).append(event.value)
        lines += [
            f"    {state.value} --> {target.value}: {', '.join(names)}" for target, names in joined.items()
        ]
    return "\n".join(lines)


def markdown() -> str:
    """The page docs/reference/stages.md."""
    states = [
        f"| `{state.value}` | {note.meaning} | {note.ended_by} | {note.next} |"
        for state, note in NOTES.items()
    ]
    cells = [
        f"| `{event.value}` | "
        + " | ".join(f"`{TABLE[state][event].value}`" if event in TABLE[state] else "-" for state in State)
        + " |"
        for event in Event
    ]
    kinds = [
        f"| `{kind.value}` | {data.check} | {data.start} | {data.undo} | "
        f"{', '.join(gate.value for gate in data.gates)} |"
        for kind, data in KINDS.items()
    ]
    return "\n".join(
        [
            "# Stages and states",
            "",
            "Written by `strangler plan stages --markdown` from `migration_plans/stages.py`; do not edit.",
            "",
            "## Stages",
            "",
            "| stage | check | start | undo | gates before the next |",
            "|---|---|---|---|---|",
            *kinds,
            "",
            "## States",
            "",
            "| state | meaning | ended by | next |",
            "|---|---|---|---|",
            *states,
            "",
            "```mermaid",
            mermaid(),
            "```",
            "",
            "## State by event",
            "",
            "A dash is refused, with the remedy of the state's row above.",
            "",
            "| event | " + " | ".join(f"{state.value}" for state in State) + " |",
            "|---|" + "---|" * len(State),
            *cells,
            "",
        ]
    )
