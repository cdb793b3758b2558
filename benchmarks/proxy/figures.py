"""What a run of the benchmark consists of, as values. Pure; everything else passes these on.

A `Setup` is what is asked of a contender (size of the answer, connections, groups of the route table,
workers, whether it has a core of its own), a `Round` what came of it once. Many rounds of one contender in
one setup make a `Median`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

OURS = "strangler proxy"
UPSTREAM = "upstream itself"
NGINX = "nginx split_clients"
HAPROXY = "HAProxy"
ENVOY = "Envoy weighted_clusters"
AIOHTTP = "aiohttp under uvicorn"
NODE = "http-proxy-middleware"
HTTPX = "FastAPI + httpx"
CONTENDERS = (UPSTREAM, NGINX, HAPROXY, OURS, ENVOY, AIOHTTP, NODE, HTTPX)


class Body(StrEnum):
    """Size of the upstream's answer."""

    SMALL = "1 KB"
    LARGE = "100 KB"


NOISE = 0.1  # more processor time than this by others, and a round cannot be trusted
SMALL_BYTES = 1_000
LARGE_BYTES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Setup:
    """What is asked of a contender. `pinned`: one core for it, the others for load and upstream."""

    body: Body = Body.SMALL
    connections: int = 32
    groups: int = 1
    workers: int = 1
    pinned: bool = True

    def __str__(self) -> str:
        parts = [str(self.body), f"{self.connections} connections"]
        parts += [f"{self.groups} groups"] if self.groups != 1 else []
        parts += (
            [f"{self.workers} worker{'s' if self.workers > 1 else ''}, not pinned"] if not self.pinned else []
        )
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured interval. `cpu_us` is processor time (user and kernel, µs) that all processes of the
    contender spent for each request; `busy` its processor time for each second of the interval, so with one
    core and one worker a contender with `busy` well below 1 was waiting for the load or the upstream and
    could have done more."""

    contender: str
    setup: Setup
    number: int
    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    cpu_us: float
    busy: float
    others: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """The middle of a contender's rounds in one setup, each figure for itself; errors are the sum."""

    contender: str
    setup: Setup
    rounds: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    cpu_us: float
    busy: float
    others: float


def medians(rounds: Sequence[Round]) -> list[Median]:
    """One for each contender and setup, in the order of their first round."""
    return [
        Median(
            contender=contender,
            setup=setup,
            rounds=len(mine),
            requests_per_second=round(median(each.requests_per_second for each in mine), 1),
            p50_ms=round(median(each.p50_ms for each in mine), 3),
            p99_ms=round(median(each.p99_ms for each in mine), 3),
            p999_ms=round(median(each.p999_ms for each in mine), 3),
            errors=sum(each.errors for each in mine),
            cpu_us=round(median(each.cpu_us for each in mine), 2),
            busy=round(median(each.busy for each in mine), 3),
            others=round(median(each.others for each in mine), 3),
        )
        for (contender, setup), mine in _by_contender(rounds).items()
    ]


def _by_contender(rounds: Iterable[Round]) -> dict[tuple[str, Setup], list[Round]]:
    found: dict[tuple[str, Setup], list[Round]] = {}
    for each in rounds:
        found.setdefault((each.contender, each.setup), []).append(each)
    return found


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """The median of the ratios of rounds with the same number. Contenders of one round ran within a minute
    of each other, so what slows the machine down for a while falls out; of medians taken apart it would not.

    Raises ValueError when they share no round.
    """
    shared = ours.keys() & theirs.keys()
    if not shared:
        raise ValueError("no round has both contenders")
    return median(ours[number] / theirs[number] for number in shared)
