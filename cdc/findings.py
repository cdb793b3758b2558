"""What a check can say about two databases: values only.

A finding is not the same as a check that could not run: that is `Severity.UNKNOWN`. `doctor` holds the
checks, `preflight` those of the mapping's expressions.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cdc.changes import TableName
from chassis.yamlfile import KeyPath


class Severity(StrEnum):
    """ERROR: the stream would fail or lose something. WARNING: look at it. UNKNOWN: could not be checked."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"


class Side(StrEnum):
    """Which of the two databases."""

    SOURCE = "source"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the databases something was found; empty parts do not apply. A role, slot, publication or
    setting is named by the message.
    """

    side: Side | None = None
    database: str = ""
    schema: str = ""
    table: str = ""
    column: str = ""

    @classmethod
    def of(cls, side: Side, table: TableName, column: str = "") -> Self:
        """The place of `table`, or of one of its columns."""
        return cls(side, schema=table.schema, table=table.name, column=column)

    def __str__(self) -> str:
        names = [name for name in (self.database, self.schema, self.table, self.column) if name]
        return " ".join(part for part in (self.side, ".".join(names)) if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    `path` is the place in the plan (empty: the databases themselves), for its line; `place` the one in the
    databases. `rule` names what was broken, for ever the same. `repair` is SQL that an administrator of the
    database of `place` can run as it stands, empty when no statement repairs it; `remedy` says it in words.
    """

    severity: Severity
    path: KeyPath
    message: str
    remedy: str = ""
    rule: str = ""
    why: str = ""
    place: Place = Place()
    repair: str = ""

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.path)
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.severity}: {where + ': ' if where else ''}{self.message}{remedy}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold. `id` is stable. `finds` is what a finding says in one line, `why` why it matters,
    `repair` how it is put right.
    """

    id: str
    severity: Severity
    finds: str
    why: str
    repair: str

    def found(
        self,
        message: str,
        *,
        place: Place,
        path: KeyPath = (),
        repair: str = "",
        remedy: str = "",
    ) -> Finding:
        """A finding that this rule is broken. Without a `remedy` the SQL of `repair` is the remedy."""
        said = remedy or (f"run {repair} in the {place.side}" if repair else self.repair)
        return Finding(self.severity, path, message, said, self.id, self.why, place, repair)

    def unknown(self, message: str, *, place: Place, path: KeyPath = (), remedy: str = "") -> Finding:
        """It could not be checked whether this rule holds, for the reason in `message`."""
        return Finding(Severity.UNKNOWN, path, message, remedy, self.id, self.why, place)
