"""What a person sees while the demo runs: a live picture on a terminal, plain lines elsewhere.

Both show the same: what happens (`happened`) and how things stand (`stand`). The plain one prints a line for
each event and one every few seconds, so that a log of it reads as the story.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from migration_plans.stages import NOTES, State
from workshop.facts import Mark

_STYLES = {
    "stack": "dim",
    "note": "",
    "stage": "cyan",
    "fault": "bold red",
    "rollback": "bold yellow",
    "healed": "green",
    "verified": "bold green",
    "done": "bold green",
    "failed": "bold red",
}
_PLAIN_EVERY = 5.0
_BAR = 50
_LOG_LINES = 14


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand. Requests and faults of the last seconds by arm; lag in milliseconds."""

    stages: tuple[str, ...]
    stage: int
    state: str
    percent: float
    control: int
    canary: int
    fallback: int
    total: int
    shopper_errors: int
    rate: float
    lag_ms: float | None


class View(Protocol):
    """Something that shows a run."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        ...

    def happened(self, mark: Mark) -> None:
        """Show an event."""
        ...

    def stand(self, standing: Standing) -> None:
        """Show how things stand."""
        ...


class PlainView:
    """Timestamped lines, for logs and pipes. `started` in seconds since 1970."""

    def __init__(self, *, started: float, write: Callable[[str], None]) -> None:
        self._started = started
        self._write = write
        self._last = -_PLAIN_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def happened(self, mark: Mark) -> None:
        """One line."""
        self._write(f"{mark.at - self._started:7.1f} s  {_line(mark)}")

    def stand(self, standing: Standing) -> None:
        """One line every few seconds."""
        now = time.time() - self._started
        if now - self._last < _PLAIN_EVERY:
            return
        self._last = now
        answered = standing.control + standing.canary + standing.fallback
        service = 100 * standing.canary / answered if answered else 0.0
        lag = "-" if standing.lag_ms is None else f"{standing.lag_ms:.0f} ms"
        self._write(
            f"{now:7.1f} s    {_stage(standing)} {standing.state}; {standing.percent:g} % wanted, "
            f"{service:.0f} % answered by the service; {standing.rate:.0f} requests/s, "
            f"{standing.shopper_errors} errors seen by shoppers; lag {lag}"
        )


class LiveView:
    """A picture that is drawn anew four times a second."""

    def __init__(self, *, started: float, console: Console) -> None:
        self._started = started
        self._log: deque[Text] = deque(maxlen=_LOG_LINES)
        self._standing: Standing | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def happened(self, mark: Mark) -> None:
        """Add it to the log under the picture."""
        text = Text(f"{mark.at - self._started:6.1f} s  {_line(mark)}", style=_STYLES.get(mark.kind, ""))
        text.truncate(self._live.console.width - 4, overflow="ellipsis")
        self._log.append(text)

    def stand(self, standing: Standing) -> None:
        """Draw this from now on."""
        self._standing = standing

    def _render(self) -> RenderableType:
        log = Panel(Group(*self._log), title="what happens", title_align="left", height=_LOG_LINES + 2)
        if self._standing is None:
            return log
        return Group(_picture(self._standing, elapsed=time.time() - self._started), log)


def choose(*, started: float, plain: bool, stream: TextIO) -> View:
    """The live view on a terminal, the plain one elsewhere or when asked for."""
    if not plain and stream.isatty():
        return LiveView(started=started, console=Console(file=stream))

    def write(line: str) -> None:
        print(line, file=stream, flush=True)

    return PlainView(started=started, write=write)


def _line(mark: Mark) -> str:
    return f"stage {mark.text}" if mark.kind == "stage" else mark.text


def _stage(standing: Standing) -> str:
    return standing.stages[standing.stage] if standing.stages else "-"


def _picture(standing: Standing, *, elapsed: float) -> RenderableType:
    path = Text()
    for place, name in enumerate(standing.stages):
        if place:
            path.append(" → ", "dim")
        if place < standing.stage or standing.state == "done":
            path.append(name, "green")
        elif place == standing.stage:
            path.append(name, "bold yellow" if "roll" in standing.state else "bold cyan")
        else:
            path.append(name, "dim")
    answered = standing.control + standing.canary + standing.fallback
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column()
    grid.add_row("stages", path)
    grid.add_row("state", _state(standing))
    grid.add_row("wanted", f"{standing.percent:g} % of users at the service")
    grid.add_row("answered by", _bar(standing, answered))
    seen = Text(str(standing.shopper_errors), "bold red" if standing.shopper_errors else "bold green")
    instead = ", each answered by the monolith instead" if standing.fallback else ""
    grid.add_row("errors", Text.assemble(
        (str(standing.fallback), "yellow" if standing.fallback else "green"),
        " of the service in the last seconds", instead, "; ", seen, " seen by shoppers",
    ))  # fmt: skip
    lag = "unknown" if standing.lag_ms is None else f"{standing.lag_ms:.0f} ms behind"
    grid.add_row("change stream", lag)
    grid.add_row("traffic", f"{standing.rate:.0f} requests/s, {standing.total} so far")
    return Panel(grid, title=f"strangler demo   {elapsed:5.1f} s", title_align="left")


def _state(standing: Standing) -> str:
    if standing.state not in set(State):
        return standing.state
    return f"{standing.state.replace('_', ' ')}: {NOTES[State(standing.state)].meaning}"


def _bar(standing: Standing, answered: int) -> Text:
    if not answered:
        return Text("no requests yet", "dim")
    canary = round(_BAR * standing.canary / answered)
    fallback = min(_BAR - canary, round(_BAR * standing.fallback / answered))
    # glyphs of their own: the picture reads without colours too
    return Text.assemble(
        ("█" * canary, "green"),
        ("▒" * fallback, "yellow"),
        ("░" * (_BAR - canary - fallback), "bright_black"),
        (f"  █ service {100 * standing.canary / answered:.0f} %", "green"),
        (f"  ▒ failed {100 * standing.fallback / answered:.0f} %" if standing.fallback else "", "yellow"),
        f"  ░ monolith {100 * standing.control / answered:.0f} %",
    )
