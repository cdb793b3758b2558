"""What a change is, whatever read it: the contract between sources, the pipeline and sinks.

A source yields `Transaction`s (committed ones only, in commit order) and `Watermark`s ("everything that
committed before this position has been yielded"). Values are the text form that PostgreSQL itself prints, as
raw bytes; nothing is converted on its way. `None` is SQL NULL; `UNCHANGED` is a large value that an update
did not touch and that PostgreSQL therefore left out of the log.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, Self


class Lsn(int):
    """A byte position in the source's write-ahead log; ordered, printed like PostgreSQL does
    (`16/B374D848`).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `16/B374D848`. Raises ValueError when it is not that."""
        high, slash, low = text.partition("/")
        try:
            value = (int(high, 16) << 32) | int(low, 16)
        except ValueError:
            value = -1
        if not slash or not 0 <= value < 1 << 64 or len(high) > 8 or len(low) > 8:
            raise ValueError(f"{text!r} is not a log position such as 16/B374D848")
        return cls(value)

    def __str__(self) -> str:
        return f"{int(self) >> 32:X}/{int(self) & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED
"""A large (TOASTed) value that the update left as it was; it is not in the log. Never the same as NULL."""

Value = bytes | None | Unchanged
Row = tuple[Value, ...]
Key = tuple[bytes, ...]


class Operation(StrEnum):
    """What happened to a row (truncate: to a whole table)."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"


class Identity(StrEnum):
    """Which old values the source logs for an update or delete (PostgreSQL's REPLICA IDENTITY)."""

    DEFAULT = "default"
    NOTHING = "nothing"
    FULL = "full"
    INDEX = "index"


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table and its schema."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `schema.table`, or `table` in schema `public`. Raises ValueError when a part is empty."""
        schema, dot, name = text.partition(".")
        if not dot:
            schema, name = "public", text
        if not schema or not name:
            raise ValueError(f"{text!r} is not a table name such as public.product")
        return cls(schema, name)

    @property
    def sql(self) -> str:
        """The name, quoted for SQL."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    def __str__(self) -> str:
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One column of a source table as the log describes it.

    `type_oid` is the source's; below 16384 it is built in and the same in every server. `type_name` is
    (schema, name) for all others. `key` says that the column is part of the replica identity.
    """

    name: str
    type_oid: int
    type_modifier: int = -1
    type_name: tuple[str, str] | None = None
    key: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A source table as it was when the changes that refer to it happened."""

    table: TableName
    columns: tuple[RelationColumn, ...]
    identity: Identity = Identity.DEFAULT

    def names(self) -> tuple[str, ...]:
        """The column names in the order of row values."""
        return tuple(column.name for column in self.columns)


@dataclass(
    slots=True, unsafe_hash=True
)  # frozen it would take three times as long to make; nobody alters one
class Change:
    """One change of one row. Transaction id, position, time and origin are those of its `Transaction`.

    `after` is the new row (insert, update). `before` is what the log knows of the old one: None for an
    insert and for an update that kept its key; otherwise the key columns, all others None, or the whole row
    when the table's replica identity is FULL.
    """

    operation: Operation
    relation: Relation
    before: Row | None = None
    after: Row | None = None


@dataclass(frozen=True, slots=True)
class LogMessage:
    """An application message written into the log inside a transaction (`pg_logical_emit_message(true,
    …)`).
    """

    prefix: str
    content: bytes


@dataclass(slots=True, unsafe_hash=True)  # as Change
class Transaction:
    """A committed source transaction, whole or a piece of a large one.

    `position` is the log position just *after* its commit: whoever has applied it has applied everything
    that ends at or before `position`. `origin` names the replication origin, None for local writes.
    `size`: bytes it had in the log, 0 when not known.

    `more` says that the transaction goes on in the next event, with the same `xid`; only the last piece has
    it False. A piece is yielded no sooner than the source has committed the whole, and nothing stands between
    the pieces of one transaction. The `position` of a piece with `more` is not to be stored, it only answers
    whether the transaction is contained in a stored position: it is, exactly when it is not greater.
    """

    position: Lsn
    commit_time: datetime
    xid: int
    changes: tuple[Change, ...]
    origin: str | None = None
    messages: tuple[LogMessage, ...] = ()
    size: int = field(default=0, compare=False)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Watermark:
    """Everything that committed before `position` has been yielded; nothing else is said."""

    position: Lsn


Event = Transaction | Watermark


def quote(name: str) -> str:
    """`name` as an SQL identifier. Raises ValueError for a name that PostgreSQL cannot have."""
    if not name or "\x00" in name:
        raise ValueError(f"{name!r} cannot be an SQL name")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string literal (standard_conforming_strings or not)."""
    if "\x00" in text:
        raise ValueError("an SQL string cannot hold a zero byte")
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted
