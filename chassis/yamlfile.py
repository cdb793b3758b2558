"""YAML with places: plain Python data, and for each value the line it stands on.

`load` reads with ruamel.yaml's round-trip reader (it keeps line and column of every node and refuses
duplicate keys) and returns plain data beside a `Places` index, so that whoever validates the data can
name file, line and field of each fault.

Only plain documents are read: no aliases (and so no merge keys), at most `MAX_DEPTH` levels, at most `MAX_BYTES`
bytes. Files are read while traffic flows; one that takes seconds to unfold would be a fault of its own.
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
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from chassis.problems import InvalidFileError, Problem

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 24
MAX_BYTES = 1_000_000


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
    """Parse `text`; `file` is the name used in faults. Raises InvalidFileError when it is not plain YAML."""
    if len(text) > MAX_BYTES:
        problem = Problem(
            file, 0, 0, "", f"has {len(text)} characters, at most {MAX_BYTES} are read", "cut it down"
        )
        raise InvalidFileError([problem])
    try:
        _refuse_what_unfolds(text, file)
        document = YAML(typ="rt").load(StringIO(text))
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
    except (TypeError, ValueError) as error:  # legal YAML that Python cannot take in, such as a huge number
        raise InvalidFileError(
            [Problem(file, 0, 0, "", f"cannot be taken in: {error}", "shorten it")]
        ) from error
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


def _refuse_what_unfolds(text: str, file: str) -> None:
    depth = 0
    for event in YAML(typ="rt").parse(StringIO(text)):
        match event:
            case AliasEvent():
                fault, remedy = f"alias *{event.anchor} is not read", "write the value out"
            case CollectionStartEvent() if depth == MAX_DEPTH:
                fault, remedy = f"is nested deeper than {MAX_DEPTH} levels", "check indentation and brackets"
            case CollectionStartEvent():
                depth += 1
                continue
            case CollectionEndEvent():
                depth -= 1
                continue
            case _:
                continue
        mark = event.start_mark
        raise InvalidFileError([Problem(file, mark.line + 1, mark.column + 1, "", fault, remedy)])


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
