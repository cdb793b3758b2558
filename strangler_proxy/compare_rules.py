"""What a team declares about its answers, as the comparison uses it: a tree walked beside the JSON. Pure.

A path names a place in a JSON body: `$.results[].price`, `$.stock.*` (any key), `$[].id`. Other places are
`status`, `body`, `header:vary`. Without rules lists are ordered, numbers and money exact, and nothing is
ignored.

* `lists`: how a list is ordered. POSITION: element by element. SET: any order. KEY: elements are paired by a
  field; their order matters only where `sorted_by` names the sort (ties may stand in any order) or `ordered`
  is set.
* `types`: what a value is, where its text does not tell. MONEY: exact, never "within rounding". FLOAT: equal
  within 1e-9 relative, in any notation. INSTANT: equal when the same moment, in any notation. TEXT: characters,
  though it may look like a number or a date. URL: equal without scheme and host.
* `ignores`: places not looked at, each with an owner and a last day; later it counts again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum

_STEP = re.compile(r"\.([^.\[\]]+)|(\[\])")
_OUTSIDE = re.compile(r"status|body|header:[a-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETER = re.compile(r"\{[^{}/]+\}")


class Order(Enum):
    """What pairs the elements of two lists."""

    POSITION = "position"
    SET = "set"
    KEY = "key"


class Kind(Enum):
    """What a value is, when its text does not tell."""

    MONEY = "money"
    FLOAT = "float"
    INSTANT = "instant"
    TEXT = "text"
    URL = "url"


@dataclass(frozen=True, slots=True)
class ListRule:
    """How a list is compared. `key` is the field that names an element (KEY); `sorted_by` the fields the list
    is sorted by, `?NAME` standing for the fields that the query's parameter NAME lists, `-` before a field for
    descending; `ordered`: the order of keyed elements matters, ties too."""

    order: Order = Order.POSITION
    key: str = ""
    sorted_by: tuple[str, ...] = ()
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """`path` is not looked at up to and including the day `until`; `owner` answers for it."""

    path: str
    owner: str
    until: date
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one path template. `headers`: compared beyond the usual ones (lower case).
    `validation_by_class`: 400 and 422 count as the same refusal, and their bodies are not compared."""

    template: str
    lists: Mapping[str, ListRule] = field(default_factory=dict)
    types: Mapping[str, Kind] = field(default_factory=dict)
    ignores: tuple[Ignore, ...] = ()
    headers: tuple[str, ...] = ()
    validation_by_class: bool = False


@dataclass(slots=True)
class Node:
    """What is declared for one place in a JSON body, and the way to what lies below it."""

    below: dict[str, "Node"] = field(default_factory=dict)
    items: ListRule = ListRule()
    kind: Kind | None = None
    ignored: bool = False

    def child(self, key: str) -> tuple[str, "Node"]:
        """The declared name of `key` (itself, or `*` for a key that is data) and what is known of it."""
        node = self.below.get(key)
        if node is not None:
            return key, node
        node = self.below.get("*")
        return ("*", node) if node is not None else (key, NOTHING)


NOTHING = Node()


@dataclass(frozen=True, slots=True)
class Compiled:
    """`Rules` in force on one day. `outside` are ignored places that lie in no JSON body; `expired` the
    ignores that no longer count."""

    template: str = ""
    root: Node = field(default_factory=Node)
    outside: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    validation_by_class: bool = False
    expired: tuple[Ignore, ...] = ()


def steps(path: str) -> tuple[str, ...]:
    """`$.a[].b` as ("a", "[]", "b"). Raises ValueError for what is no path of a JSON body."""
    if not path.startswith("$"):
        raise ValueError(f"{path!r} is no path: write it like $.results[].price")
    found, position = [], 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"{path!r} is no path: from {path[position:]!r} on it cannot be read")
        found.append(match[1] or match[2])
        position = match.end()
    return tuple(found)


def ignorable(path: str) -> None:
    """Raises ValueError when `path` cannot be ignored: it is no place, or it would hide everything."""
    if _OUTSIDE.fullmatch(path):
        if path in ("status", "body"):
            raise ValueError(f"ignoring {path!r} would leave nothing to compare")
        return
    if not [step for step in steps(path) if step not in ("*", "[]")]:
        raise ValueError(f"{path!r} covers the whole body: name the field")


def compile_rules(rules: Rules, *, today: date) -> Compiled:
    """`rules` as they stand on `today`. Raises ValueError for a path that cannot be read."""
    root = Node()
    for path, rule in rules.lists.items():
        _node(root, path).items = rule
    for path, kind in rules.types.items():
        _node(root, path).kind = kind
    outside: set[str] = set()
    active = [ignore for ignore in rules.ignores if today <= ignore.until]
    for ignore in active:
        ignorable(ignore.path)
        if ignore.path.startswith("$"):
            _node(root, ignore.path).ignored = True
        else:
            outside.add(ignore.path)
    return Compiled(
        template=rules.template,
        root=root,
        outside=frozenset(outside),
        headers=frozenset(rules.headers),
        validation_by_class=rules.validation_by_class,
        expired=tuple(ignore for ignore in rules.ignores if today > ignore.until),
    )


def _node(root: Node, path: str) -> Node:
    node = root
    for step in steps(path):
        node = node.below.setdefault(step, Node())
    return node


def template_pattern(template: str) -> re.Pattern[str]:
    """What matches the paths of a template like `/api/products/{slug}/`: a parameter is one segment."""
    parts = [re.escape(part) for part in _PARAMETER.split(template)]
    return re.compile("[^/]+".join(parts))
