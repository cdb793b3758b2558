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


@dataclass(frozen=True, slots=True)
class CompareProgress:
    """Part of `table` has been compared: `rows` of about `expected` rows so far, `resumed` of them by an earlier
    process, in `tables_done` of `tables` tables. `found`: differences proved since the last progress. `waiting`:
    why the comparison pauses, if it does.
    """

    table: str
    tables_done: int
    tables: int
    rows: int
    expected: int = 0
    resumed: int = 0
    round: int = 1
    position: str = ""
    found: tuple[dict[str, Any], ...] = ()
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class CompareWish:
    """How to compare. `tables`: only these (names of either side). `rate`: at most so many rows a second. `fresh`:
    begin anew where an earlier comparison was cut off. `values`: tell what differs, not only that it does.
    """

    tables: tuple[str, ...] = ()
    rate: float | None = None
    fresh: bool = False
    values: bool = False


PLAIN_WISH = CompareWish()

Progress = Callable[[CompareProgress], None]


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

    def compare(
        self,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        *,
        wish: CompareWish = PLAIN_WISH,
    ) -> Comparison:
        """Compare both sides at one position while writes go on; ends soon after `stop` is set."""
        ...

    def close(self) -> None:
        """Let go of connections that are kept."""
        ...

    def teardown(self) -> None:
        """Remove slot, publication and schema; safe to repeat."""
        ...
