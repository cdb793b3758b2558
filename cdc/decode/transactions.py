"""From single pgoutput messages to whole transactions: a small state machine.

    begin ──► changes, relations, types, origin ──► commit ⇒ one Transaction

Only tables the reader asked for are kept. A transaction that touched none of them still yields an empty
`Transaction` when the log sent it: its position is real progress.
"""

from collections.abc import Collection

from cdc.changes import (
    UNCHANGED,
    Change,
    LogMessage,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Transaction,
)
from cdc.decode.pgoutput import (
    Begin,
    Commit,
    DecodeError,
    Delete,
    Emitted,
    Insert,
    Message,
    Origin,
    RelationMessage,
    Truncate,
    TypeName,
    Update,
)


class Assembler:
    """Fed messages in log order, returns each transaction at its commit. One per connection: the log
    describes its tables anew after every reconnect. `tables`: those to keep; None keeps all.
    """

    def __init__(self, tables: Collection[TableName] | None = None) -> None:
        self._wanted = None if tables is None else frozenset(tables)
        self._relations: dict[int, Relation | None] = {}
        self._types: dict[int, tuple[str, str]] = {}
        self._begin: Begin | None = None
        self._origin: str | None = None
        self._changes: list[Change] = []
        self._messages: list[LogMessage] = []
        self._size = 0

    @property
    def within_transaction(self) -> bool:
        """Whether a transaction has begun and not yet been committed."""
        return self._begin is not None

    def feed(self, message: Message, *, size: int = 0) -> Transaction | None:
        """Take one message of `size` bytes; the finished transaction when it was a commit. Raises
        DecodeError out of order.
        """
        self._size += size
        match message:
            case Insert() | Update() | Delete():
                self._row(message)
            case Begin():
                if self._begin is not None:
                    raise DecodeError(f"transaction {message.xid} begins inside {self._begin.xid}")
                self._begin, self._origin = message, None
                self._changes, self._messages = [], []
                self._size = size
            case Commit():
                return self._commit(message)
            case RelationMessage():
                self._relations[message.oid] = self._describe(message)
            case TypeName(oid, schema, name):
                self._types[oid] = (schema, name)
            case Origin(_, name):
                self._origin = name
            case Truncate(oids):
                relations = [self._relation(oid) for oid in oids]
                self._changes += [Change(Operation.TRUNCATE, relation) for relation in relations if relation]
            case Emitted(True, _, prefix, content):
                self._messages.append(LogMessage(prefix, content))
            case Emitted():
                pass  # written outside of any transaction: says nothing about rows
        return None

    def _row(self, message: Insert | Update | Delete) -> None:
        if self._begin is None:
            raise DecodeError(f"a change of table {message.oid} outside of a transaction")
        relation = self._relation(message.oid)
        if relation is None:
            return
        match message:
            case Insert(_, new):
                change = Change(Operation.INSERT, relation, None, new)
            case Update(_, new, old, full):
                if old is not None and UNCHANGED in new:
                    # a FULL old row has everything, another one the key, which may be large as well
                    known = old if full else tuple(UNCHANGED if value is None else value for value in old)
                    new = fill(new, known)
                change = Change(Operation.UPDATE, relation, old, new)
            case Delete(_, old):
                change = Change(Operation.DELETE, relation, old)
        self._changes.append(change)

    def _commit(self, message: Commit) -> Transaction:
        begin = self._begin
        if begin is None:
            raise DecodeError(f"commit at {message.position} without a begin")
        self._begin = None
        return Transaction(
            position=message.end_position,
            commit_time=message.commit_time,
            xid=begin.xid,
            changes=tuple(self._changes),
            origin=self._origin,
            messages=tuple(self._messages),
            size=self._size,
        )

    def _relation(self, oid: int) -> Relation | None:
        try:
            return self._relations[oid]
        except KeyError:
            raise DecodeError(f"a change of table {oid}, which the log has not described") from None

    def _describe(self, message: RelationMessage) -> Relation | None:
        table = TableName(message.schema, message.name)
        if self._wanted is not None and table not in self._wanted:
            return None
        columns = tuple(
            RelationColumn(
                wire.name, wire.type_oid, wire.type_modifier, self._types.get(wire.type_oid), key=wire.key
            )
            for wire in message.columns
        )
        described = Relation(table, columns, message.identity)
        known = self._relations.get(message.oid)
        # the log repeats descriptions; one object per version lets sinks compare by identity
        return known if known == described else described


def fill(row: Row, older: Row) -> Row:
    """`row` with each UNCHANGED value taken from `older`, which may itself hold UNCHANGED."""
    return tuple(old if value is UNCHANGED else value for value, old in zip(row, older, strict=True))
