"""Time as an argument: the one place that reads the machine's clocks, and a clock for tests.

Pure code takes `now`; shells take a `Clock` and pass its readings on.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Two readings: `now` for people and records, `monotonic` for measuring."""

    def now(self) -> datetime:
        """The time of day, with zone UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The time of day, with zone UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until `advance` moves it. For tests."""

    current: datetime
    elapsed: float = 0.0

    def now(self) -> datetime:
        """The time set by the test."""
        return self.current

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self.elapsed

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Raises ValueError when they are negative: no clock here runs back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self.current += timedelta(seconds=seconds)
        self.elapsed += seconds
