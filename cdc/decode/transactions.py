"""From single pgoutput messages to whole transactions: a small state machine.

    begin ──► changes, relations, types, origin ──► commit ⇒ one Transaction
                       │ many                          ⇒ its last piece
                       ▼
                    a piece

A transaction is cut into pieces when it grows large, so that nobody has to hold it whole. Version 1 of the
protocol sends it after its commit, which is why a piece may be given away before the commit *message* is here.

Only tables the reader asked for are kept. A transaction that touched none of them still yields an empty
`Transaction` when the log sent it: its position is real progress.
"""

from collections.abc import Collection
from collections.abc import Mapping as MappingOf
from datetime import datetime
from typing import Final

from cdc.changes import (
    UNCHANGED,
    Change,
    LogMessage,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Transaction,
)
from cdc.decode.pgoutput import (
    BEGIN,
    EPOCH,
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
    decode,
    read_row,
    time_of,
    u32,
)

# Final: compiled, a number or an object that is there, and not a name to look up for every row
_INSERT: Final = 0x49  # 'I'
_UPDATE: Final = 0x55  # 'U'
_BEGIN: Final = 0x42  # 'B'
_COMMIT: Final = 0x43  # 'C'
_NEW: Final = 0x4E  # 'N'
_INSERTED: Final = Operation.INSERT
_UPDATED: Final = Operation.UPDATE

PIECE_CHANGES = 5_000
"""Changes in a piece of a large transaction; a batch of the pipeline has about as many."""
PIECE_BYTES = 4_000_000
"""Bytes of log in a piece, when its rows are large."""


class Assembler:
    """Fed messages in log order, returns each transaction at its commit, a large one in pieces before it. One
    per connection: the log describes its tables anew after every reconnect. `tables`: those to keep; None
    keeps all. `oids`: which tables these are, whatever the log calls them; without it they go by their names.
    """

    def __init__(
        self,
        tables: Collection[TableName] | None = None,
        *,
        oids: MappingOf[int, TableName] | None = None,
        piece_changes: int = PIECE_CHANGES,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """A piece ends with the change that fills it: `piece_changes` changes, or `piece_bytes` of log."""
        self._piece_changes = piece_changes
        self._piece_bytes = piece_bytes
        self._oids = oids
        self._wanted = None if tables is None else frozenset(tables)
        self._relations: dict[int, Relation | None] = {}
        self._types: dict[int, tuple[str, str]] = {}
        self._xid: int | None = None  # of the transaction that we are in
        self._final = 0
        self._commit_time = EPOCH
        self._origin: str | None = None
        self._changes: list[Change] = []
        self._messages: list[LogMessage] = []
        self._size = 0

    @property
    def within_transaction(self) -> bool:
        """Whether a transaction has begun and not yet been committed."""
        return self._xid is not None

    def feed(self, message: Message, *, size: int = 0) -> Transaction | None:
        """Take one message of `size` bytes; the transaction that it ends, or the piece that it fills. Raises
        DecodeError out of order.
        """
        self._size += size
        match message:
            case Insert() | Update() | Delete():
                self._row(message)
            case Begin(final, commit_time, xid):
                self._enter(xid, final, commit_time)
                self._size = size
            case Commit():
                return self._commit(message.end_position)
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
        if len(self._changes) >= self._piece_changes or self._size >= self._piece_bytes:
            return self._piece()
        return None

    def feed_bytes(self, payload: bytes, at: int = 0) -> Transaction | None:
        """`feed` what is encoded in `payload` from `at` to its end. The hot path: for a new or updated row, and
        for what stands around it, no message is made in between. Raises DecodeError.
        """
        length = len(payload)
        kind = payload[at] if at < length else 0
        if kind in (_UPDATE, _INSERT) and length > at + 6 and payload[at + 5] == _NEW:
            relation = self._relation(u32(payload, at + 1))
            new = read_row(payload, at + 6)
            if self._xid is None:
                raise DecodeError("a change outside of a transaction")
            self._size += length
            if relation is None:
                return None
            self._changes.append(Change(_UPDATED if kind == _UPDATE else _INSERTED, relation, None, new))
            if len(self._changes) >= self._piece_changes or self._size >= self._piece_bytes:
                return self._piece()
            return None
        if kind == _BEGIN and length == at + 21:
            final, moment, xid = BEGIN.unpack_from(payload, at + 1)
            self._enter(xid, final, time_of(moment))
            self._size = length
            return None
        if kind == _COMMIT and length == at + 26:
            return self._commit(Lsn((u32(payload, at + 10) << 32) | u32(payload, at + 14)))
        return self.feed(decode(payload[at:]), size=length)

    def _row(self, message: Insert | Update | Delete) -> None:
        if self._xid is None:
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

    def _enter(self, xid: int, final: int, commit_time: datetime) -> None:
        if self._xid is not None:
            raise DecodeError(f"transaction {xid} begins inside {self._xid}")
        self._xid, self._final, self._commit_time, self._origin = xid, final, commit_time, None
        self._changes, self._messages = [], []

    def _commit(self, end: Lsn) -> Transaction:
        xid = self._xid
        if xid is None:
            raise DecodeError(f"a commit that ends at {end} without a begin")
        self._xid = None
        return self._cut(xid, end, more=False)

    def _piece(self) -> Transaction | None:
        if self._xid is None:
            return None
        # The commit record begins here and no stored position lies within a record: one that is greater
        # contains the transaction, one that is not does not.
        return self._cut(self._xid, Lsn(self._final + 1), more=True)

    def _cut(self, xid: int, position: Lsn, *, more: bool) -> Transaction:
        changes, messages, size = tuple(self._changes), tuple(self._messages), self._size
        self._changes, self._messages, self._size = [], [], 0
        # by place: names cost a transaction of one row 0.2 µs
        return Transaction(position, self._commit_time, xid, changes, self._origin, messages, size, more)

    def _relation(self, oid: int) -> Relation | None:
        try:
            return self._relations[oid]
        except KeyError:
            raise DecodeError(f"a change of table {oid}, which the log has not described") from None

    def _describe(self, message: RelationMessage) -> Relation | None:
        table = TableName(message.schema, message.name)
        if self._oids is not None:
            # a table that was renamed is still the one that was copied, and another with its name is not
            if message.oid not in self._oids:
                return None
            table = self._oids[message.oid]
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
