"""Passwords and keys of one workshop, generated once and kept beside its data, never in the repository.

The file has mode 0600 from its first byte on and is replaced as a whole.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from chassis.problems import InvalidFileError, Problem


def ensure(path: Path, names: Sequence[str]) -> Mapping[str, str]:
    """The secrets `names`, read from `path`; what is missing there is generated and written.

    Raises InvalidFileError when the file exists and is not what this function wrote.
    """
    known = _read(path) if path.exists() else {}
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(24) for name in missing}
        _write(path, known)
    return {name: known[name] for name in names}


def _read(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidFileError([_problem(path, f"cannot be read as JSON: {error}")]) from error
    if not isinstance(data, dict) or not all(isinstance(value, str) and value for value in data.values()):
        raise InvalidFileError([_problem(path, "is not an object of names and non-empty strings")])
    return data


def _problem(path: Path, message: str) -> Problem:
    return Problem(
        str(path), 0, 0, "", message, "delete it: new passwords are made and set at the next start"
    )


def _write(path: Path, known: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(known, file, indent=2)
        file.write("\n")
    partial.replace(path)
