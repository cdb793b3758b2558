"""What one worker keeps of one group's answers: bounded by bytes, the longest unused goes first. Pure.

A key is a resource as one arm shows it: the backend stands in it, so a user of one arm is never given the other
arm's answer. Under a key there may be several variants (Vary).

`epoch` counts how often the store was emptied. An answer may only be kept by whoever saw the same epoch before
its request was sent: what was read before a change and comes after it is dropped.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from strangler_proxy.gateway.rfc9111 import Stored

Key = tuple[bytes, ...]  # backend, scheme, hosts, target
_MOST_VARIANTS = 8


@dataclass(slots=True)
class CacheStore:
    """At most `room` bytes."""

    room: int
    epoch: int = 0
    used: int = 0
    _kept: OrderedDict[Key, list[Stored]] = field(default_factory=OrderedDict, repr=False)

    def find(self, key: Key, fits: Callable[[Stored], bool]) -> Stored | None:
        """The newest variant that fits the request."""
        for stored in reversed(self._kept.get(key, ())):
            if fits(stored):
                self._kept.move_to_end(key)
                return stored
        return None

    def put(self, key: Key, stored: Stored, *, epoch: int) -> bool:
        """Keep `stored`, whose request was sent in `epoch`; was it kept?"""
        if epoch != self.epoch or stored.size > self.room:
            return False
        variants = self._kept.setdefault(key, [])
        same = [old for old in variants if old.vary == stored.vary]
        for old in same or variants[: max(0, len(variants) + 1 - _MOST_VARIANTS)]:
            variants.remove(old)
            self.used -= old.size
        variants.append(stored)
        self.used += stored.size
        self._kept.move_to_end(key)
        while self.used > self.room:
            _, gone = self._kept.popitem(last=False)
            self.used -= sum(old.size for old in gone)
        return True

    def clear(self) -> None:
        """Forget everything, and refuse what is under way."""
        self.epoch += 1
        self.used = 0
        self._kept.clear()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))
