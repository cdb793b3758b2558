"""A group's bulkhead: so many of its requests are under way at a time in this worker, and no more.

It protects whoever serves the rest of the shop, so who finds no room is not answered by the fallback: that would
move the crowd to the very backend that is to be protected. `limits.in_flight` of a backend is the other kind.
"""

from __future__ import annotations

from strangler_proxy.duties import Admission, Call, Duty, Refusal

BUSY_SECONDS = 1.0


class Bulkhead(Duty):
    """Counts in `under_way`, which outlives a change of routes as the requests do."""

    def __init__(self, limit: int, group: str, under_way: dict[str, int]) -> None:
        self._limit = limit
        self._group = group
        self._under_way = under_way

    def admit(self, call: Call) -> Admission:
        """Take a place, if there is one."""
        taken = self._under_way.get(self._group, 0)
        if taken >= self._limit:
            detail = f"as many requests of group {self._group} as may be are under way"
            return Refusal(503, detail, retry_after=BUSY_SECONDS, kind="full")
        self._under_way[self._group] = taken + 1
        return None

    def end(self, call: Call, *, complete: bool) -> None:
        """Give it back."""
        self._under_way[self._group] -= 1
