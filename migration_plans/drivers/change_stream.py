"""The change stream, as the controller needs it: prepare it, ask how it is, compare both sides, take it
down.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from migration_plans.gates import SlotSignal, StreamSignal


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides compared row by row at one log position. `detail` is the report for people and `--json`.

    `parked` of the `differing` rows are known to wait because the target refused a change of them.
    """

    position: str
    rows: int
    differing: int
    detail: dict[str, Any]
    parked: int = 0


Progress = Callable[[str, int, int, int], None]
"""Told the table just compared, tables done, tables in all, rows so far."""


class PreflightRefusedError(Exception):
    """The live check of the mapping found errors; nothing was changed."""


class ChangeStreamError(Exception):
    """The change stream's databases do not answer, or refuse what was asked."""


class ChangeStream(Protocol):
    """All methods raise ChangeStreamError when a database does not answer."""

    def check(self) -> list[dict[str, Any]]:
        """Ask both databases whether the mapping works: a `severity` and a `text` for each finding. Changes
        nothing.
        """
        ...

    def prepare(self) -> None:
        """Check, then make publication, grants and schema; safe to repeat. Raises PreflightRefusedError."""
        ...

    def signal(self) -> StreamSignal | None:
        """How it is now; None when there is none."""
        ...

    def slot(self) -> SlotSignal:
        """What the source keeps for its slot."""
        ...

    def compare(self, progress: Progress | None = None, stop: threading.Event | None = None) -> Comparison:
        """Compare both sides at one position while writes go on; ends soon after `stop` is set."""
        ...

    def close(self) -> None:
        """Let go of connections that are kept."""
        ...

    def teardown(self) -> None:
        """Remove slot, publication and schema; safe to repeat."""
        ...
