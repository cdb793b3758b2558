"""Changes percentages in a routes file and nothing else: every other byte, comments too, stays.

The place of each percentage comes from the reader that checks the file, the number there is replaced in the
text, and the result must read as the old file with the new percentages, else nothing is written. Writing is
atomic (a temporary file in the same directory, fsync, rename, fsync of the directory). Two editors take
turns through a lock on the directory; a lock on the file itself would be lost with the rename.

`replace_refused` is for whoever has to send traffic back while somebody's broken edit is in the way.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

from chassis.problems import InvalidFileError, Problem
from chassis.yamlfile import Places
from strangler_proxy.routes import parse_routes, parse_with_places, version_of
from strangler_proxy.table import Routes

_PERCENT = re.compile(r"""(["']?percent["']?\s*:\s*)(\+?[0-9][0-9_]*(?:\.[0-9]*)?)(?=[\s,}]|$)""")


def set_percent(path: Path, percents: Mapping[str, Decimal]) -> str:
    """Set the percentage of each group in `percents` and return the file's new version.

    Raises InvalidFileError when the file is not legal before or after, has no such group, or writes a
    percentage in a way that cannot be replaced (an alias, a tag); OSError when it cannot be written.
    Nothing is changed then.
    """
    path = path.resolve()
    with _locked(path.parent):
        content = path.read_bytes()
        edited = _edited(content, percents, str(path))
        if edited != content:
            _write(path, edited)
        return version_of(edited)


def replace_refused(
    path: Path, running: bytes, percents: Mapping[str, Decimal], *, at: datetime
) -> Path | None:
    """Put a refused file aside and write `running`, the text in use, with `percents` in its place.

    The refused file keeps its content and its inode as `NAME.refused-<at in UTC>` beside it, so that a person's
    edit is not lost; that name is returned. None when there was nothing to put aside: the file is gone, or
    legal by now (then its own percentages are set). There is a routes file at every moment in between.

    Raises InvalidFileError when `running` cannot be edited so, OSError; nothing is changed then.
    """
    path = path.resolve()
    with _locked(path.parent):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            _write(path, _edited(running, percents, str(path)))
            return None
        try:
            parse_routes(content, str(path))
        except InvalidFileError:
            edited = _edited(running, percents, str(path))
            aside = _second_name(path, f"{path.name}.refused-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
            try:
                _write(path, edited)
            except OSError:
                aside.unlink()
                raise
            return aside
        edited = _edited(content, percents, str(path))
        if edited != content:
            _write(path, edited)
        return None


def _edited(content: bytes, percents: Mapping[str, Decimal], file: str) -> bytes:
    before, places = parse_with_places(content, file)
    edited = _replace(content.decode("utf-8"), percents, routes=before, places=places).encode("utf-8")
    _check(before, parse_routes(edited, file), percents, file)
    return edited


def _second_name(path: Path, wanted: str) -> Path:
    """Give the file another name, one that nobody has: `wanted`, or `wanted` with a number."""
    for number in count(1):
        aside = path.with_name(wanted if number == 1 else f"{wanted}-{number}")
        try:
            aside.hardlink_to(path)
        except FileExistsError:
            continue
        return aside
    raise AssertionError("unreachable: the numbers do not end")


def _replace(text: str, percents: Mapping[str, Decimal], *, routes: Routes, places: Places) -> str:
    lines = text.splitlines(keepends=True)
    edits: list[tuple[int, int, int, str]] = []
    problems: list[Problem] = []
    for name, percent in percents.items():
        at = ("groups", name, "percent")
        if name not in routes.groups:
            known = ", ".join(routes.groups) or "none"
            problems.append(places.problem(("groups",), f"no group {name!r}", f"name one of: {known}"))
            continue
        if routes.groups[name].backend == routes.default:
            fault = f"group {name!r} has no backend of its own: there is nothing to move"
            problems.append(places.problem(("groups", name), fault, "give it a backend and a percent"))
            continue
        line, column = places.at(at)
        found = _PERCENT.match(lines[line - 1], column - 1)
        if found is None:
            fault = "the percentage is not written as a plain number behind its key"
            problems.append(places.problem(at, fault, "edit it by hand"))
            continue
        edits.append((line - 1, found.start(2), found.end(2), _plain(percent)))
    if problems:
        raise InvalidFileError(problems)
    for row, start, end, new in sorted(edits, reverse=True):  # from the end: columns before it stay right
        lines[row] = lines[row][:start] + new + lines[row][end:]
    return "".join(lines)


def _plain(percent: Decimal) -> str:
    return f"{percent.normalize():f}"


def _check(before: Routes, after: Routes, percents: Mapping[str, Decimal], file: str) -> None:
    for name, group in after.groups.items():
        wanted = percents.get(name, before.groups[name].percent)
        if group.percent != wanted:
            fault = f"the edit would give {group.percent} instead of {wanted}"
            raise InvalidFileError([Problem(file, 0, 0, f"groups.{name}.percent", fault, "edit it by hand")])


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode & 0o7777)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
