"""What was found out and holds for a while: a bounded memory whose entries expire. Pure, fed the time."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class Remembered(Generic[Value]):
    """At most `most` values; the one unused for longest is forgotten first."""

    most: int = 10_000
    _values: OrderedDict[bytes, tuple[float, Value]] = field(default_factory=OrderedDict, repr=False)

    def get(self, key: bytes, now: float) -> Value | None:
        """The value, unless it expired before `now`."""
        found = self._values.get(key)
        if found is None:
            return None
        if now >= found[0]:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return found[1]

    def put(self, key: bytes, value: Value, *, until: float) -> None:
        """Remember `value` until then, on the clock that `get` is asked by."""
        self._values[key] = (until, value)
        self._values.move_to_end(key)
        if len(self._values) > self.most:
            self._values.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """As if it had never been known."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)
