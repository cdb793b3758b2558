"""Which requests are compared, and when to leave it be. Pure.

* `Shadow`: what a group's section `shadow` says.
* `Sampler`: a draw of its own for each request, independent of the user's bucket. Requests are told apart by
  stratum (path template, kind of login, shape of the query), and the first of each stratum are always taken:
  a rare kind of request is where a rewritten service is wrong.
* `LatencyWatch`: the control's 95th percentile now against its own past; comparing stops while it is strained.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from statistics import median

from strangler_proxy.compare_rules import Rules, template_pattern

FIRST_TAKEN = 3  # of each stratum
_MOST_STRATA = 1024
_WINDOW = 64  # answers
_PAST = 20  # windows
_STRAINED_FACTOR = 2.0
_STRAINED_SECONDS = 0.010
_LSN = re.compile(rb"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


@dataclass(frozen=True, slots=True)
class Shadow:
    """`percent` of the safe requests are compared. `timeout` and `patience` (what a candidate that is behind is
    given before it is asked once more) in seconds; `max_body` in bytes; `concurrency` for each worker;
    `full_examples`: examples show values, which may be users' data."""

    percent: float
    timeout: float = 2.0
    patience: float = 1.5
    max_body: int = 262_144
    concurrency: int = 8
    full_examples: bool = False
    rules: tuple[Rules, ...] = ()


@dataclass(slots=True)
class Sampler:
    """Decides for each request whether it is compared. `percent`: 0 to 100."""

    percent: float
    _seen: dict[str, int] = field(default_factory=dict)

    def takes(self, stratum: str, request_id: bytes) -> bool:
        """The draw for one request; the same id in the same stratum gets the same answer, after the first."""
        if self.percent <= 0:
            return False
        seen = self._seen.get(stratum, 0)
        if seen < FIRST_TAKEN and (seen or len(self._seen) < _MOST_STRATA):
            self._seen[stratum] = seen + 1
            return True
        digest = blake2b(request_id, digest_size=8, person=b"shadow").digest()
        return int.from_bytes(digest, "big") / 2**64 * 100 < self.percent


@dataclass(slots=True)
class LatencyWatch:
    """Is the control slower than it used to be? Looks at whole windows of 64 answers: strained when the last
    one's p95 is more than twice the median of the 20 before, and by more than 10 ms."""

    strained: bool = False
    _window: list[float] = field(default_factory=list)
    _past: deque[float] = field(default_factory=lambda: deque(maxlen=_PAST))

    def answered(self, seconds: float) -> None:
        """The control took `seconds` for an answer."""
        self._window.append(seconds)
        if len(self._window) < _WINDOW:
            return
        now = sorted(self._window)[int(_WINDOW * 0.95)]
        self._window.clear()
        if self._past:
            usual = median(self._past)
            self.strained = now > usual * _STRAINED_FACTOR and now > usual + _STRAINED_SECONDS
        self._past.append(now)


@dataclass(slots=True)
class Templates:
    """Finds the rules of a path: the first template that matches; else the group's own pattern stands for it."""

    rules: tuple[Rules, ...]
    patterns: tuple[str, ...]  # of the group, as the routes file has them
    _compiled: list[tuple[re.Pattern[str], str]] = field(init=False)

    def __post_init__(self) -> None:
        self._compiled = [(template_pattern(item.template), item.template) for item in self.rules]

    def of(self, path: str) -> str:
        """The template that `path` is counted under."""
        for pattern, template in self._compiled:
            if pattern.fullmatch(path):
                return template
        if path in self.patterns:
            return path
        prefixes = [item for item in self.patterns if item.endswith("/*") and path.startswith(item[:-1])]
        return max(prefixes, key=len, default="*")


def query_shape(query: str) -> str:
    """The names of a query's parameters, sorted: requests of one shape take the same way through the code."""
    names = {part.partition("=")[0] for part in query.split("&") if part}
    return "&".join(sorted(names))[:200]


def lsn_of(value: bytes) -> int | None:
    """A position of PostgreSQL's write-ahead log (`0/16B3748`) as a number; None for anything else."""
    found = _LSN.fullmatch(value)
    return int(found[1], 16) << 32 | int(found[2], 16) if found else None
