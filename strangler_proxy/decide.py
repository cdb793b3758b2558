"""Who answers a request: facts in, a frozen `Decision` out.

| request | arm |
|---|---|
| tester names a side, and the group honours it | that side |
| unsafe method | the group's owner, whatever the percentage |
| safe method of a client whose writes the other side does not know yet | the group's owner (`guard.py`) |
| safe method (GET, HEAD, OPTIONS) | canary when the user's bucket is below percent x 100, else control |

`weight` is the probability, in percent, with which this request could go to the canary: the group's
percentage for a safe request; 0 or 100 for an unsafe one, since its owner alone may answer. Tests that
compare the arms need it.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum

from strangler_proxy.buckets import in_canary
from strangler_proxy.table import Group, StickyKind

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Arm(Enum):
    """`CONTROL` is the default backend, `CANARY` the group's own."""

    CONTROL = "control"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Decision:
    """`fallback`: a failure may be answered by the default backend. `evidence`: the outcome counts.
    `guarded`: the owner answers because the other side does not know yet what this client wrote."""

    arm: Arm
    backend: str
    weight: Decimal
    weight_number: float
    fallback: bool
    evidence: bool
    guarded: bool = False

    @property
    def counts(self) -> bool:
        """Does the backend's breaker watch over it? Not over a tester's."""
        return self.evidence or self.guarded

    @property
    def shown(self) -> bytes:
        """What `X-Strangler-Arm` says of it."""
        return b"guarded" if self.guarded else self.arm.value.encode()


@dataclass(frozen=True, slots=True)
class Choices:
    """Every decision a group's requests can meet, made once for all of them."""

    threshold: int
    backend: str
    default: str
    control: Decision
    canary: Decision
    owner: Decision  # of unsafe requests
    tester_control: Decision
    tester_canary: Decision
    by_cookie: bool = False  # who asks is known by the request's cookies alone

    def decide(self, *, safe: bool, digest: int, override: str) -> Decision:
        """Decide. `override` is what a tester asked for (`control`, `canary` or a backend's name), or empty.

        A tester sees what the chosen side really says: no fallback, and nothing of it counts as evidence.
        """
        if not safe:
            return self.owner
        if override:
            if override in (Arm.CANARY.value, self.backend):
                return self.tester_canary
            if override in (Arm.CONTROL.value, self.default):
                return self.tester_control
        return self.canary if in_canary(digest, self.threshold) else self.control


def choices_of(group: Group, default: str) -> Choices:
    """The choices of `group` where `default` is the default backend."""
    control = _decision(Arm.CONTROL, default, group.percent)
    canary = _decision(Arm.CANARY, group.backend, group.percent)
    owned = group.owner == default
    return Choices(
        threshold=group.threshold,
        backend=group.backend,
        default=default,
        control=control,
        canary=replace(canary, fallback=group.fallback),
        owner=_decision(Arm.CONTROL, default, _NEVER)
        if owned
        else _decision(Arm.CANARY, group.backend, _ALWAYS),
        tester_control=replace(control, evidence=False),
        tester_canary=replace(canary, evidence=False),
        by_cookie=group.sticky.kind in (StickyKind.USER, StickyKind.SESSION, StickyKind.COOKIE),
    )


def decide(*, group: Group, default: str, safe: bool, digest: int, override: str) -> Decision:
    """One decision, for those who make few; see `Choices.decide`."""
    return choices_of(group, default).decide(safe=safe, digest=digest, override=override)


_NEVER, _ALWAYS = Decimal(0), Decimal(100)


def _decision(arm: Arm, backend: str, weight: Decimal) -> Decision:
    return Decision(arm, backend, weight, float(weight), fallback=False, evidence=True)


def kept_with(owner: str, *, group: Group, default: str) -> Decision:
    """The owner answers somebody whose writes the other side does not know yet.

    No evidence, whichever side its bucket named: who has just written asks for other things than others do, and
    would be missing in one arm alone. No fallback: the default backend may be the one that is behind.
    """
    arm = Arm.CONTROL if owner == default else Arm.CANARY
    return replace(_decision(arm, owner, group.percent), evidence=False, guarded=True)


def unrouted(default: str) -> Decision:
    """For a request that no group claims: the default backend, and no evidence for anything."""
    return replace(_decision(Arm.CONTROL, default, _NEVER), evidence=False)
