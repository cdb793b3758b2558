"""The routes file: what percentage it says, and how to change that. Legal routes are
strangler_proxy.routes' business.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from chassis.problems import InvalidFileError, Problem
from strangler_proxy.cluster.discover import NoListError, one_url
from strangler_proxy.edit import replace_refused, set_percent
from strangler_proxy.routes import parse_routes, parse_with_places, version_of


@dataclass(frozen=True, slots=True)
class RoutesFact:
    """What the file says now. `version` is that of the proxy: the first 12 hex digits of its SHA-256."""

    percent: Decimal
    version: str
    backend_url: str
    owner: str
    paths: tuple[str, ...]


class RoutesFile:
    """One group of one routes file."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self.group = group
        self._known: RoutesFact | None = None

    def read(self) -> RoutesFact:
        """What the file says about the group. Raises InvalidFileError when it is refused or has no such
        group.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            raise InvalidFileError(
                [
                    Problem(
                        str(self.path), 0, 0, "", reason, "name the routes file with --routes or in the plan"
                    )
                ]
            ) from error
        if self._known is not None and self._known.version == version_of(content):
            return self._known  # parsing YAML takes longer than the rest of a turn
        routes = parse_routes(content, str(self.path))
        group = routes.groups.get(self.group)
        if group is None:
            known = ", ".join(sorted(routes.groups)) or "none"
            raise InvalidFileError(
                [
                    Problem(
                        str(self.path), 0, 0, f"groups.{self.group}", f"there is no such group (there is: {known})",
                        "correct `group` in the plan, or add the group",
                    )
                ]
            )  # fmt: skip
        backend = routes.backends[group.backend]
        try:
            url = one_url(backend, base=self.path.parent, environment=os.environ)
        except NoListError as error:
            at = f"backends.{backend.name}.discover"
            raise InvalidFileError([Problem(str(self.path), 0, 0, at, error.fault, error.remedy)]) from error
        self._known = RoutesFact(
            percent=group.percent,
            version=routes.version,
            backend_url=url,
            owner=group.owner,
            paths=group.paths,
        )
        return self._known

    def set_percent(self, percent: Decimal) -> str:
        """Write `percent`, keep everything else. Returns the new version. Raises InvalidFileError."""
        with self._writable():
            return set_percent(self.path, {self.group: percent})

    def replace_refused(self, running: bytes) -> str:
        """Put the refused file aside and write `running`, the proxy's own copy, with percentage 0.

        Returns the name it was put aside as, "" when there was nothing to put aside. Raises InvalidFileError.
        """
        with self._writable():
            aside = replace_refused(self.path, running, {self.group: Decimal(0)}, at=datetime.now(UTC))
        return "" if aside is None else str(aside)

    def service_problem(self, message: str, remedy: str) -> Problem:
        """A fault of the group's backend, at the line that gives its address. Raises InvalidFileError."""
        routes, places = parse_with_places(self.path.read_bytes(), str(self.path))
        return places.problem(("backends", routes.groups[self.group].backend, "url"), message, remedy)

    def by_hand(self) -> str:
        """What a person has to do when the file is refused and the proxy cannot be asked what it runs."""
        try:
            self.read()
            faults = "it is legal again"
        except InvalidFileError as error:
            faults = f"it is refused: {error}"
        return (
            f"set `percent: 0` of group {self.group} in {self.path} by hand and repair it, every worker takes that "
            f"over by itself; {faults}"
        )

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            problem = Problem(
                str(self.path), 0, 0, "", reason, "give this user the right to write it and its folder"
            )
            raise InvalidFileError([problem]) from error
