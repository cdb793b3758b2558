"""What probes say about one instance: a state machine, drawn from its table.

| state | takes requests | good probe | bad probe |
|---|---|---|---|
| NEW: just known | yes | UP | DOWN |
| UP | yes | UP | FAILING |
| FAILING: bad ones in a row | yes | UP | FAILING, after `down_after` in a row DOWN |
| DOWN | no | RISING | DOWN |
| RISING: good ones in a row | no | RISING, after `up_after` in a row UP | DOWN |

A new instance is believed until its first probe, which alone decides; after that it takes several in a row, so
that one lost packet moves no traffic (rise and fall, as HAProxy's checks have it). Pure.
"""

from dataclasses import dataclass
from enum import Enum

from strangler_proxy.cluster.several import HealthPolicy


class State(Enum):
    """Of one instance. Held by the parent alone; a new parent begins with NEW."""

    NEW = "new"
    UP = "up"
    FAILING = "failing"
    DOWN = "down"
    RISING = "rising"


_AFTER_GOOD = {
    State.NEW: State.UP,
    State.UP: State.UP,
    State.FAILING: State.UP,
    State.DOWN: State.RISING,
    State.RISING: State.RISING,
}
_AFTER_BAD = {
    State.NEW: State.DOWN,
    State.UP: State.FAILING,
    State.FAILING: State.FAILING,
    State.DOWN: State.DOWN,
    State.RISING: State.DOWN,
}


@dataclass(frozen=True, slots=True)
class Health:
    """`run` counts the probes in a row that speak against the last settled state."""

    state: State = State.NEW
    run: int = 0

    @property
    def up(self) -> bool:
        """Does it take requests?"""
        return self.state in (State.NEW, State.UP, State.FAILING)

    def after(self, *, good: bool, policy: HealthPolicy) -> "Health":
        """The health after one more probe."""
        state = (_AFTER_GOOD if good else _AFTER_BAD)[self.state]
        match state:
            case State.FAILING if self.run + 1 >= policy.down_after:
                return Health(State.DOWN)
            case State.RISING if self.run + 1 >= policy.up_after:
                return Health(State.UP)
            case State.FAILING | State.RISING:
                return Health(state, self.run + 1)
            case _:
                return Health(state)
