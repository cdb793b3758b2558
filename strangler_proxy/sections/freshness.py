"""Reading what one wrote: where a backend tells its position, and how groups are guarded.

    backends:
      catalog:
        position: {path: /position, every: 50}     # how far it has applied the default backend's log

    read_your_writes: {enabled: true, pin: 5000, age: 5000, remember: 3600000}    # also in a group

Durations are milliseconds. A group is guarded as soon as its backend tells positions, unless it, or the file,
says `enabled: false`; where `read_your_writes` is written, also without positions: then by time alone.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.freshness import Guarding
from strangler_proxy.sections.fields import Milliseconds, Strict
from strangler_proxy.sections.fields import Path as UrlPath
from strangler_proxy.table import Position


def _plain(value: str) -> str:
    if "*" in value:
        raise ValueError("position has one path, without *")
    return value


class PositionFile(Strict):
    """Where a backend tells how far it has followed the default backend's log."""

    path: Annotated[UrlPath, AfterValidator(_plain)] = "/position"
    every: Milliseconds = 50

    def value(self) -> Position:
        """The frozen value."""
        return Position(self.path, self.every / 1000)


class ReadYourWritesFile(Strict):
    """How a group is guarded: see `strangler_proxy.freshness.Guarding`."""

    enabled: bool = True
    pin: Annotated[int, Field(ge=1, le=3_600_000)] = 5000
    age: Annotated[int, Field(ge=100, le=3_600_000)] = 5000
    remember: Annotated[int, Field(ge=1000, le=604_800_000)] = 3_600_000

    def value(self) -> Guarding:
        """The frozen value."""
        return Guarding(pin=self.pin / 1000, age=self.age / 1000, remember=self.remember / 1000)


ReadYourWrites = ReadYourWritesFile | None


def guarding_of(
    group: ReadYourWrites, site: ReadYourWrites, *, moves: bool, tells: Position | None
) -> Guarding | None:
    """How a group is guarded by its own word, else the file's, else by whether its backend `tells` positions.
    A group that moves nothing has no other side."""
    said = site if group is None else group
    if not moves or (said is None and tells is None) or (said is not None and not said.enabled):
        return None
    return said.value() if said is not None else Guarding()


def position_faults(backends: object, default: object, places: Places) -> Iterator[Problem]:
    """Only a service follows the default backend's log. Works on unchecked data."""
    said: Any = backends.get(default) if isinstance(backends, dict) and isinstance(default, str) else None
    if isinstance(said, dict) and "position" in said:
        yield places.problem(
            ("backends", str(default), "position"),
            "the default backend follows no log of its own",
            "give position to the services, which follow its log",
        )
