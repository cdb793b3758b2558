"""Which actions bring the world to what the ledger says? Pure: facts in, ordered actions out.

There is no resume code anywhere. Whatever was interrupted, at whatever point, the next turn observes the
world again and asks here; every action is safe to repeat, and doing all of them leads to the recorded
intent.

Invariants, asserted where actions are made:
* a percentage above what the world has now is only ever set up to the record's ceiling, which a passed gate
  or a person has raised; nothing raises it in a state that goes back, pauses or has failed;
* what takes traffic away from the service comes before anything else, and no broken edit of the routes file
  stops it; in every other state such a file is left to its author.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from migration_plans.record import Record
from migration_plans.stages import Kind, Stage, State


@dataclass(frozen=True, slots=True)
class Prepare:
    """Check the mapping against both databases, then make publication, grants and schema."""


@dataclass(frozen=True, slots=True)
class SetPercent:
    """Write `percent` into the routes file."""

    percent: Decimal


@dataclass(frozen=True, slots=True)
class ReplaceRefused:
    """Put the refused routes file aside and write what the proxy runs, with percentage 0. Loses nothing."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Have every worker of the proxy run the routes file as it is now."""


Action = Prepare | SetPercent | ReplaceRefused | Reload


@dataclass(frozen=True, slots=True)
class Observed:
    """The world as far as traffic goes. None and "" stand for not known.

    `file_percent` and `file_version` come from the routes file, the rest from the proxy: `workers_live` of
    `workers` run `file_version`, the last of them since `live_since_ns` (wall clock).
    """

    file_percent: Decimal | None = None
    file_version: str = ""
    workers: int = 0
    workers_live: int = 0
    live_since_ns: int | None = None

    @property
    def everywhere(self) -> bool:
        """Whether every worker runs the routes file as it is."""
        return self.workers > 0 and self.workers_live == self.workers


def reconcile(record: Record, stages: Sequence[Stage], observed: Observed) -> tuple[Action, ...]:
    """The actions, in order, from `observed` to what `record` says. Empty when the world agrees."""
    if record.state is State.ROLLING_BACK and observed.file_percent is None:
        return to_zero(None)
    actions: list[Action] = []
    stage = stages[record.stage]
    wanted = _wanted(record, observed)
    changes = wanted is not None and wanted != observed.file_percent
    if changes and wanted is not None:
        _assert_may_set(record, observed, wanted)
        actions.append(SetPercent(wanted))
    if changes or (wanted is not None and not observed.everywhere):
        actions.append(Reload())
    if record.state is State.ENTERING and stage.kind is Kind.PREPARE:
        actions.append(Prepare())
    return tuple(actions)


def to_zero(file_percent: Decimal | None) -> tuple[Action, ...]:
    """The actions that take all traffic from the service; `file_percent` is None for a file that is refused.

    A broken edit may hold up everything but this.
    """
    return (ReplaceRefused() if file_percent is None else SetPercent(Decimal(0)), Reload())


def _wanted(record: Record, observed: Observed) -> Decimal | None:
    """The percentage the routes file shall say; None where it stays whatever it is."""
    if record.state is State.ROLLING_BACK:
        return Decimal(0)
    if observed.file_percent is None:
        return None  # the file is refused or gone: its author has to repair it
    match record.state:
        case State.ENTERING | State.SOAKING | State.DONE:
            return record.percent
        case State.ROLLED_BACK | State.PAUSED | State.FAILED:
            return observed.file_percent
        case State.PLANNED:
            return None


def _assert_may_set(record: Record, observed: Observed, percent: Decimal) -> None:
    now = observed.file_percent if observed.file_percent is not None else Decimal(0)
    if percent > now:
        assert percent <= record.ceiling, f"nothing allows {percent} % (ceiling {record.ceiling})"
        assert record.state in (State.ENTERING, State.SOAKING, State.DONE), (
            f"{record.state} never raises traffic"
        )
