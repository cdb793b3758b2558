"""YAML with places: plain Python data, and for each value the line it stands on.

`load` reads with ruamel.yaml's round-trip reader (it keeps line and column of every node and refuses
duplicate keys) and returns plain data beside a `Places` index, so that whoever validates the data can
name file, line and field of each fault.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from chassis.problems import InvalidFileError, Problem

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where each value of a YAML document stands: path of keys and indexes → (line, column), from 1."""

    file: str
    index: Mapping[KeyPath, tuple[int, int]] = field(default_factory=dict)

    def at(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Line and column of `path`, or of its nearest parent that exists in the document."""
        probe = tuple(path)
        while probe:
            if probe in self.index:
                return self.index[probe]
            probe = probe[:-1]
        return self.index.get((), (1, 1))

    def problem(self, path: Sequence[str | int], message: str, remedy: str = "") -> Problem:
        """A `Problem` at `path`."""
        line, column = self.at(path)
        dotted = ".".join(str(part) for part in path)
        return Problem(self.file, line, column, dotted, message, remedy)

    def problems_of(self, error: ValidationError, prefix: Sequence[str | int] = ()) -> list[Problem]:
        """The faults pydantic found, each at its place. `prefix` is where the validated value stands."""
        found: list[Problem] = []
        for fault in error.errors(include_url=False):
            path = (*prefix, *(part for part in fault["loc"] if part != "__root__"))
            message = fault["msg"].removeprefix("Value error, ")
            remedy = ""
            if fault["type"] == "extra_forbidden":
                message = f"unknown key {path[-1]!r}"
                remedy = "remove it or correct its spelling"
            elif fault["type"] == "missing":
                message = f"missing key {path[-1]!r}"
                remedy = "add it"
            else:
                message = f"{message} (got {fault.get('input')!r})"
            found.append(self.problem(path, message, remedy))
        return found


def parse(text: str, file: str) -> tuple[Any, Places]:
    """Parse `text`; `file` is the name used in faults. Raises InvalidFileError when it is not YAML."""
    yaml = YAML(typ="rt")
    try:
        document = yaml.load(StringIO(text))
    except DuplicateKeyError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = (error.problem or "duplicate key").split("\n", maxsplit=1)[0]
        raise InvalidFileError([Problem(file, line, column, "", message, "keep one of the two")]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = f"not valid YAML: {error.problem or error.context}"
        raise InvalidFileError(
            [Problem(file, line, column, "", message, "check indentation, quotes and colons")]
        ) from error
    except YAMLError as error:
        raise InvalidFileError([Problem(file, 0, 0, "", f"not valid YAML: {error}", "")]) from error
    index: dict[KeyPath, tuple[int, int]] = {(): (1, 1)}
    return _plain(document, (), index), Places(file, index)


def load(path: Path) -> tuple[Any, Places]:
    """Read and parse the file at `path`. Raises InvalidFileError when it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problem = Problem(
            str(path), 0, 0, "", f"cannot be read: {reason}", "check the path and its permissions"
        )
        raise InvalidFileError([problem]) from error
    return parse(text, str(path))


def _plain(node: Any, path: KeyPath, index: dict[KeyPath, tuple[int, int]]) -> Any:
    if isinstance(node, CommentedMap):
        plain: dict[Any, Any] = {}
        for key, value in node.items():
            line, column = node.lc.key(key)
            index[(*path, key)] = (line + 1, column + 1)
            plain[key] = _plain(value, (*path, key), index)
        return plain
    if isinstance(node, CommentedSeq):
        items: list[Any] = []
        for position, value in enumerate(node):
            line, column = node.lc.item(position)
            index[(*path, position)] = (line + 1, column + 1)
            items.append(_plain(value, (*path, position), index))
        return items
    # ruamel's scalars remember their notation in subclasses; what follows needs plain values
    for plain_type in (str, bool, int, float):
        if isinstance(node, plain_type):
            return plain_type(node)
    return node
