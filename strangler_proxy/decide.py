"""Who answers a request: facts in, a frozen `Decision` out.

| request | arm |
|---|---|
| tester names a side, and the group honours it | that side |
| unsafe method | the group's owner, whatever the percentage |
| safe method (GET, HEAD, OPTIONS) | canary when the user's bucket is below percent x 100, else control |

`weight` is the probability, in percent, with which this request could go to the canary: the group's
percentage for a safe request; 0 or 100 for an unsafe one, since its owner alone may answer. Tests that
compare the arms need it.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import lru_cache

from strangler_proxy.buckets import in_canary
from strangler_proxy.table import Group

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Arm(Enum):
    """`CONTROL` is the default backend, `CANARY` the group's own."""

    CONTROL = "control"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Decision:
    """`fallback`: a failure may be answered by the default backend. `evidence`: the outcome counts."""

    arm: Arm
    backend: str
    weight: Decimal
    weight_number: float
    fallback: bool
    evidence: bool


def decide(*, group: Group, default: str, safe: bool, digest: int, override: str) -> Decision:
    """Decide. `override` is what a tester asked for (`control`, `canary` or a backend's name), or empty.

    A tester sees what the chosen side really says: no fallback, and nothing of it counts as evidence.
    """
    if safe:
        if override:
            if override in (Arm.CANARY.value, group.backend):
                return _decision(Arm.CANARY, group.backend, group.percent, fallback=False, evidence=False)
            if override in (Arm.CONTROL.value, default):
                return _decision(Arm.CONTROL, default, group.percent, fallback=False, evidence=False)
        if in_canary(digest, group.threshold):
            return _decision(Arm.CANARY, group.backend, group.percent, fallback=group.fallback, evidence=True)
        return _decision(Arm.CONTROL, default, group.percent, fallback=False, evidence=True)
    if group.owner == default:
        return _decision(Arm.CONTROL, default, _NEVER, fallback=False, evidence=True)
    return _decision(Arm.CANARY, group.backend, _ALWAYS, fallback=False, evidence=True)


_NEVER, _ALWAYS = Decimal(0), Decimal(100)


@lru_cache(maxsize=1024)
def _decision(arm: Arm, backend: str, weight: Decimal, *, fallback: bool, evidence: bool) -> Decision:
    """Decisions are few and requests are many: the same values are handed out again."""
    return Decision(arm, backend, weight, float(weight), fallback, evidence)


def unrouted(default: str) -> Decision:
    """For a request that no group claims: the default backend, and no evidence for anything."""
    return _decision(Arm.CONTROL, default, _NEVER, fallback=False, evidence=False)
