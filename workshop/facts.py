"""What a demo run came to, as values: the input of the checks and of the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workshop.observe import Detection, LagSample
from workshop.traffic.record import Latency, Seen, Slice
from workshop.traffic.stickiness import Stickiness


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stay in a stage: `started` in seconds since 1970, `percent` of its traffic."""

    name: str
    started: float
    seconds: float
    percent: float


@dataclass(frozen=True, slots=True)
class RollbackFacts:
    """The automatic rollback. `verdict` is what the controller wrote into the ledger.

    `detection` and `actuation_ms` are the demo's own measurements from the proxy's outcome stream;
    `decided_ns` is the wall clock of the deciding response, `ledger_actuation_ms` the controller's figure.
    """

    stage: str
    detection: Detection
    actuation_ms: float
    ledger_actuation_ms: float | None
    decided_ns: int
    verdict: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One verified table."""

    rows: int
    differing: int


@dataclass(frozen=True, slots=True)
class VerifyFacts:
    """The final comparisons of both sides, made while shoppers went on writing.

    `position` and rows are those of the last one, `differing` the most that any of the `runs` found.
    """

    position: str
    tables: Mapping[str, TableFacts]
    writes_meanwhile: int
    runs: int


@dataclass(frozen=True, slots=True)
class CdcFacts:
    """The change stream: `lag_ms_*` of changes since the first user could see the service's data, the rest over
    the whole run.
    """

    lag_ms_p50: float | None
    lag_ms_p99: float | None
    changes_applied: int
    greatest_lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class ShareFacts:
    """Users seen while `percent` held, and how many of them the service answered."""

    percent: float
    users: int
    canary: int


@dataclass(frozen=True, slots=True)
class Mark:
    """An event worth a line in every plot."""

    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """One whole run. Times in seconds since 1970 unless they say otherwise.

    `finished` says whether the migration reached its end; `trouble` is what stopped the demo, or empty.
    """

    started: float
    seconds: float
    finished: bool
    trouble: str
    planned_stages: tuple[str, ...]
    stages: tuple[StageRun, ...]
    fault_at: float | None
    healed_at: float | None
    rollback: RollbackFacts | None
    total: int
    rate: float
    rate_at_end: float
    by_arm: Mapping[str, int]
    by_status: Mapping[str, int]
    faults: tuple[Seen, ...]
    steps: Mapping[str, int]
    latency: Mapping[str, Latency]
    slices: tuple[Slice, ...]
    stickiness: Stickiness
    shares: tuple[ShareFacts, ...]
    verify: VerifyFacts | None
    cdc: CdcFacts
    lag: tuple[LagSample, ...]
    splits: tuple[tuple[float, float], ...]
    marks: tuple[Mark, ...]
    stream_breaks: int
    left_running: tuple[str, ...]
