"""A migration's present, as one value: what the ledger holds and compares-and-sets.

`after` gives the record that follows an event: state by the stage table, the rest by the rules written
here. Pure.

Percentages in a record: `percent` is what the routes file shall say, `previous` what it said before that
intent (a file that still says so has not been edited by anybody, we just have not got to it), `ceiling` the
highest percentage that passed gates or a person's word have allowed. percent <= ceiling holds always:
traffic never rises by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from migration_plans.stages import Event, Stage, State, follow


@dataclass(frozen=True, slots=True)
class Record:
    """Where a migration stands.

    `stage` is the place in `stages` (names, as they were at the start); `since` when this state began,
    `stage_since` when this stage was entered, `rolled_back_at` when percent 0 was reached (Unix seconds).
    `tests` counts the rollback tests begun so far (they share one budget), `retries` the automatic retries
    of this stage. `tripped_at_ns` is the wall clock of the response that decided an automatic rollback;
    None when a person rolled back. `alarms` are those that people have been told of and that still hold
    (alarms.py).
    """

    name: str
    version: int
    state: State
    stage: int
    stages: tuple[str, ...]
    percent: Decimal
    previous: Decimal
    ceiling: Decimal
    since: float
    stage_since: float
    plan_digest: str
    reason: str = ""
    tests: int = 0
    retries: int = 0
    rolled_back_at: float | None = None
    tripped_at_ns: int | None = None
    verified: Mapping[str, Any] | None = None
    alarms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.percent <= self.ceiling, f"percent {self.percent} above the ceiling {self.ceiling}"
        assert 0 <= self.stage < len(self.stages)

    @property
    def stage_name(self) -> str:
        """Name of the stage it is in."""
        return self.stages[self.stage]

    @property
    def last_stage(self) -> bool:
        """Whether no stage follows."""
        return self.stage == len(self.stages) - 1

    def at_version(self, version: int) -> "Record":
        """The same, decided on another version of the ledger."""
        return replace(self, version=version)

    def as_dict(self) -> dict[str, Any]:
        """Shape in the ledger; `from_dict` reads it."""
        return {
            "name": self.name,
            "version": self.version,
            "state": self.state.value,
            "stage": self.stage,
            "stages": list(self.stages),
            "percent": str(self.percent),
            "previous": str(self.previous),
            "ceiling": str(self.ceiling),
            "since": self.since,
            "stage_since": self.stage_since,
            "plan_digest": self.plan_digest,
            "reason": self.reason,
            "tests": self.tests,
            "retries": self.retries,
            "rolled_back_at": self.rolled_back_at,
            "tripped_at_ns": self.tripped_at_ns,
            "verified": None if self.verified is None else dict(self.verified),
            "alarms": list(self.alarms),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """The record that `as_dict` wrote."""
        return cls(
            **{
                **data,
                "state": State(data["state"]),
                "stages": tuple(data["stages"]),
                "percent": Decimal(data["percent"]),
                "previous": Decimal(data["previous"]),
                "ceiling": Decimal(data["ceiling"]),
                "alarms": tuple(data.get("alarms", ())),
            }
        )


def begin(name: str, *, stages: Sequence[Stage], percent: Decimal, digest: str, now: float) -> Record:
    """The record of a migration nobody has started; `percent` is what the routes file says today."""
    return Record(
        name=name,
        version=0,
        state=State.PLANNED,
        stage=0,
        stages=tuple(stage.name for stage in stages),
        percent=percent,
        previous=percent,
        ceiling=percent,
        since=now,
        stage_since=now,
        plan_digest=digest,
    )


def after(  # noqa: PLR0911  (one return for each row of the table is the shortest way to say it)
    record: Record,
    event: Event,
    *,
    stages: Sequence[Stage],
    now: float,
    reason: str = "",
    percent: Decimal | None = None,
    tripped_at_ns: int | None = None,
) -> Record:
    """The record that follows `event`. `percent` is what an edit of the routes file says (event EDITED).

    Raises RefusedError when the stage table has no such step.
    """
    moved = replace(record, state=follow(record.state, event), since=now, reason=reason)
    match event:
        case Event.START | Event.RESUME:
            return _enter(moved, record.stage, stages, now=now)
        case Event.RETRY:
            return replace(_enter(moved, record.stage, stages, now=now), retries=record.retries + 1)
        case Event.PASSED | Event.ADVANCE:
            return replace(_enter(moved, record.stage + 1, stages, now=now), retries=0)
        case Event.EDITED:
            assert percent is not None
            return replace(
                moved,
                percent=percent,
                previous=percent,
                ceiling=max(percent, record.ceiling),
                tests=record.tests + 1,
                tripped_at_ns=None,
            )
        case Event.TRIPPED | Event.ROLLBACK:
            return replace(
                moved,
                percent=Decimal(0),
                previous=record.percent,
                ceiling=max(record.ceiling, record.percent),
                tripped_at_ns=tripped_at_ns,
            )
        case Event.AT_ZERO:
            return replace(moved, previous=Decimal(0), rolled_back_at=now, reason=reason or record.reason)
        case Event.ENTERED:
            return replace(moved, previous=record.percent)
        case Event.RESET:
            nothing = Decimal(0)
            return replace(
                moved,
                stage=0,
                percent=nothing,
                previous=nothing,
                ceiling=nothing,
                retries=0,
                verified=None,
                alarms=(),
            )
        case _:
            return moved


def _enter(record: Record, stage: int, stages: Sequence[Stage], *, now: float) -> Record:
    percent = stages[stage].percent
    differed = record.verified is not None and record.verified.get("differing", 0) > 0
    return replace(
        record,
        stage=stage,
        stage_since=now,
        previous=record.percent,
        percent=percent,
        ceiling=max(percent, record.ceiling),
        tests=record.tests + (percent > 0),
        tripped_at_ns=None,
        rolled_back_at=None,
        verified=None if differed else record.verified,  # what differed was to be repaired: compare again
    )
