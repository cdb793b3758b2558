"""What of a partition's records has been applied before. Pure.

Connect delivers at least once: after a crash it writes records again, at higher offsets. Within one partition each run
of it writes in source order, so a record has been applied before when it does not lie behind the last one.

Which fields order records? Debezium reads transactions in commit order, but a record's own log position (`source.lsn`)
is where it was *written*: transactions that overlap interleave. `transaction.total_order` counts within one.
`source.sequence[0]` (`after`) is the end of the last commit before the record's transaction, save in the first
transaction of a connector without an offset, where it need not be. So `after` is believed when
the row was written behind it, and an END always, whose position is where its own transaction's commit ends:

    bound     := the highest such position that a partition has shown; what commits later has `after` ≥ bound
    repeated  ⇐  after < bound, and the row was written before the bound       (an earlier transaction)
    repeated  ⇐  the same transaction as the last record's, number ≤ its number

Nothing else is *surely* a repetition. What may be one is accepted, and the bound forgotten with it. That is safe:
Connect, when it repeats, repeats all that followed, so each key is brought forward again to its last state. A new
record is never left out: its transaction committed behind the bound, so its `after`, if true, is not before it, and a
row of it that was written behind the bound is taken whatever `after` says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cdc.changes import Change, Lsn, Transaction
from cdc.decode.debezium import Kind, Record

_START = Lsn(0)


class Repeats:
    """Told of each record of one partition in turn; remembers the last one and the bound."""

    def __init__(self) -> None:
        self._bound = _START
        self._last: tuple[int, Lsn | None, int] = (0, None, 0)

    def known(self, record: Record) -> bool:
        """Whether `record` came before, or says nothing of rows; if not, it is the last one from now on."""
        match record.kind:
            case Kind.BEGIN | Kind.NOTHING:
                return True
            case Kind.END:
                self._bound = max(self._bound, record.position)
                return True
            case Kind.CHANGE | Kind.OTHER | Kind.SNAPSHOT | Kind.MOVED_AWAY:
                return self._repeated(record)

    def _repeated(self, record: Record) -> bool:
        xid, after, number = self._last
        written = record.position
        if record.xid == xid != 0 and record.after == after:
            if record.order <= number:
                return True
        elif record.after is not None and record.after < self._bound and written < self._bound:
            return True
        if record.after is not None and record.after <= written:
            self._bound = max(self._bound, record.after)
        elif written < self._bound:
            self._bound = _START
        self._last = (record.xid, record.after, record.order)
        return False


@dataclass(frozen=True, slots=True)
class Piece:
    """A change and the offset just behind its record."""

    end: int
    xid: int
    after: Lsn | None
    lsn: Lsn
    commit_time: datetime
    change: Change


def as_transactions(pieces: Iterable[Piece]) -> list[Transaction]:
    """What the sink is given. The part of a transaction that lies in a row is one. `position` is the offset behind it:
    a partition is a log of its own.
    """
    found: list[Transaction] = []
    group: list[Piece] = []
    for piece in pieces:
        if group and piece.xid != group[-1].xid:
            found.append(_transaction(group))
            group = []
        group.append(piece)
    if group:
        found.append(_transaction(group))
    return found


def _transaction(group: list[Piece]) -> Transaction:
    last = group[-1]
    return Transaction(Lsn(last.end), last.commit_time, last.xid, tuple(piece.change for piece in group))
