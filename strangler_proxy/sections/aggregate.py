"""Section `aggregate` of a group: its answer is made of several, which are asked for at once.

    dashboard:
      paths: [/api/dashboard]
      aggregate:
        timeout: 2000
        parts:
          products: {path: "/api/products/?page_size=4", required: true, timeout: 800}
          cart: {path: /api/cart/, pass_query: true, max_body: 65536}

Every part is routed by this same file. Durations are milliseconds, sizes bytes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.gateway.aggregate import Aggregate, Part
from strangler_proxy.sections.fields import Name, Strict

_TARGET = re.compile(r"/[!-~]*")


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value) or "#" in value:
        raise ValueError(
            "a path begins with / and holds visible ASCII characters (percent-encode others), no #"
        )
    return value


class PartFile(Strict):
    """One part."""

    path: Annotated[str, Field(max_length=4096), AfterValidator(_target)]
    required: bool = False
    timeout: Annotated[int, Field(ge=1, le=9000)] | None = None
    max_body: Annotated[int, Field(ge=1, le=67_108_864)] = 1_048_576
    pass_query: bool = False


class AggregateFile(Strict):
    """The parts, and what they may take together."""

    timeout: Annotated[int, Field(ge=1, le=9000)] = 3000
    parts: Annotated[dict[Name, PartFile], Field(min_length=1, max_length=32)]

    def value(self) -> Aggregate:
        """The frozen value."""
        parts = tuple(
            Part(
                name=name,
                target=part.path.encode(),
                required=part.required,
                seconds=(part.timeout or self.timeout) / 1000,
                most=part.max_body,
                pass_query=part.pass_query,
            )
            for name, part in self.parts.items()
        )
        return Aggregate(parts, self.timeout / 1000)


def aggregate_faults(groups: object, places: Places) -> Iterator[Problem]:
    """Faults between aggregates and the rest of `groups`, which nobody has checked yet."""
    aggregates = {
        name: group
        for name, group in (groups.items() if isinstance(groups, dict) else ())
        if isinstance(group, dict) and "aggregate" in group
    }
    own = {path for group in aggregates.values() for path in _paths(group)}
    for name, group in aggregates.items():
        for key in ("backend", "cache", "sticky", "timeouts", "transform"):
            if key in group:
                remedy = f"leave {key} out: the groups of its parts have theirs"
                yield places.problem(
                    ("groups", name, key), "says nothing where the answer is made of parts", remedy
                )
        for position, path in enumerate(_paths(group)):
            if path.endswith("/*"):
                at: tuple[str | int, ...] = ("groups", name, "paths", position)
                yield places.problem(at, "an answer made of parts has one path", "name it without /*")
        parts = group["aggregate"].get("parts") if isinstance(group["aggregate"], dict) else None
        for part, asked in parts.items() if isinstance(parts, dict) else ():
            target = asked.get("path") if isinstance(asked, dict) else None
            if isinstance(target, str) and target.partition("?")[0] in own:
                at = ("groups", name, "aggregate", "parts", part, "path")
                yield places.problem(at, "is itself an answer made of parts", "name what a backend answers")


def _paths(group: Mapping[str, Any]) -> list[str]:
    paths = group.get("paths")
    return [str(path) for path in paths] if isinstance(paths, list) else []
