"""When a crashed process is started again, and when to give up. Pure: times in, a frozen decision out.

Delays double from one crash to the next, so that a process that cannot run does not eat the machine; a crash
after a long healthy time starts again with the shortest delay, because old crashes fall out of the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Seconds, and how many crashes within `window` seconds are one too many."""

    first_delay: float = 0.25
    factor: float = 2.0
    longest_delay: float = 5.0
    crashes: int = 5
    window: float = 60.0

    def __post_init__(self) -> None:
        """Raise ValueError for a policy under which time or delays would run backwards."""
        if self.first_delay < 0 or self.factor < 1 or self.longest_delay < self.first_delay:
            raise ValueError("delays must not be negative and must not shrink")
        if self.crashes < 1 or self.window <= 0:
            raise ValueError("at least one crash within a positive window is needed to give up")


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again `delay` seconds after the crash."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It crashed `crashes` times within `seconds`: stop trying and say so."""

    crashes: int
    seconds: float


def after_crash(crashes: Sequence[float], policy: RestartPolicy) -> Restart | GiveUp:
    """The decision after the newest of `crashes` (monotonic seconds, ascending, never empty)."""
    newest = crashes[-1]
    recent = [at for at in crashes if newest - at < policy.window]
    if len(recent) >= policy.crashes:
        return GiveUp(crashes=len(recent), seconds=newest - recent[0])
    delay = policy.first_delay * policy.factor ** (len(recent) - 1)
    return Restart(delay=min(delay, policy.longest_delay))
