"""What the change stream has to reach, and whether it did. Pure: measurements in, verdicts out."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cdc.figures import ENGINE, NATIVE, OURS, PIPE, SINK, WORKS, Measurement, median, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """With a `peer`: at least `bound` times its rate. Without: at most `bound`, in the work's unit."""

    work: str
    bound: float
    peer: str = ""
    note: str = ""


GOALS: tuple[Goal, ...] = (
    Goal(work="snapshot", bound=0.95, peer=PIPE),
    Goal(work="ten", bound=1.0, peer=NATIVE),
    Goal(work="single", bound=1.4, peer=NATIVE),
    Goal(work="p50", bound=3.0),
    Goal(work="p99", bound=15.0),
    Goal(work="decode", bound=3.0, peer=ENGINE),
    Goal(
        work="kafka",
        bound=3.0,
        peer=SINK,
        note="the sink needs records with schemas, ours are without",
    ),
    Goal(work="memory_snapshot", bound=200.0),
    Goal(work="memory_transaction", bound=200.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal and what was measured, both ratios or both in the work's unit."""

    goal: str
    value: float
    bound: float
    met: bool
    note: str = ""


def verdicts(measured: Sequence[Measurement]) -> list[Verdict]:
    """Every goal for which something was measured."""
    titles = {work.name: (work.title, work.unit) for work in WORKS}
    found = []
    for goal in GOALS:
        title, unit = titles[goal.work]
        value = ratio(measured, goal.work, goal.peer) if goal.peer else median(measured, goal.work, OURS)
        if value is None:
            continue
        found.append(
            Verdict(
                goal=f"{title}: at least {goal.bound:g} x {goal.peer}"
                if goal.peer
                else f"{title}: at most {goal.bound:g} {unit}",
                value=round(value, 3),
                bound=goal.bound,
                met=value >= goal.bound if goal.peer else value <= goal.bound,
                note=goal.note,
            )
        )
    return found
