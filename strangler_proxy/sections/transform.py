"""Section `transform` of a group: headers to set, add or remove, and how the path is rewritten.

    transform:
      request: {set: {X-Api: "2"}, add: {Accept-Language: en}, remove: [X-Debug]}
      response: {remove: [Server]}
      path: {prefix: {/api/products: /v2/items}}
      canary: {path: {exact: {/api/products: /items}}}      # for one side, in addition
      control: {request: {set: {X-Side: old}}}

Framing, hop-by-hop, forwarding and the toolkit's own headers cannot be changed: `headers.kind_of` knows them,
and the file is refused.
"""

import re
from typing import Annotated, Self

import re2
from pydantic import AfterValidator, Field, model_validator

from strangler_proxy.gateway.transform import HeaderChanges, PathChanges, Transform, Transforms, changes_of
from strangler_proxy.gateway.transforming import compiled
from strangler_proxy.headers import Kind, kind_of
from strangler_proxy.sections.fields import Strict, Token

_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?|")
_PATH = re.compile(r"/[!-~]*")
_REFERENCE = re.compile(r"\\(.?)")
_FREE = frozenset({Kind.PASS, Kind.CONTENT_TYPE, Kind.CACHE_CONTROL, Kind.COOKIE})


def _header(name: str) -> str:
    if kind_of(name.encode()) not in _FREE:
        raise ValueError(
            f"{name} frames or routes the message and cannot be changed; hop-by-hop, forwarding and "
            f"X-Strangler-* headers are the proxy's own"
        )
    return name


def _value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError("a header's value holds visible ASCII, with single-line spaces inside")
    return value


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or "?" in value or "#" in value:
        raise ValueError("a path begins with / and holds visible ASCII characters, no ? and no #")
    return value


Header = Annotated[Token, AfterValidator(_header)]
Value = Annotated[str, Field(max_length=4096), AfterValidator(_value)]
Path = Annotated[str, Field(max_length=1024), AfterValidator(_path)]


class HeadersFile(Strict):
    """`set` replaces, `add` leaves what is there, `remove` comes first."""

    set: dict[Header, Value] = Field(default_factory=dict)
    add: dict[Header, Value] = Field(default_factory=dict)
    remove: list[Header] = Field(default_factory=list)

    def value(self) -> HeaderChanges:
        """The frozen value."""
        return changes_of(set_=list(self.set.items()), add=list(self.add.items()), remove=self.remove)


class RegexFile(Strict):
    """One regular expression (RE2) that matches a whole path, and what stands in its place."""

    match: Annotated[str, Field(min_length=1, max_length=256)]
    to: Path

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if not self.match.isascii():
            raise ValueError("match holds ASCII characters; write others percent-encoded, as they are sent")
        try:
            compiled(self.match.encode(), b"/")
            groups = re2.compile(self.match).groups
        except re2.error as error:
            raise ValueError(f"match is not a regular expression of RE2: {_text(error)}") from error
        for found in _REFERENCE.finditer(self.to):
            if not found[1].isdigit() or int(found[1]) > groups:
                raise ValueError(f"to names {found[0]!r}, and match has {groups} groups")
        return self


def _text(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("latin-1") if isinstance(said, bytes) else str(said)


class PathFile(Strict):
    """Exact paths, then prefixes (the longest), then the regular expression; the first that fits applies."""

    exact: dict[Path, Path] = Field(default_factory=dict)
    prefix: dict[Path, Path] = Field(default_factory=dict)
    regex: RegexFile | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.exact or self.prefix or self.regex):
            raise ValueError("path needs exact, prefix or regex")
        for prefix, to in self.prefix.items():
            if prefix.endswith("/") and not to.endswith("/"):
                raise ValueError(f"prefix {prefix} ends with /, so {to} must too, or two segments become one")
        return self

    def value(self) -> PathChanges:
        """The frozen value."""
        prefixes = sorted(self.prefix.items(), key=lambda pair: len(pair[0]), reverse=True)
        return PathChanges(
            exact=tuple((path.encode(), to.encode()) for path, to in self.exact.items()),
            prefixes=tuple((path.encode(), to.encode()) for path, to in prefixes),
            pattern=self.regex.match.encode() if self.regex else b"",
            replacement=self.regex.to.encode() if self.regex else b"",
        )


class _SideFile(Strict):
    request: HeadersFile = HeadersFile()
    response: HeadersFile = HeadersFile()
    path: PathFile | None = None

    def side(self) -> Transform:
        """The frozen value."""
        path = self.path.value() if self.path is not None else None
        return Transform(self.request.value(), self.response.value(), path)


class TransformFile(_SideFile):
    """For both sides, and for one side in addition."""

    control: _SideFile = _SideFile()
    canary: _SideFile = _SideFile()

    def value(self) -> Transforms:
        """The frozen value."""
        return Transforms(self.side(), self.control.side(), self.canary.side())
