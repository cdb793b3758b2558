"""The result as one picture: requests/s and p99 of every contender in every setup, each round a small dot, the
median a large one.

Axes are logarithmic (contenders lie between 100 and 100,000 requests/s, a linear axis would show two of them),
and a logarithmic axis has no zero for a bar to begin at: hence dots.
"""

from collections.abc import Sequence
from math import floor, log10
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.proxy.figures import CONTENDERS, OURS, Median, Round, Setup, medians

_OURS, _PEERS, _DOT = "#c2410c", "#94a3b8", "#0f172a"


def draw(rounds: Sequence[Round], *, machine: str, path: Path) -> None:
    """Write the picture: one row for each setup, requests/s on the left, p99 on the right."""
    middle = medians(rounds)
    setups = sorted({each.setup for each in middle if each.setup.pinned and each.setup.groups == 1})
    most = max(sum(each.setup == setup for each in _shown(middle, setup)) for setup in setups)
    figure = Figure(figsize=(13, 1.1 + len(setups) * (0.6 + 0.3 * most)), layout="constrained")
    figure.suptitle(
        f"One worker or thread each, on one core; wrk and upstream on the others ({machine})", fontsize=11
    )
    axes = figure.subplots(len(setups), 2, squeeze=False)
    for row, setup in enumerate(setups):
        _panel(axes[row][0], setup, rounds, middle, field="requests_per_second", label="requests/s")
        _panel(axes[row][1], setup, rounds, middle, field="p99_ms", label="p99, ms")
    figure.savefig(path, dpi=110)


def _shown(middle: Sequence[Median], setup: Setup) -> list[Median]:
    """Contenders of a panel: those of the setup, and ours with many groups."""
    mine = [each for each in middle if each.setup == setup]
    mine += [each for each in middle if _same_but_groups(each.setup, setup)]
    return sorted(mine, key=lambda each: (CONTENDERS.index(each.contender), each.setup.groups))


def _same_but_groups(one: Setup, other: Setup) -> bool:
    return one.groups > other.groups and (one.body, one.connections, one.workers, one.pinned) == (
        other.body,
        other.connections,
        other.workers,
        other.pinned,
    )


def _panel(
    axes: Axes, setup: Setup, rounds: Sequence[Round], middle: Sequence[Median], *, field: str, label: str
) -> None:
    shown = _shown(middle, setup)
    names = [
        each.contender + (f", {each.setup.groups} groups" if each.setup.groups > 1 else "") for each in shown
    ]
    values = [getattr(each, field) for each in shown]
    places = range(len(shown))
    colours = [_OURS if each.contender == OURS else _PEERS for each in shown]
    axes.scatter(values, places, s=55, c=colours, zorder=3)
    for place, each in zip(places, shown, strict=True):
        dots = [
            getattr(one, field)
            for one in rounds
            if (one.contender, one.setup) == (each.contender, each.setup)
        ]
        axes.plot(dots, [place] * len(dots), "o", color=_DOT, markersize=2, zorder=4)
        value = getattr(each, field)
        text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
        at = max([value, *dots])
        axes.annotate(text, (at, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set_xscale("log")
    low, high = min(values), max(values)
    axes.set_xlim(10 ** floor(log10(low * 0.9)), high * 4)  # from a power of ten; room for the figures
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=True, axis="y", alpha=0.25)
    axes.set_title(f"{setup}: {label}", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=True, axis="x", which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
