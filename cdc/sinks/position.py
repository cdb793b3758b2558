"""The statement that moves a stream's stored position, in the transaction that writes the rows. Pure.

It fails with `division_by_zero` when the stored position is not the expected one, because then another process wrote
it: as an error, not as a count that we would have to look at, since the COMMIT is on its way already.
"""

from dataclasses import dataclass
from datetime import datetime

from cdc.changes import Lsn, literal
from cdc.sinks.roundtrip import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """From `expected` to `position`; `transactions` and `changes` were written between them. `commit_time` of the last
    one on the source, None when there was none.
    """

    stream: str
    expected: Lsn
    position: Lsn
    commit_time: datetime | None = None
    transactions: int = 0
    changes: int = 0


_SQL = """\
WITH moved AS (
  UPDATE strangler_cdc.position SET lsn = {position}::text::pg_lsn, applied_at = clock_timestamp(),
    commit_time = coalesce({commit_time}::timestamptz, commit_time), transactions = transactions + {transactions},
    changes = changes + {changes}
  WHERE stream = {stream} AND lsn = {expected}::text::pg_lsn RETURNING 1
) SELECT 1 / count(*) FROM moved"""
_NAMES = ("stream", "expected", "position", "commit_time", "transactions", "changes")
_PREPARED = _SQL.format_map({name: f"${number}" for number, name in enumerate(_NAMES, start=1)})


def prepared(move: Move) -> Bound:
    """With parameters: the same text for every move, which the target plans once."""
    time = None if move.commit_time is None else move.commit_time.isoformat()
    values = (
        move.stream,
        str(move.expected),
        str(move.position),
        time,
        str(move.transactions),
        str(move.changes),
    )
    return Bound(_PREPARED, [None if value is None else value.encode() for value in values])


def written_out(move: Move) -> str:
    """Without parameters, for a message of several statements."""
    time = "NULL" if move.commit_time is None else literal(move.commit_time.isoformat())
    return _SQL.format(
        stream=literal(move.stream),
        expected=literal(str(move.expected)),
        position=literal(str(move.position)),
        commit_time=time,
        transactions=int(move.transactions),
        changes=int(move.changes),
    )
