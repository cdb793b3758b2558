"""The result as JSON and as lines of text. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cdc.figures import OURS, WORKS, Measurement, median, ratio
from benchmarks.cdc.goals import verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run. `left_out`: part → why it could not be measured."""

    command: str
    machine: Mapping[str, Any]
    amount: Mapping[str, int]
    measured: Sequence[Measurement]
    left_out: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured, and what it comes to."""
        return {
            "command": self.command,
            "machine": dict(self.machine),
            "amount": dict(self.amount),
            "goals": [asdict(each) for each in verdicts(self.measured)],
            "medians": _medians(self.measured),
            "left_out": dict(self.left_out),
            "measured": [asdict(each) for each in self.measured],
        }


def _medians(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    found = []
    for work in WORKS:
        mine = median(measured, work.name, OURS)
        peers = {peer: median(measured, work.name, peer) for peer in work.peers}
        if mine is None and all(value is None for value in peers.values()):
            continue
        row: dict[str, Any] = {"work": work.name, "title": work.title, "unit": work.unit, OURS: mine}
        for peer, value in peers.items():
            beside = ratio(measured, work.name, peer)
            row |= {peer: value, "ratio": None if beside is None else round(beside, 3)}
        found.append(row)
    return found


def table(result: Result) -> str:
    """For people."""
    lines = []
    for row in _medians(result.measured):
        peers = [
            f"{name} {row[name]:,.1f}"
            for work in WORKS
            if work.name == row["work"]
            for name in work.peers
            if row[name]
        ]
        beside = f"   x {row['ratio']:.2f}" if row.get("ratio") is not None else ""
        mine = "-" if row[OURS] is None else f"{row[OURS]:,.1f}"
        lines.append(f"  {row['title']:50} {mine:>12} {row['unit']:7}{beside:10} {', '.join(peers)}")
    lines += [f"  left out: {part}: {reason}" for part, reason in result.left_out.items()]
    lines += ["", "Goals"]
    lines += [
        f"  {'met ' if each.met else 'NOT '} {each.value:8.2f}  {each.goal}"
        + (f"   ({each.note})" if each.note else "")
        for each in verdicts(result.measured)
    ]
    return "\n".join(lines) + "\n"
