"""The result as one picture: a panel for each work, every round a small dot, the median a large one.

Dots on an axis that begins at zero; each panel has a scale of its own, units differ.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cdc.figures import OURS, WORKS, Measurement, Work, median, ratio

_OURS, _PEER, _DOT = "#c2410c", "#94a3b8", "#0f172a"
_ACROSS = 2


def draw(measured: Sequence[Measurement], *, machine: str, path: Path) -> None:
    """Write the picture as SVG, the same bytes for the same result."""
    shown = [work for work in WORKS if median(measured, work.name, OURS) is not None]
    down = -(-len(shown) // _ACROSS)
    with mpl.rc_context({"svg.hashsalt": "cdc", "svg.fonttype": "none"}):
        figure = Figure(figsize=(13, 0.6 + 1.15 * down), layout="constrained")
        figure.suptitle(
            f"The change stream beside its peers, same run, same machine ({machine})", fontsize=11
        )
        panels = figure.subplots(down, _ACROSS, squeeze=False).flatten()
        for work, axes in zip(shown, panels, strict=False):
            _panel(axes, work, measured)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, work: Work, measured: Sequence[Measurement]) -> None:
    names = [name for name in (OURS, *work.peers) if median(measured, work.name, name) is not None]
    for line, name in enumerate(names):
        values = [each.value for each in measured if (each.work, each.contender) == (work.name, name)]
        middle = median(measured, work.name, name)
        assert middle is not None, "names have a median"
        axes.scatter(values, [line] * len(values), s=10, color=_DOT, zorder=3)
        axes.scatter([middle], [line], s=70, color=_OURS if name == OURS else _PEER, zorder=2)
        axes.annotate(f"{middle:,.4g}" if middle < 1_000 else f"{middle:,.0f}", (middle, line), xytext=(0, 7),
                      textcoords="offset points", ha="center", fontsize=7)  # fmt: skip
    beside = [value for peer in work.peers if (value := ratio(measured, work.name, peer)) is not None]
    told = f"   x {beside[0]:.2f}" if beside else ""
    better = "" if work.higher else ", lower is better"
    axes.set_title(f"{work.title} ({work.unit}{better}){told}", fontsize=8, loc="left")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.8)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.1)
    axes.grid(axis="x", color="#e2e8f0", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
