"""You read what you wrote: may a side answer somebody who wrote on the other? Facts in, yes or no out.

A write is remembered as a `Mark` on the side that took it: the log position once everything was committed
(`X-Strangler-LSN`, from the seam), or, where no position is known, the moment after which it was done. A side
that follows the other's change stream tells how far it has come (`X-Strangler-Applied`, `GET /position`), a
lower bound. It may answer

* when nothing was written, or
* when the position it has applied reaches the mark's, or
* when only the moment is known: once it has applied a transaction committed later than that moment, or once
  the pin is over, which is as long as the plan says and at least twice the longest lag seen lately.

Unknown is not fresh: without an applied position a mark with a position keeps its reader with the writer.
Positions are PostgreSQL's log sequence numbers, 64-bit byte offsets that only grow; times are seconds since
1970, since the source's clock stamps its commits.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LSN = re.compile(rb"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_ENTRY = re.compile(rb"([A-Za-z][A-Za-z0-9_-]{0,62}):([0-9a-f]{1,16}):([0-9]{1,17})")
_SEPARATOR = b"!"
_MOST_SIDES = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """What somebody wrote on one side: the position (0: unknown), and the moment after which writes without a
    position were done (0: there are none). Marks of one side are merged by taking the later of each."""

    position: int = 0
    at: float = 0.0

    def merged(self, other: "Mark") -> "Mark":
        """Both writes."""
        return Mark(max(self.position, other.position), max(self.at, other.at))


@dataclass(frozen=True, slots=True)
class Applied:
    """How far a side has followed the other's log. `committed_at` is the commit time of the last transaction
    it applied (0: unknown); `lag` the longest seconds from a commit to its application seen lately."""

    position: int
    committed_at: float = 0.0
    lag: float = 0.0


def parse_lsn(text: bytes) -> int:
    """`0/16B3748` as a number; 0 when it is none."""
    match = _LSN.fullmatch(text)
    return int(match[1], 16) << 32 | int(match[2], 16) if match else 0


def is_fresh(mark: Mark, applied: Applied | None, *, now: float, pin: float) -> bool:
    """May the side that has `applied` answer who has left `mark` on the other? `pin` is in seconds."""
    if mark.position and (applied is None or applied.position < mark.position):
        return False
    if not mark.at:
        return True
    if applied is not None and applied.committed_at > mark.at:
        return True
    lag = applied.lag if applied is not None else 0.0
    return now - mark.at > max(pin, 2 * lag)


def cookie_text(marks: Mapping[bytes, Mark]) -> bytes:
    """`marks` by side, as a cookie carries them (to be signed)."""
    kept = list(marks.items())[-_MOST_SIDES:]
    return _SEPARATOR.join(b"%b:%x:%d" % (side, mark.position, round(mark.at * 1000)) for side, mark in kept)


def read_cookie(text: bytes) -> dict[bytes, Mark]:
    """The inverse of `cookie_text`; what is no entry is left out."""
    matches = (_ENTRY.fullmatch(entry) for entry in text.split(_SEPARATOR))
    return {match[1]: Mark(int(match[2], 16), int(match[3]) / 1000) for match in matches if match}
