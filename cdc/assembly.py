"""Debezium's records put together to what they were on the source: whole transactions in commit order. Pure.

    BEGIN, records numbered from 1, END with their count  ─►  one Transaction (a large one in pieces)

Connect and Debezium deliver at least once: after a crash records come again, from the transaction's beginning or its
middle, or whole transactions from further back. Each record is placed by transaction and number, so a repeated one
changes nothing; a transaction is given away when its END is there and nothing is missing, once.

A transaction that is given in pieces bears, until its last, the position just behind the commit before it: greater
than any stored position that lacks it (a stored position is always that of an END).

A connector whose send of one record failed may have sent later ones before it noticed. Connect keeps no place behind a
record that did not arrive, so once the connector works again it repeats everything from there. After a gap, therefore,
only the transaction that lacks something is listened to, until it is whole; those behind it come again after it.
Whether that ever happens is for the source to judge: each END meanwhile is told as GapError.

Rows of snapshots belong to no transaction; they go with the next one that is given away. When a commit comes that the
target has already, those before it went with it or are older than what followed, and are dropped: Debezium, when it
repeats the commit, reads and writes their chunk anew after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cdc.changes import Change, Event, LogMessage, Lsn, Transaction, Watermark
from cdc.decode.debezium import Kind, Record
from cdc.decode.transactions import PIECE_CHANGES

START = Lsn(0)


class GapError(Exception):
    """Records of a transaction have not come: until they do, what it changed cannot be known. The assembly may be fed
    on.
    """


@dataclass(slots=True)
class _Open:
    """A transaction whose END has not come. `given` records have gone away in pieces already."""

    xid: int
    given: int = 0
    records: dict[int, Record] = field(default_factory=dict)
    highest: Lsn = START
    behind: Lsn = START
    """The latest commit that was before it."""

    def ready(self) -> int:
        """How many records from `given` on are there without a gap."""
        count = self.given
        while count + 1 in self.records:
            count += 1
        return count - self.given


class Assembly:
    """Fed with records in the topic's order. `after`: the stored position to begin with; what it holds is left out."""

    def __init__(self, after: Lsn, *, piece_changes: int = PIECE_CHANGES) -> None:
        self._after = after
        self._piece = piece_changes
        self._open: dict[int, _Open] = {}
        self._awaited: int | None = None  # the transaction that lacks records; others come again after it
        self._lacks = ""
        self._loose: list[Change] = []  # rows of snapshots, which belong to no transaction

    @property
    def between(self) -> bool:
        """Is no transaction half read? Then what was given away is all there was so far."""
        return not self._open and not self._loose

    def feed(self, record: Record) -> Sequence[Event]:
        """What is complete with this record; a transaction that says nothing is a watermark. Raises GapError when it
        shows that others never came.
        """
        match record.kind:
            case Kind.CHANGE | Kind.OTHER | Kind.MOVED_AWAY:
                return self._place(record)
            case Kind.END:
                return self._end(record)
            case Kind.SNAPSHOT:
                assert record.change is not None
                self._loose.append(record.change)
            case Kind.BEGIN | Kind.NOTHING:
                pass
        return ()

    def _place(self, record: Record) -> Sequence[Event]:
        if self._awaited not in (None, record.xid):
            return ()
        transaction = self._open.get(record.xid)
        if transaction is None:
            transaction = self._open[record.xid] = _Open(record.xid)
        if record.order > transaction.given:
            transaction.records[record.order] = record
            transaction.highest = max(transaction.highest, record.position)
            transaction.behind = max(transaction.behind, record.after or START)
        if (
            len(transaction.records) >= self._piece
            and record.after is not None
            and record.after >= self._after
            and transaction.ready() >= self._piece
            # else one before it lacks its END, and this one must not be begun
            and all(other is transaction or other.highest <= self._after for other in self._open.values())
        ):
            return (
                self._cut(transaction, position=Lsn(record.after + 1), time=record.commit_time, more=True),
            )
        return ()

    def _end(self, record: Record) -> Sequence[Event]:
        transaction = self._open.pop(record.xid, None)
        if record.position <= self._after:
            self._loose.clear()
            return ()  # contained, or a repetition
        if self._awaited not in (None, record.xid):
            raise GapError(self._lacks)
        transaction = transaction or _Open(record.xid)
        self._nothing_lost(record)
        there = transaction.given + transaction.ready()
        if there != record.count:
            raise self._gap(
                transaction,
                f"which ends at {record.position}, has {record.count} records, but the topic holds only {there} of "
                "them in a row",
            )
        self._awaited = None
        self._after = record.position
        whole = transaction.given == 0
        last = self._cut(transaction, position=record.position, time=record.commit_time, more=False)
        return (last if last.changes or last.messages or not whole else Watermark(record.position),)

    def _nothing_lost(self, record: Record) -> None:
        """Transactions come in commit order: one that began before this END and has none of its own lacks it."""
        for other in list(self._open.values()):
            if other.behind >= record.position:
                continue  # it follows this one, whose END is a repetition of one that did not arrive
            if other.highest > self._after:
                raise self._gap(
                    other,
                    f"with a record at {other.highest}, was never finished, and one that committed after it, at "
                    f"{record.position}, has come",
                )
            del self._open[other.xid]  # of a connector that is gone; a snapshot has contained it since

    def _gap(self, transaction: _Open, why: str) -> GapError:
        self._awaited = transaction.xid
        self._open = {transaction.xid: transaction}
        self._lacks = f"transaction {transaction.xid}, {why}"
        return GapError(self._lacks)

    def _cut(self, transaction: _Open, *, position: Lsn, time: datetime, more: bool) -> Transaction:
        changes, self._loose = self._loose, []
        messages: list[LogMessage] = []
        origin: str | None = None
        number = transaction.given
        while (record := transaction.records.pop(number + 1, None)) is not None:
            number += 1
            if record.change is not None:
                changes.append(record.change)
            if record.message is not None:
                messages.append(record.message)
            origin = record.origin or origin
        transaction.given = number
        return Transaction(
            position=position,
            commit_time=time,
            xid=transaction.xid,
            changes=tuple(changes),
            origin=origin,
            messages=tuple(messages),
            more=more,
        )
