"""The plots of the report: three SVGs that share one time axis and the marks of what happened.

The names of the marks stand in lanes of their own above the axes, so that they hide neither data nor each other.
Colours are placeholders while matplotlib draws, and become CSS variables afterwards, so that one picture fits
light and dark pages.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from workshop.facts import Facts
from workshop.traffic.record import Arm

# placeholder: CSS variable of the page
_COLOURS: Mapping[str, str] = {
    "#010203": "--text",
    "#010204": "--faint",
    "#010205": "--control",
    "#010206": "--canary",
    "#010207": "--fallback",
    "#010208": "--bad",
    "#010209": "--good",
    "#01020a": "--grid",
}
_TEXT, _FAINT, _CONTROL, _CANARY, _FALLBACK, _BAD, _GOOD, _GRID = _COLOURS
# of the width of a plot: stages that follow each other this closely share a name
_CLOSE = 0.012
# of the width of a plot: a letter of a mark's name, generously, and the space after the name
_LETTER, _GAP = 0.0082, 0.012
_LANE = 0.15  # inches
# seconds: at some 25 safe requests a second a shorter bin shows the dice and not the split
_SPLIT_BIN, _ERROR_BIN = 2.0, 1.0
_AT_THE_SERVICE: tuple[Arm, ...] = ("canary", "fallback")
_MOVING: tuple[Arm, ...] = ("control", *_AT_THE_SERVICE)
_MARK_COLOURS: Mapping[str, str] = {
    "stage": _FAINT,
    "fault": _BAD,
    "rollback": _BAD,
    "healed": _GOOD,
    "verified": _GOOD,
}
_MARK_NAMES: Mapping[str, str] = {
    "fault": "fault",
    "rollback": "rolled back",
    "healed": "healed",
    "verified": "verified",
}


def split_over_time(facts: Facts) -> str:
    """Percentage wanted, and the share of requests that each arm answered."""

    def draw(axes: Axes) -> None:
        bins = list(_bins(facts, _split_edges(facts)))
        canary = [_rate(part.safe["canary"], part.moving) for part in bins]
        fallback = [_rate(part.safe["fallback"], part.moving) for part in bins]
        starts, widths = [part.start for part in bins], [part.width for part in bins]
        axes.bar(starts, canary, width=widths, align="edge", color=_CANARY, alpha=0.75,
                 label="answered by the service")  # fmt: skip
        axes.bar(starts, fallback, width=widths, bottom=canary, align="edge", color=_FALLBACK,
                 label="failed there, answered by the monolith")  # fmt: skip
        end = facts.seconds
        times = [at - facts.started for at, _ in facts.splits]
        percents = [percent for _, percent in facts.splits]
        if times:
            axes.step([*times, end], [*percents, percents[-1]], where="post", color=_TEXT, linewidth=1.4,
                      label="percentage in the routes file")  # fmt: skip
        axes.set_ylim(0, 104)
        axes.set_ylabel("% of catalogue reads")

    return _figure(facts, draw, "Share of the catalogue's requests over time")


def errors_over_time(facts: Facts) -> str:
    """Share of failed requests: of each arm, and of all as shoppers saw them."""

    def draw(axes: Axes) -> None:
        bins = list(_bins(facts, _error_edges(facts)))
        starts = [part.start for part in bins]
        service = [_rate(part.requests["fallback"], part.at_the_service) for part in bins]
        monolith = [_rate(part.faults["control"], part.requests["control"]) for part in bins]
        shopper = [_rate(part.faults.total(), part.requests.total()) for part in bins]
        axes.bar(
            starts, service, width=[part.width for part in bins], align="edge", color=_FALLBACK,
            label="service (before fallback)",
        )  # fmt: skip
        axes.step(starts, monolith, where="post", color=_CONTROL, linewidth=1.6, label="monolith")
        axes.step(starts, shopper, where="post", color=_BAD, linewidth=1.6, label="seen by shoppers")
        axes.set_ylim(0, 104)
        axes.set_ylabel("% of requests failed")

    return _figure(facts, draw, "Error rate over time")


def lag_over_time(facts: Facts) -> str:
    """How far the service's data were behind."""

    def draw(axes: Axes) -> None:
        behind = [
            (each.at - facts.started, 1000 * each.seconds) for each in facts.lag if each.seconds is not None
        ]
        applied = [
            (each.at - facts.started, each.commit_to_applied_ms)
            for each in facts.lag
            if each.commit_to_applied_ms is not None
        ]
        axes.step(
            [at for at, _ in behind], [lag for _, lag in behind], where="post", color=_CANARY, linewidth=1.4,
            label="behind the monolith at that moment",
        )  # fmt: skip
        axes.plot(
            [at for at, _ in applied], [lag for _, lag in applied], linestyle="", marker="o", markersize=3,
            color=_FALLBACK, label="from commit there to commit here (p99 of half a second)",
        )  # fmt: skip
        axes.set_ylim(0, 1.15 * max([1.0, *(lag for _, lag in (*behind, *applied))]))
        axes.set_ylabel("milliseconds")

    return _figure(facts, draw, "Lag of the change stream over time")


@dataclass(frozen=True, slots=True)
class _Bin:
    """Slices added up; `start` in seconds since the run's start."""

    start: float
    width: float
    requests: Counter[Arm]
    faults: Counter[Arm]
    safe: Counter[Arm]

    @property
    def moving(self) -> int:
        """Safe requests of the routes that move."""
        return sum(self.safe[arm] for arm in _MOVING)

    @property
    def at_the_service(self) -> int:
        """Requests that the service was asked to answer."""
        return sum(self.requests[arm] for arm in _AT_THE_SERVICE)


def _bins(facts: Facts, edges: Sequence[float]) -> Iterator[_Bin]:
    for start, end in pairwise(edges):
        parts = [part for part in facts.slices if start <= part.start - facts.started < end]
        yield _Bin(
            start, end - start, _sum(part.requests for part in parts), _sum(part.faults for part in parts),
            _sum(part.safe for part in parts),
        )  # fmt: skip


def _sum(counts: Iterable[Mapping[Arm, int]]) -> Counter[Arm]:
    total: Counter[Arm] = Counter()
    for each in counts:
        total.update(each)
    return total


def _split_edges(facts: Facts) -> list[float]:
    """Even bins within each time of one percentage, so that none mixes two percentages."""
    turns = [0.0, *(at - facts.started for at, _ in facts.splits), facts.seconds]
    return _edges(turns, _SPLIT_BIN)


def _error_edges(facts: Facts) -> list[float]:
    """Even bins before and after the fault."""
    fault = [] if facts.fault_at is None else [facts.fault_at - facts.started]
    return _edges([0.0, *fault, facts.seconds], _ERROR_BIN)


def _edges(turns: Sequence[float], width: float) -> list[float]:
    """Edges of bins of about `width`, none of which reaches over one of `turns` (ascending)."""
    edges = list(turns[:1])
    for start, end in pairwise(turns):
        edges.extend(_even(start, end, width)[1:])
    return edges


def _even(start: float, end: float, width: float) -> list[float]:
    """Edges of the bins of about `width` that fill `start`..`end` evenly."""
    count = max(1, round((end - start) / width))
    return [start + (end - start) * place / count for place in range(count + 1)]


def _rate(failed: int, of: int) -> float:
    return 100 * failed / of if of else 0.0


def _figure(facts: Facts, draw: Callable[[Axes], None], title: str) -> str:
    labels = _labels(facts)
    seconds = max(facts.seconds, 1.0)
    ends = [label.at + seconds * _width(label.text) for label in labels]
    lanes = lanes_of([(label.at / seconds, label.text) for label in labels])
    high = _LANE * (max(lanes, default=-1) + 1.4)
    # no margin between both parts, so that a mark's line is one
    figure = Figure(figsize=(9.2, 2.8 + high), layout=ConstrainedLayoutEngine(h_pad=0.01, hspace=0.0))
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[high, 2.4])
    axes.patch.set_alpha(0)
    draw(axes)
    axes.set_xlim(0, max(seconds, *ends) if ends else seconds)
    axes.set_xlabel("seconds since the start", color=_TEXT)
    axes.yaxis.label.set_color(_TEXT)
    axes.tick_params(colors=_TEXT, length=3)
    axes.grid(visible=True, axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _mark(above, axes, labels, lanes)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8.5,
        labelcolor=_TEXT,
    )  # fmt: skip
    return _as_svg(figure, title)


@dataclass(frozen=True, slots=True)
class _Label:
    """A line at `at` seconds since the start, and its name."""

    at: float
    colour: str
    text: str


def lanes_of(marks: Sequence[tuple[float, str]]) -> list[int]:
    """The lane (0 is the lowest) for the name of each of `marks`: place from 0 to 1, ascending, and name.

    A name stands to the right of its mark's line, above every mark that it reaches over: so it overlaps no
    other name, and no line, which goes up to its own name, crosses it.
    """
    lanes = [0] * len(marks)
    for at in reversed(range(len(marks))):
        place, text = marks[at]
        for later in range(at + 1, len(marks)):
            if marks[later][0] < place + _width(text):
                lanes[at] = max(lanes[at], lanes[later] + 1)
    return lanes


def _width(text: str) -> float:
    return _LETTER * len(text) + _GAP


def _mark(above: Axes, axes: Axes, labels: Sequence[_Label], lanes: Sequence[int]) -> None:
    above.patch.set_alpha(0)
    above.set_axis_off()
    above.set_ylim(0, max(lanes, default=-1) + 1.4)
    for label, lane in zip(labels, lanes, strict=True):
        axes.axvline(label.at, color=label.colour, linewidth=0.9, linestyle=(0, (3, 2)))
        above.vlines(label.at, 0, lane + 0.95, color=label.colour, linewidth=0.9)
        above.annotate(
            label.text, (label.at, lane + 0.5), xytext=(2.5, 0), textcoords="offset points", ha="left",
            va="center", fontsize=7.5,
            color=label.colour if label.colour != _FAINT else _TEXT,
        ).set_in_layout(False)  # fmt: skip


def _labels(facts: Facts) -> list[_Label]:
    """Place, colour and name of each line; stages that follow at once share one name."""
    found: list[_Label] = []
    stages = False
    for mark in sorted(facts.marks, key=lambda mark: mark.at):
        if mark.kind not in _MARK_COLOURS:
            continue
        at, text = mark.at - facts.started, mark.text if mark.kind == "stage" else _MARK_NAMES[mark.kind]
        if stages and mark.kind == "stage" and at - found[-1].at < _CLOSE * facts.seconds:
            found[-1] = replace(found[-1], text=f"{found[-1].text}, {text}")
        else:
            found.append(_Label(at, _MARK_COLOURS[mark.kind], text))
        stages = mark.kind == "stage"
    return found


def _as_svg(figure: Figure, title: str) -> str:
    text = io.StringIO()
    # text stays text: readable, selectable, and in the page's own font
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "strangler"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for placeholder, variable in _COLOURS.items():
        svg = svg.replace(placeholder, f"var({variable})")
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
