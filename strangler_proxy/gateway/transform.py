"""Changes to heads: header lines set, added and removed, and the path rewritten. Pure: bytes in, bytes out.

Headers are changed in the order remove, set, add: `set` replaces every line of that name, `add` leaves what is
there. A path is rewritten as raw bytes, nothing is decoded, and the query stays as it came. Of the three ways
to write a rewrite the first that fits applies: exact paths, prefixes (the longest one; a prefix ends where a
segment ends), one regular expression.

The regular expression is RE2's (https://github.com/google/re2/wiki/Syntax), as in Envoy's `regex_rewrite`:
it runs in time linear in the path, whatever a client sends, and has no backreferences inside the pattern. It
must match the whole path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PathRewrite = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Names of `remove` and of `set` are lower case; `lines` are the ready lines of set and add, with CRLF."""

    remove: frozenset[bytes] = frozenset()
    lines: tuple[bytes, ...] = ()

    def apply(self, lines: list[bytes]) -> None:
        """Change `lines` (each `Name: value CRLF`) in place."""
        if self.remove:
            lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in self.remove]
        lines.extend(self.lines)

    def touches(self, name: bytes) -> bool:
        """Is the header `name` (lower case) changed?"""
        return name in self.remove or any(line.lower().startswith(name + b":") for line in self.lines)


@dataclass(frozen=True, slots=True)
class PathChanges:
    """How a path is rewritten. `prefixes` are sorted, longest first; `pattern` with `replacement` (`\\1`) is
    tried last, empty means none."""

    exact: tuple[tuple[bytes, bytes], ...] = ()
    prefixes: tuple[tuple[bytes, bytes], ...] = ()
    pattern: bytes = b""
    replacement: bytes = b""


@dataclass(frozen=True, slots=True)
class Transform:
    """What is changed on the way to a backend and back."""

    request: HeaderChanges = HeaderChanges()
    response: HeaderChanges = HeaderChanges()
    path: PathChanges | None = None


@dataclass(frozen=True, slots=True)
class Transforms:
    """Of a group: for both sides, and for each side in addition. A side's own `path` stands instead of the
    common one."""

    both: Transform = Transform()
    control: Transform = Transform()
    canary: Transform = Transform()

    def of(self, *, control: bool) -> tuple[Transform, Transform]:
        """What applies when the default backend (`control`) or the group's own is asked, in this order."""
        return self.both, self.control if control else self.canary

    def path_of(self, *, control: bool) -> PathChanges | None:
        """The rewrite that applies for a side."""
        own = self.control if control else self.canary
        return own.path or self.both.path


def rewriter(changes: PathChanges, *, pattern: PathRewrite | None = None) -> PathRewrite:
    """The function that rewrites a path. `pattern` is the compiled regular expression as a function that gives
    the path back unchanged when it does not match."""
    exact = dict(changes.exact)
    prefixes = changes.prefixes

    def rewrite(path: bytes) -> bytes:
        whole = exact.get(path)
        if whole is not None:
            return whole
        for prefix, replacement in prefixes:
            if path.startswith(prefix) and (prefix.endswith(b"/") or path[len(prefix) :][:1] in (b"", b"/")):
                rest = path[len(prefix) :]  # one slash between the two: `//host` would be another server
                doubled = replacement.endswith(b"/") and rest.startswith(b"/") and not prefix.endswith(b"/")
                return replacement + (rest[1:] if doubled else rest)
        return pattern(path) if pattern is not None else path

    return rewrite


def retarget(target: bytes, rewrite: PathRewrite) -> bytes:
    """The request target with its path rewritten; the query is kept byte for byte."""
    path, mark, query = target.partition(b"?")
    return rewrite(path) + mark + query


def changes_of(
    *, set_: Sequence[tuple[str, str]], add: Sequence[tuple[str, str]], remove: Sequence[str]
) -> HeaderChanges:
    """Header changes from names and values that were found legal."""
    taken = {name.lower().encode() for name in remove} | {name.lower().encode() for name, _ in set_}
    lines = tuple(f"{name}: {value}\r\n".encode() for name, value in [*set_, *add])
    return HeaderChanges(frozenset(taken), lines)
