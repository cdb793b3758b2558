"""Plain data as YAML that a person can read: notes as comments at the top, programs as blocks of text."""

from collections.abc import Sequence
from io import StringIO
from textwrap import wrap
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

_WIDTH = 110


def document(title: str, notes: Sequence[str], resources: Sequence[Any]) -> str:
    """YAML documents with `title` and `notes` above them."""
    yaml = YAML()
    yaml.width = 4096  # nothing is folded
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    for line in wrap(title, _WIDTH):
        out.write(f"# {line}\n")
    out.write("#\n# What it needs, and what it does not do:\n")
    for note in notes:
        first, *rest = wrap(note, _WIDTH)
        out.write(f"# * {first}\n")
        out.writelines(f"#   {line}\n" for line in rest)
    for resource in resources:
        out.write("---\n")
        yaml.dump(_readable(resource), out)
    return out.getvalue()


def _readable(value: Any) -> Any:
    """The same data, without the aliases that YAML makes of what stands twice."""
    match value:
        case dict():
            return {key: _readable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_readable(inner) for inner in value]
        case str() if "\n" in value:
            return LiteralScalarString(value)
        case _:
            return value
