"""Follows the routes file: sees an edit within 40 ms, checks it whole, and passes on only what is legal.

The file is looked at by `stat` (a rename, an edit in place and a replaced symlink all show there, on every
file system). An edit with a fault changes nothing; it is kept as `refused` and logged with every fault's
file and line.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from chassis.problems import InvalidFileError, Problem
from chassis.yamlfile import Places
from strangler_proxy.routes import parse_with_places, read_content
from strangler_proxy.table import Routes

_POLL_SECONDS = 0.04

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """An edit that was refused, when (ns since 1970), and all its faults."""

    at_ns: int
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        """The `error` object of `/admin/status`."""
        return {"at_ns": self.at_ns, "problems": [problem.as_dict() for problem in self.problems]}


class RoutesFollower:
    """Holds the routes in use and what is wrong with the file, if anything; `on_routes` gets every new
    version. `check` may find further faults, of what only this machine can tell (a variable, a key file).

    `content` is the text that `routes` was read from: with a refused edit in the file, it is the only copy of what
    runs, and whoever rolls back needs it.
    """

    def __init__(
        self,
        path: Path,
        *,
        routes: Routes,
        content: bytes,
        on_routes: Callable[[Routes], None],
        check: Callable[[Routes, Places], Sequence[Problem]] = lambda _routes, _places: (),
    ) -> None:
        self.path = path
        self.routes = routes
        self.content = content
        self.refused: Refused | None = None
        self._on_routes = on_routes
        self._check = check
        self._seen: Stamp | None = None

    async def follow(self) -> None:
        """Look for edits until cancelled."""
        while True:
            stamp = self._stamp()
            if stamp != self._seen:
                self.read_now()
            await asyncio.sleep(_POLL_SECONDS)

    def read_now(self) -> Refused | None:
        """Read the file. New legal routes are in use at the return; a refusal is returned and remembered."""
        self._seen = self._stamp()  # before reading: an edit meanwhile is seen at the next look
        log = structlog.get_logger()
        try:
            content, routes = self._read()
        except InvalidFileError as error:
            if self.refused is None or self.refused.problems != error.problems:
                for problem in error.problems:
                    log.warning("routes file refused, the old routes stay in use", problem=str(problem))
            self.refused = Refused(time.time_ns(), error.problems)
            return self.refused
        self.refused = None
        if routes.version != self.routes.version:
            log.info("routes changed", before=self.routes.version, version=routes.version)
            self.routes, self.content = routes, content
            self._on_routes(routes)
        return None

    def _read(self) -> tuple[bytes, Routes]:
        """The file's content and its routes. Raises InvalidFileError."""
        content = read_content(self.path)
        routes, places = parse_with_places(content, str(self.path))
        problems = list(self._check(routes, places))
        if (routes.tls is None) != (self.routes.tls is None):
            message = "is switched on or off only when the proxy starts"
            problems.append(places.problem(("tls",), message, "restart the proxy with this file"))
        if problems:
            raise InvalidFileError(problems)
        return content, routes

    def _stamp(self) -> Stamp | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
