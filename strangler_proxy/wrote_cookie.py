"""The signed cookie `strangler_wrote`: a client carries its own marks, through restarts and from one proxy to
the next. Pure: time is an argument.

    strangler_wrote=monolith:16B3748:1763704800000:0.SIGNATURE

One entry for each side that was written to, `~` between them: its name, the position in its log (hexadecimal,
0 when unknown), and the milliseconds since 1970 when it was answered: of the last write whose position is
known, and of the last one whose position is not (0 for never). Only the wall clock is common to several machines;
a clock that is set back keeps a session at the owner for longer.

It is set on the answer to an unsafe request, together with what the request's cookie and this proxy remember, so
the highest wins whatever the order in which parallel answers arrive. It is not deleted once it is applied: the
deletion would race with the next write's cookie; a mark that is applied holds nobody back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from strangler_proxy.freshness import NEVER, Mark

MOST_SIDES = 8  # in one cookie; the oldest go
_ENTRY = re.compile(rb"([A-Za-z][A-Za-z0-9_-]{0,62}):([0-9A-F]{1,16}):([0-9]{1,15}):([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Clocks:
    """One moment on two clocks: monotonic seconds and seconds since 1970."""

    monotonic: float
    wall: float

    def from_wall(self, milliseconds: int) -> float:
        """A moment of the wall clock on the monotonic one; what lies in the future is now."""
        if not milliseconds:
            return NEVER
        return self.monotonic - max(0.0, self.wall - milliseconds / 1000)

    def to_wall(self, at: float) -> int:
        """The inverse, rounded up."""
        return 0 if at == NEVER else int((self.wall - (self.monotonic - at)) * 1000) + 1


def write_marks(marks: Mapping[str, Mark], clocks: Clocks) -> bytes:
    """The cookie's value, unsigned."""
    latest = sorted(marks.items(), key=lambda item: item[1].last, reverse=True)[:MOST_SIDES]
    return b"~".join(
        b"%b:%X:%d:%d"
        % (name.encode(), mark.position, clocks.to_wall(mark.placed_at), clocks.to_wall(mark.unplaced_at))
        for name, mark in latest
    )


def read_marks(value: bytes, clocks: Clocks) -> dict[str, Mark]:
    """The marks in a cookie's value whose signature was verified; what is not an entry is left out."""
    marks = {}
    for entry in value.split(b"~"):
        found = _ENTRY.fullmatch(entry)
        if found is not None:
            marks[found[1].decode()] = Mark(
                int(found[2], 16), clocks.from_wall(int(found[3])), clocks.from_wall(int(found[4]))
            )
    return marks
