"""How a stream does, as numbers: phase, progress, lag, latencies. No IO, no clock: `now` is an argument.

`Meter` is written by the pipeline and read by the thread that publishes the status, hence the lock.

Lag in seconds is measured, not guessed: the log's end on the source is sampled every fraction of a second,
and the lag is the age of the oldest sample that has not been reached. A source where nothing happens is
therefore never behind, but one that cannot be seen any more is: by the age of the last sample.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from threading import Lock

from cdc.changes import Lsn, Transaction

LATENCY_BOUNDS_MS: tuple[float, ...] = (
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 60_000,
)  # fmt: skip
"""Upper bounds of the latency buckets in milliseconds; one more bucket takes what is slower."""


_MILLISECOND = timedelta(milliseconds=1)
_SAMPLE_IS_FRESH = 2.0  # seconds; taken four times a second while the source answers


class Phase(StrEnum):
    """What the process is doing."""

    STARTING = "starting"
    SNAPSHOT = "snapshot"
    STREAMING = "streaming"
    HELD = "held"
    RECONNECTING = "reconnecting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TableProgress:
    """The snapshot of one table. `total` is an estimate until `done`."""

    table: str
    rows: int
    total: int
    done: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """The snapshot so far; `seconds` since it began, `seconds_left` None when not yet known."""

    tables: tuple[TableProgress, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows copied."""
        return sum(table.rows for table in self.tables)

    @property
    def total(self) -> int:
        """Rows there are, by estimate."""
        return sum(max(table.total, table.rows) for table in self.tables)

    @property
    def rows_per_second(self) -> float:
        """Mean rate since the beginning."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the mean rate; None before the first row."""
        rate = self.rows_per_second
        return (self.total - self.rows) / rate if rate > 0 else None


@dataclass(frozen=True, slots=True)
class Facts:
    """The meter at one moment. Times in milliseconds or seconds as named."""

    phase: Phase = Phase.STARTING
    error: str = ""
    warning: str = ""
    position: Lsn | None = None
    source_position: Lsn | None = None
    lag_seconds: float | None = None
    transactions: int = 0
    changes: int = 0
    snapshot: SnapshotProgress | None = None
    latencies: tuple[int, ...] = field(default_factory=lambda: (0,) * (len(LATENCY_BOUNDS_MS) + 1))

    @property
    def lag_bytes(self) -> int | None:
        """Bytes of log between the source and what is applied; None before both are known."""
        if self.position is None or self.source_position is None:
            return None
        return max(0, self.source_position - self.position)


class Meter:
    """The running numbers of one process."""

    def __init__(self, latencies: Sequence[int] = ()) -> None:
        """`latencies` continues the histogram of an earlier process."""
        self._lock = Lock()
        self._facts = Facts()
        if len(latencies) == len(LATENCY_BOUNDS_MS) + 1:
            self._facts = replace(self._facts, latencies=tuple(latencies))
        self._samples: deque[tuple[float, Lsn]] = deque()

    def enter(self, phase: Phase, error: str = "") -> None:
        """Take a new phase."""
        with self._lock:
            if phase != self._facts.phase or error != self._facts.error:
                self._facts = replace(self._facts, phase=phase, error=error)

    def warn(self, warning: str) -> None:
        """Something outside this process is wrong, though it goes on; "" takes it back."""
        with self._lock:
            if warning != self._facts.warning:
                self._facts = replace(self._facts, warning=warning)

    def snapshot(self, progress: SnapshotProgress) -> None:
        """The snapshot has come so far."""
        with self._lock:
            self._facts = replace(self._facts, snapshot=progress)

    def reached(self, position: Lsn) -> None:
        """Everything up to `position` is applied."""
        with self._lock:
            self._facts = replace(self._facts, position=position)

    def applied(
        self, transactions: Sequence[Transaction], now: datetime, *, of_partition: bool = False
    ) -> None:
        """`transactions` were written at `now`. Those that go on (`more`) are counted with their last piece. Positions
        `of_partition` are offsets and say nothing of the source's log (`cdc.sharded`).
        """
        with self._lock:
            counts = list(self._facts.latencies)
            ended = [transaction for transaction in transactions if not transaction.more]
            place, first, behind = 0, now, now
            for transaction in ended:
                if not first <= transaction.commit_time < behind:
                    place = bucket((now - transaction.commit_time) / _MILLISECOND)
                    first, behind = _commits_in(place, now)  # neighbours mostly share it
                counts[place] += 1
            position = self._facts.position
            if ended and not of_partition:
                # it may be told late, after what followed without any change was reached
                position = max(ended[-1].position, position or Lsn(0))
            self._facts = replace(
                self._facts,
                position=position,
                transactions=self._facts.transactions + len(ended),
                changes=self._facts.changes + sum(len(each.changes) for each in transactions),
                latencies=tuple(counts),
            )

    def sample(self, source_position: Lsn, now: float) -> None:
        """The source's log ended at `source_position` at `now` (monotonic seconds)."""
        with self._lock:
            self._samples.append((now, source_position))
            self._facts = replace(self._facts, source_position=source_position)

    def facts(self, now: float) -> Facts:
        """Everything, as of `now` (monotonic seconds)."""
        with self._lock:
            facts = self._facts
            if facts.position is not None and self._samples:
                while len(self._samples) > 1 and self._samples[0][1] <= facts.position:
                    self._samples.popleft()
                taken, end = self._samples[0]
                age = max(0.0, now - taken)
                caught_up = end <= facts.position and age < _SAMPLE_IS_FRESH
                facts = replace(facts, lag_seconds=0.0 if caught_up else age)
            return facts


def bucket(milliseconds: float) -> int:
    """The place in the histogram of a latency; clocks that disagree can make it negative: the first
    bucket.
    """
    return bisect_left(LATENCY_BOUNDS_MS, milliseconds)


def _commits_in(place: int, now: datetime) -> tuple[datetime, datetime]:
    """Commit times from the first to before the second are counted in bucket `place` at `now`."""
    bounds = LATENCY_BOUNDS_MS
    first = now - bounds[place] * _MILLISECOND if place < len(bounds) else datetime.min.replace(tzinfo=UTC)
    behind = now - bounds[place - 1] * _MILLISECOND if place else datetime.max.replace(tzinfo=UTC)
    return first, behind


def quantile(latencies: Sequence[int], share: float) -> float | None:
    """The latency in milliseconds below which `share` of the transactions lie, interpolated within its
    bucket; None when there are none. Above the last bound the last bound is returned.
    """
    total = sum(latencies)
    if not total:
        return None
    rank = share * total
    below = 0
    for count, (low, high) in zip(latencies, pairwise((0.0, *LATENCY_BOUNDS_MS)), strict=False):
        if count and below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below += count
    return LATENCY_BOUNDS_MS[-1]


def as_json(facts: Facts) -> MappingOf[str, object]:
    """The shape stored in `strangler_cdc.status`."""
    return {
        "phase": facts.phase.value,
        "error": facts.error,
        "warning": facts.warning,
        "position": None if facts.position is None else str(facts.position),
        "source_position": None if facts.source_position is None else str(facts.source_position),
        "lag_seconds": facts.lag_seconds,
        "transactions": facts.transactions,
        "changes": facts.changes,
        "latencies": list(facts.latencies),
        "snapshot": None
        if facts.snapshot is None
        else {
            "seconds": facts.snapshot.seconds,
            "tables": [
                {"table": each.table, "rows": each.rows, "total": each.total, "done": each.done}
                for each in facts.snapshot.tables
            ],
        },
    }
