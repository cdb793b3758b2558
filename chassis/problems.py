"""Faults in what a person wrote: where they are, what is wrong, what to do next.

Every file that a person edits (routes, plans) is read whole, every fault is collected, and all of them
are reported at once. Nothing is applied unless the list is empty.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `line` and `column` count from 1; 0 means the fault has no single place.

    `field` is the dotted path of the value (`groups.catalog.percent`), `message` what is wrong,
    `remedy` what to do next.
    """

    file: str
    line: int
    column: int
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f" {self.field}:" if self.field else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{place}:{where} {self.message}{remedy}"

    def as_dict(self) -> dict[str, str | int]:
        """Shape for `--json` output."""
        return asdict(self)


class InvalidFileError(Exception):
    """A file was refused whole; `problems` holds every fault found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
