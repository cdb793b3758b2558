"""The plots of the report: three SVGs that share one time axis and the marks of what happened.

Colours are placeholders while matplotlib draws, and become CSS variables afterwards, so that one picture fits
light and dark pages.
"""

import io
import re
from collections.abc import Callable, Mapping

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from workshop.facts import Facts
from workshop.traffic.record import Arm, Slice

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
_CLOSE = 0.012  # of the width of a plot: the height of a line of text
_AT_THE_SERVICE: tuple[Arm, ...] = ("canary", "fallback")
_MOVING: tuple[Arm, ...] = ("control", *_AT_THE_SERVICE)
_MARK_COLOURS: Mapping[str, str] = {
    "stage": _FAINT,
    "fault": _BAD,
    "rollback": _BAD,
    "healed": _GOOD,
    "verified": _GOOD,
}


def split_over_time(facts: Facts) -> str:
    """Percentage wanted, and the share of requests that each arm answered."""

    def draw(axes: Axes) -> None:
        starts = [part.start - facts.started for part in facts.slices]
        shares = [[_share(part, arm) for part in facts.slices] for arm in _AT_THE_SERVICE]
        axes.stackplot(
            starts, *shares, step="post", colors=[_CANARY, _FALLBACK], alpha=0.75,
            labels=["answered by the service", "failed there, answered by the monolith"],
        )  # fmt: skip
        end = facts.seconds
        times = [at - facts.started for at, _ in facts.splits]
        percents = [percent for _, percent in facts.splits]
        if times:
            axes.step([*times, end], [*percents, percents[-1]], where="post", color=_TEXT, linewidth=1.4,
                      label="percentage in the routes file")  # fmt: skip
        axes.set_ylim(0, 104)
        axes.set_ylabel("% of catalogue requests")

    return _figure(facts, draw, "Share of the catalogue's requests over time")


def errors_over_time(facts: Facts) -> str:
    """Share of failed requests: of each arm, and of all as shoppers saw them."""

    def draw(axes: Axes) -> None:
        width = facts.slices[1].start - facts.slices[0].start if len(facts.slices) > 1 else 1.0
        starts = [part.start - facts.started for part in facts.slices]
        service = [
            _rate(part.requests.get("fallback", 0), sum(part.requests.get(arm, 0) for arm in _AT_THE_SERVICE))
            for part in facts.slices
        ]
        monolith = [
            _rate(part.faults.get("control", 0), part.requests.get("control", 0)) for part in facts.slices
        ]
        shopper = [_rate(sum(part.faults.values()), sum(part.requests.values())) for part in facts.slices]
        axes.bar(
            starts, service, width=width, align="edge", color=_FALLBACK, label="service (before fallback)"
        )
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


def _share(part: Slice, arm: Arm) -> float:
    """Percent of the moving routes' requests in `part` that `arm` answered."""
    total = sum(part.requests.get(each, 0) for each in _MOVING)
    return 100 * part.requests.get(arm, 0) / total if total else 0.0


def _rate(failed: int, of: int) -> float:
    return 100 * failed / of if of else 0.0


def _figure(facts: Facts, draw: Callable[[Axes], None], title: str) -> str:
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    draw(axes)
    axes.set_xlim(0, max(facts.seconds, 1.0))
    axes.set_xlabel("seconds since the start", color=_TEXT)
    axes.yaxis.label.set_color(_TEXT)
    axes.tick_params(colors=_TEXT, length=3)
    axes.grid(visible=True, axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _mark(axes, facts)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8.5,
        labelcolor=_TEXT,
    )  # fmt: skip
    return _as_svg(figure, title)


def _mark(axes: Axes, facts: Facts) -> None:
    low, high = axes.get_ylim()
    for at, colour, label in _labels(facts):
        axes.axvline(at, color=colour, linewidth=0.9, linestyle=(0, (3, 2)))
        text = axes.text(
            at, low + 0.97 * (high - low), f" {label}", rotation=90, va="top", ha="left", fontsize=7,
            color=colour if colour != _FAINT else _TEXT,
        )  # fmt: skip
        text.set_in_layout(False)


def _labels(facts: Facts) -> list[tuple[float, str, str]]:
    """Place, colour and text of each line; marks too close to be told apart share one text."""
    found: list[tuple[float, str, str]] = []
    for mark in facts.marks:
        if mark.kind not in _MARK_COLOURS:
            continue
        colour, at = _MARK_COLOURS[mark.kind], mark.at - facts.started
        label = mark.text if mark.kind == "stage" else mark.kind
        if found and at - found[-1][0] < _CLOSE * facts.seconds:
            before, its_colour, text = found.pop()
            found.append((before, its_colour if colour == _FAINT else colour, f"{text}, {label}"))
        else:
            found.append((at, colour, label))
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
