"""What the proxy has to reach, and whether it did. Pure: rounds and measurements in, verdicts out.

A goal is judged on what was measured as it is worded, requests/s or p99 against a peer in the same run. Where the
peer was not busy (it waited for load and upstream, which have to share the other core), its requests/s are
less than it can do and the ratio flatters us; so each verdict also carries the ratio of processor time for
each request, which does not depend on who waited, and says when a peer was not busy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.proxy.figures import ENVOY, NGINX, NODE, OURS, Body, Round, Setup, medians, ratio

_BUSY = 0.9
_SPEED = ((ENVOY, 1.5), (NGINX, 0.5), (NODE, 4.0))
_ROUTES = 0.05
_IDLE_MB = 400
_STREAM_MB = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal and what was measured. `value` and `bound` share a unit; `note` holds what qualifies it."""

    goal: str
    value: float
    bound: float
    met: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of one worker, MB (10**6 bytes). `connections` were open and idle; `streamed_mb` went
    each way, peaks are what the kernel saw above `before_mb`, not samples."""

    contender: str
    connections: int
    empty_mb: float
    idle_mb: float
    streamed_mb: int
    upload_above_mb: float
    download_above_mb: float
    slow_download_above_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Two workers beside one, all cores open to everybody: requests/s and processor time for each request. With
    cores to spare for load and upstream, `rate` would approach 2 as long as `cpu` stays near 1."""

    contender: str
    rate: float
    cpu: float


def scaling(rounds: Sequence[Round]) -> list[Scaling]:
    """For whoever ran with one and with two workers."""
    found = []
    free = [each for each in rounds if not each.setup.pinned]
    for contender, setup in dict.fromkeys(
        (each.contender, each.setup) for each in free if each.setup.workers == 2
    ):
        one = replace(setup, workers=1)
        by_field = {
            field: ratio(_of(free, contender, setup, field), _of(free, contender, one, field))
            for field in ("requests_per_second", "cpu_us")
        }
        found.append(
            Scaling(
                contender=contender,
                rate=round(by_field["requests_per_second"], 3),
                cpu=round(by_field["cpu_us"], 3),
            )
        )
    return found


def verdicts(rounds: Sequence[Round], memory: Sequence[Memory]) -> list[Verdict]:
    """Every goal for which something was measured."""
    return [*_speed(rounds), *_latency(rounds), *_routes(rounds), *_memory(memory)]


def _of(rounds: Sequence[Round], contender: str, setup: Setup, field: str) -> dict[int, float]:
    return {
        each.number: getattr(each, field)
        for each in rounds
        if (each.contender, each.setup) == (contender, setup)
    }


def _compared(rounds: Sequence[Round], peer: str) -> list[Setup]:
    """Setups in which both ran, one worker on its own core, one group."""
    setups = dict.fromkeys(each.setup for each in rounds if each.contender == OURS)
    return [
        setup for setup in setups if setup.pinned and setup.groups == 1 and _of(rounds, peer, setup, "busy")
    ]


def _speed(rounds: Sequence[Round]) -> list[Verdict]:
    busy = {(each.contender, each.setup): each.busy for each in medians(rounds)}
    found = []
    for peer, bound in _SPEED:
        for setup in _compared(rounds, peer):
            value = ratio(
                _of(rounds, OURS, setup, "requests_per_second"),
                _of(rounds, peer, setup, "requests_per_second"),
            )
            by_cpu = ratio(_of(rounds, peer, setup, "cpu_us"), _of(rounds, OURS, setup, "cpu_us"))
            note = f"{by_cpu:.2f} by processor time"
            if busy[(peer, setup)] < _BUSY:
                note += f"; {peer} was busy {busy[(peer, setup)]:.0%} of the time and could do more"
            found.append(
                Verdict(
                    goal=f"requests/s at least {bound:g} x {peer} ({setup})",
                    value=round(value, 3),
                    bound=bound,
                    met=value >= bound,
                    note=note,
                )
            )
    return found


def _latency(rounds: Sequence[Round]) -> list[Verdict]:
    found = []
    for setup in _compared(rounds, ENVOY):
        value = ratio(_of(rounds, OURS, setup, "p99_ms"), _of(rounds, ENVOY, setup, "p99_ms"))
        found.append(
            Verdict(
                goal=f"p99 at most Envoy's ({setup})",
                value=round(value, 3),
                bound=1.0,
                met=value <= 1,
                note="each at the load it can carry",
            )
        )
    return found


def _routes(rounds: Sequence[Round]) -> list[Verdict]:
    many = [each.setup for each in rounds if each.contender == OURS and each.setup.groups > 1]
    found = []
    for setup in dict.fromkeys(many):
        one = Setup(
            body=setup.body, connections=setup.connections, workers=setup.workers, pinned=setup.pinned
        )
        if not _of(rounds, OURS, one, "cpu_us"):
            continue
        value = ratio(_of(rounds, OURS, setup, "cpu_us"), _of(rounds, OURS, one, "cpu_us")) - 1
        rate = ratio(
            _of(rounds, OURS, one, "requests_per_second"), _of(rounds, OURS, setup, "requests_per_second")
        )
        found.append(
            Verdict(
                goal=f"{setup.groups} groups cost at most 5 % more processor time than one ({setup})",
                value=round(value, 4),
                bound=_ROUTES,
                met=value <= _ROUTES,
                note=f"requests/s with one group: {rate:.3f} x those with {setup.groups}",
            )
        )
    return found


def _memory(measured: Sequence[Memory]) -> list[Verdict]:
    found = []
    for each in measured:
        if each.contender != OURS:
            continue
        # Fewer connections (quick mode) are judged by what 10,000 of them would take.
        grown = (each.idle_mb - each.empty_mb) * 10_000 / each.connections
        note = "" if each.connections == 10_000 else f"projected from {each.connections:,} connections"
        found.append(
            Verdict(
                goal="a worker with 10,000 idle connections: MB",
                value=round(each.empty_mb + grown, 1),
                bound=_IDLE_MB,
                met=each.empty_mb + grown <= _IDLE_MB,
                note=note,
            )
        )
        for way, above in (
            ("upload", each.upload_above_mb),
            ("download", each.download_above_mb),
            ("download to a slow client", each.slow_download_above_mb),
        ):
            found.append(
                Verdict(
                    goal=f"{each.streamed_mb:,} MB {way}: MB over idle",
                    value=round(above, 1),
                    bound=_STREAM_MB,
                    met=above <= _STREAM_MB,
                )
            )
    return found


# A reader of the result sees which sizes belong to which name.
BODIES = {Body.SMALL: "1,000 bytes of JSON from memory", Body.LARGE: "100,000 bytes from the page cache"}
