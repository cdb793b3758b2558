"""You read what you wrote: may the side that does not own a group answer a session that wrote to the owner?

    unsafe request ─► owner answers ─► Mark of the session on the owner    (write_table.py, wrote_cookie.py)
    the other side tells how far it has applied the owner's log ─► Applied              (positions.py)
    safe request   ─► may_answer(mark, applied) ─► yes: whom the bucket names     no: the owner

Pure and symmetric: what is the owner and what the other side is the caller's to say. The laws:

* no guard without a write: a session without a mark goes where its bucket says;
* never an older state: with a mark whose position is known, the other side answers only when it is known to
  have applied at least that position, and was asked for it not longer than `age` ago;
* where the position of a write is not known, it answers when everything committed before the write's answer
  is known to be applied (the change stream's measured lag), or, where no lag is told, `pin` after it;
* marks only grow, so copies of one mark may be joined in any order and any number of times;
* what is known of the other side only grows too, within one log. A lower position that was asked for after
  the higher one was heard is another log (a restored database) or another instance's older view: it is
  believed at once, which can only hold more reads at the owner.

Unknown is not fresh. All times are seconds of one monotonic clock, positions numbers in the owner's log (an
LSN, PostgreSQL's `pg_lsn`).
"""

import re
from dataclasses import dataclass

_LSN = re.compile(rb"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
NEVER = float("-inf")
# The stream samples its source four times a second and calls itself caught up while the last sample is not
# older than 2 s; a commit may be younger than the lag it tells by so much.
LAG_MARGIN = 2.5


@dataclass(frozen=True, slots=True)
class Guarding:
    """How a group is guarded, in seconds. `pin`: how long a write of unknown position keeps a session at the
    owner where no lag is told; `age`: how old a position may be; `remember`: the life of the cookie."""

    pin: float = 5.0
    age: float = 5.0
    remember: float = 3600.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a session wrote to one side. `position`: its log has come so far when the last write was answered,
    0 when none is known; `placed_at`: when that was; `unplaced_at`: when the last write was answered, or given
    up, of which no position is known."""

    position: int = 0
    placed_at: float = NEVER
    unplaced_at: float = NEVER

    def merged(self, other: "Mark") -> "Mark":
        """Both marks in one."""
        if other in (NOTHING, self):
            return self
        return Mark(
            max(self.position, other.position),
            max(self.placed_at, other.placed_at),
            max(self.unplaced_at, other.unplaced_at),
        )

    @property
    def last(self) -> float:
        """When the session wrote last; NEVER when it did not."""
        return max(self.placed_at, self.unplaced_at)


NOTHING = Mark()


@dataclass(frozen=True, slots=True)
class Applied:
    """What is known of the side that follows a log. `position` is applied, as a request found that was sent at
    `asked_at` and answered at `heard_at`; everything committed before `caught_up` is applied."""

    position: int
    asked_at: float
    heard_at: float
    caught_up: float = NEVER

    def then(self, said: "Applied") -> "Applied":
        """What is known once `said` was heard as well."""
        if said.position < self.position:
            return said if said.asked_at >= self.heard_at else self
        return Applied(
            said.position,
            max(self.asked_at, said.asked_at),
            max(self.heard_at, said.heard_at),
            max(self.caught_up, said.caught_up),
        )


def parse_lsn(text: bytes) -> int:
    """A position as PostgreSQL writes it (`0/16B3748`) as a number; 0 for anything else."""
    found = _LSN.fullmatch(text)
    return int(found[1], 16) << 32 | int(found[2], 16) if found else 0


def may_answer(mark: Mark, applied: Applied | None, *, tells: bool, guarding: Guarding, now: float) -> bool:
    """May the side that is not the owner answer at `now` a session with `mark` on the owner?

    `applied` is what is known of that side, None for nothing; `tells`: it is one that tells positions at all.
    """
    if mark.position and tells:
        known = applied is not None and now - applied.asked_at <= guarding.age
        if not known or applied is None or applied.position < mark.position:
            return False
    elif mark.position and not _waited(mark.placed_at, applied, guarding, now):
        return False
    return _waited(mark.unplaced_at, applied, guarding, now)


def _waited(written: float, applied: Applied | None, guarding: Guarding, now: float) -> bool:
    """Has a write of unknown position, answered at `written`, arrived?"""
    if written == NEVER:
        return True
    if applied is not None and applied.caught_up != NEVER:
        return applied.caught_up >= written + LAG_MARGIN
    return now >= written + guarding.pin
