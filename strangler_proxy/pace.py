"""Does a client send its request's body fast enough? Pure: fed the time and the bytes so far.

A body that trickles holds a connection to a backend for as long as its sender likes, and each byte keeps the
time-outs of silence away. So the rate is judged, over windows, from the first byte on; time in which the proxy itself
did not read (back-pressure) is not held against the client.
"""

from dataclasses import dataclass

WINDOW = 5.0  # seconds over which the rate is taken


@dataclass(slots=True)
class Pace:
    """The pace of one body. `size` counts its bytes: add to it."""

    size: int = 0
    _since: float | None = None  # when the window began
    _before: int = 0

    def pause(self) -> None:
        """The proxy does not read at the moment."""
        self._since = None

    def too_slow(self, now: float, least: int) -> bool:
        """Did fewer than `least` bytes a second come in the window that ends `now`? Call it about once a second."""
        if not self.size:
            return False  # none yet: the time-out of silence judges that
        if self._since is None:
            self._since, self._before = now, self.size
            return False
        seconds = now - self._since
        if seconds < WINDOW:
            return False
        slow = self.size - self._before < least * seconds
        self._since, self._before = now, self.size
        return slow
