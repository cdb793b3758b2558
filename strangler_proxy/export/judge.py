"""What an export may leave out. Pure.

Left out and told: what only makes failures rarer or answers faster, and what the routes file does beside answering.
Refused: everything without which a request would go to a wrong place, or would be let in that should not be. A key
that nobody thought of is refused: each target names what it leaves out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from chassis.problems import InvalidFileError, Problem
from strangler_proxy.table import Routes


@dataclass(frozen=True, slots=True)
class Export:
    """A written file. `notes`: what it does not do, and what it needs."""

    text: str
    notes: tuple[str, ...]


class UnknownGroupError(Exception):
    """A group to leave out that the routes file does not have."""


def without(routes: Routes, names: Iterable[str]) -> Routes:
    """The routes but for some groups: their paths go to the default backend. Raises UnknownGroupError."""
    left_out = set(names)
    unknown = sorted(left_out - set(routes.groups))
    if unknown:
        raise UnknownGroupError(
            f"no group {', '.join(unknown)} (there are: {', '.join(routes.groups) or 'none'})"
        )
    return replace(
        routes, groups={name: group for name, group in routes.groups.items() if name not in left_out}
    )


def left_out(problems: Iterable[Problem], *, bearable: Mapping[str, str], routes: Routes) -> tuple[str, ...]:
    """A note for each of `problems` whose last key is `bearable` (key → what its absence means). Raises
    InvalidFileError with the others, but for those of groups that `routes` no longer has."""
    notes: list[str] = []
    refused: list[Problem] = []
    for problem in problems:
        if _is_gone(problem, routes):
            continue
        key = problem.field.rpartition(".")[2]
        if key in bearable:
            notes.append(f"{problem.field} (line {problem.line}) is left out: {bearable[key]}")
        else:
            refused.append(_with_way_out(problem))
    if refused:
        raise InvalidFileError(sorted(refused, key=lambda problem: (problem.line, problem.column)))
    return tuple(notes)


def _with_way_out(problem: Problem) -> Problem:
    """What else helps in an export: to leave the whole group out."""
    first, _, rest = problem.field.partition(".")
    if first != "groups":
        return problem
    return replace(
        problem, remedy=f"{problem.remedy}, or leave the group out: --without {rest.partition('.')[0]}"
    )


def _is_gone(problem: Problem, routes: Routes) -> bool:
    first, _, rest = problem.field.partition(".")
    return first == "groups" and bool(rest) and rest.partition(".")[0] not in routes.groups
