"""Which keys of a routes file somebody understands, as patterns: `groups.*.percent`; `*` is any one name or index.
Pure.

Whoever does not serve by the whole file (the Envoy engine, the exports) lists what it does, so that a key that is new
is not understood until somebody says so.
"""

from collections.abc import Iterator

from chassis.yamlfile import Places

KeyPath = tuple[str | int, ...]
Patterns = frozenset[tuple[str, ...]]


def patterns(text: str) -> Patterns:
    """Patterns from words: `groups.*.percent default`."""
    return frozenset(tuple(word.split(".")) for word in text.split())


def beyond(places: Places, known: Patterns) -> Iterator[KeyPath]:
    """The keys that `known` has not, outermost first and alone: not what is inside of them."""
    found: set[KeyPath] = set()
    for path in sorted(places.index, key=len):
        if not path or any(path[:length] in found for length in range(1, len(path))):
            continue  # the document itself, or inside of what is named already
        if not any(_fits(path, pattern) for pattern in known):
            found.add(path)
            yield path


def _fits(path: KeyPath, pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(
        want in ("*", part) for part, want in zip(path, pattern, strict=True)
    )
