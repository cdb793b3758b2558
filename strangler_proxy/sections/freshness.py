"""`position` of a backend and `read_your_writes` at the top: see `strangler_proxy/freshness.py`."""

from strangler_proxy.sections.fields import Milliseconds, Path, Strict
from strangler_proxy.table import Position


class PositionFile(Strict):
    """Where a backend tells how far it has followed the default backend's log."""

    path: Path = "/position"
    every: Milliseconds = 50

    def value(self) -> Position:
        """The frozen value."""
        return Position(self.path, self.every / 1000)


class ReadYourWritesFile(Strict):
    """`pin` (ms): how long a writer whose write has no known position stays with the side that took it.
    On where a backend has a `position`, or where this section stands, unless it says `enabled: false`."""

    pin: Milliseconds = 5000
    enabled: bool = True
