"""What a run says: JSON for programs and the repository, a table for whoever waits. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.proxy.figures import NGINX, NOISE, Round, medians
from benchmarks.proxy.goals import BODIES, Memory, Verdict, scaling, verdicts
from benchmarks.proxy.instructions import Instructions

_METHOD = (
    "The contender has one core, wrk (one thread) and the upstream (one nginx worker) share the others. Contenders "
    "take turns, round after round, in a moving order; figures are medians over rounds, ratios are medians of the "
    "ratios within a round. A contender that was busy well below 100 % of the time waited for load or upstream and "
    "could do more: compare processor time for each request instead. Setups marked `not pinned` let everything run "
    "on every core; there workers share the cores with load and upstream, so twice the workers cannot give twice the "
    "requests, and what scaling would cost shows in the processor time for each request. Latencies are those at "
    "the load a contender carries (closed loop)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything a run measured, and what was left out by request or could not be had."""

    command: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rounds: Sequence[Round] = ()
    memory: Sequence[Memory] = ()
    instructions: Sequence[Instructions] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """Why this result is not to be trusted; none when it is."""
        found = [
            f"{each.contender}: {each.errors} errors ({each.setup}, round {each.number + 1})"
            for each in self.rounds
            if each.errors
        ]
        noisy = sum(each.others > NOISE for each in self.rounds)
        if noisy:
            found.append(
                f"something else used more than {NOISE:.0%} of a core in {noisy} of {len(self.rounds)} rounds"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "command": self.command,
            "method": _METHOD,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "bodies": {str(body): text for body, text in BODIES.items()},
            "goals": [asdict(verdict) for verdict in self.goals()],
            "faults": self.faults(),
            "scaling": [asdict(each) for each in scaling(self.rounds)],
            "medians": [_flat(each, "setup") for each in medians(self.rounds)],
            "memory": [asdict(each) for each in self.memory],
            "instructions": [asdict(each) for each in self.instructions],
            "unavailable": dict(self.unavailable),
            "rounds": [_flat(each, "setup") for each in self.rounds],
        }

    def goals(self) -> list[Verdict]:
        """Every goal for which something was measured."""
        return verdicts(self.rounds, self.memory)


def _flat(value: Any, key: str) -> dict[str, Any]:
    """A row: the setup's fields beside the figures, and the body by its name."""
    row = asdict(value)
    return row | {name: str(part) if name == "body" else part for name, part in row.pop(key).items()}


def _named(each: Instructions) -> str:
    return each.contender + (f", {each.groups} groups" if each.groups > 1 else "")


def table(result: Result) -> str:
    """The result as lines of text."""
    lines: list[str] = []
    middle = medians(result.rounds)
    for setup in dict.fromkeys(each.setup for each in middle):
        rows = {each.contender: each for each in middle if each.setup == setup}
        lines += ["", str(setup)]
        nginx = rows.get(NGINX)
        for name, row in rows.items():
            beside = f"{row.requests_per_second / nginx.requests_per_second:6.2f} x nginx" if nginx else ""
            lines.append(
                f"  {name:24} {row.requests_per_second:10,.0f} requests/s   p50 {row.p50_ms:8.2f} ms"
                f"   p99 {row.p99_ms:8.2f} ms   {row.cpu_us:8.1f} µs   busy {row.busy:4.0%}   {beside}"
            )
    if result.memory:
        lines += ["", "Memory of one worker, MB"]
    lines += [
        f"  {each.contender:24} empty {each.empty_mb:6.1f}   {each.connections:,} idle connections {each.idle_mb:6.1f}"
        f"   {each.streamed_mb:,} MB through: +{each.upload_above_mb} up, +{each.download_above_mb} down, "
        f"+{each.slow_download_above_mb} down to a slow client"
        for each in result.memory
    ]
    if result.instructions:
        lines += ["", "Instructions for each request, user space"]
    lines += [
        f"  {_named(each):36} {each.worker:10,}   (with all its processes {each.all:,})   by {each.by}"
        for each in result.instructions
    ]
    lines += [f"  {name:24} not available: {reason}" for name, reason in result.unavailable.items()]
    lines += [
        f"  {each.contender:24} two workers beside one: {each.rate:.2f} x requests/s, {each.cpu:.2f} x processor time"
        for each in scaling(result.rounds)
    ]
    lines += ["", "Goals"]
    lines += [
        f"  {'met ' if each.met else 'NOT '} {each.value:8.2f}  of {each.bound:<6g} {each.goal}"
        + (f"   ({each.note})" if each.note else "")
        for each in result.goals()
    ]
    lines += [f"  NOT TO BE TRUSTED: {fault}" for fault in result.faults()]
    return "\n".join(lines) + "\n"
