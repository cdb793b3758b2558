"""The differences between two JSON bodies, place by place. Pure, and bounded in depth and number.

Both bodies are walked together with the tree of rules (`compare_rules.Node`). Each difference has a `weight`:

* REAL: a client could act differently on it;
* REPRESENTATION: the same value in another notation;
* NOISE: nothing that counts: the control itself is not steady there, or rows that tie in the declared sort
  stand in another order.

A `Mask` says where the control differs from its own second answer. A masked value is not compared any more
but must still be present, of the control's type and form, and in its range: noise is no place to hide in.

Lists of the same elements in another order are one difference (ORDER), not one for each element. Sets and
keyed lists cost O(n): elements are paired by a canonical text, never each with each.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn

from strangler_proxy.compare_rules import NOTHING, ListRule, Node, Order
from strangler_proxy.compare_values import Alike, alike, canonical, plausible, type_name, urls

MOST_DIFFERENCES = 100
_DEEPEST = 64
_MOST_PEERS = 500  # values that what is plausible at a noisy path is judged by
_ENVELOPE = frozenset({"$.next", "$.previous"})  # URLs of neighbouring pages; their host is who was asked


class Weight(Enum):
    """How much a difference matters."""

    REAL = "real"
    REPRESENTATION = "representation"
    NOISE = "noise"


class What(Enum):
    """What is different."""

    STATUS = "status"
    HEADER = "header"
    BODY = "body"
    MISSING = "missing"  # the control has it, the candidate has not
    EXTRA = "extra"
    TYPE = "type"
    VALUE = "value"
    NOTATION = "notation"
    LENGTH = "length"
    ORDER = "order"
    TIES = "ties"  # order or page edge, among rows that tie in the declared sort
    FORM = "form"  # a noisy value that is not even of the control's kind


class _Absent(Enum):
    """No value, which is not null."""

    ABSENT = "absent"


ABSENT = _Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `path` names the place for all elements (`$.results[].price`), `place` this one
    (`$.results[3].price`); `control` and `candidate` are the values, ABSENT where there is none."""

    path: str
    place: str
    what: What
    weight: Weight
    control: object = ABSENT
    candidate: object = ABSENT
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mask:
    """Where the control differs from itself, by path: in value (with what it said there, in both answers and
    all elements), in order, in what is there at all."""

    values: Mapping[str, Sequence[object]] = field(default_factory=dict)
    orders: frozenset[str] = frozenset()
    shapes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.values) + len(self.orders) + len(self.shapes)


NO_MASK = Mask()


class UncomparableError(Exception):
    """The bodies cannot be compared within the bounds; the message is the reason, in a word or two."""


@dataclass(frozen=True, slots=True)
class _At:
    """A place: its path, its own name, what is declared for it, its depth."""

    path: str
    place: str
    node: Node
    depth: int

    def key(self, key: str) -> "_At":
        name, node = self.node.child(key)
        return _At(f"{self.path}.{name}", f"{self.place}.{key}", node, self.depth + 1)

    def item(self, label: object) -> "_At":
        _, node = self.node.child("[]")
        return _At(f"{self.path}[]", f"{self.place}[{label}]", node, self.depth + 1)


def mask_of(
    differences: Iterable[Difference], bodies: Iterable[object] = (), *, root: Node = NOTHING
) -> Mask:
    """What is noise for one request: the places where the control's two answers to it differ. `bodies` are those
    answers, for what is plausible there."""
    values: dict[str, list[object]] = {}
    orders: set[str] = set()
    shapes: set[str] = set()
    for item in differences:
        match item.what:
            case What.VALUE | What.NOTATION | What.TYPE:
                values.setdefault(item.path, []).extend((item.control, item.candidate))
            case What.ORDER:
                orders.add(item.path)
            case What.MISSING | What.EXTRA | What.LENGTH:
                shapes.add(item.path)
            case _:
                pass  # status, headers and opaque bodies are masked by who compares those
    if values:
        for body in bodies:
            _gather(body, _At("$", "$", root, 0), values)
    return Mask(values, frozenset(orders), frozenset(shapes))


def _gather(value: object, at: _At, into: Mapping[str, list[object]]) -> None:
    """Add the values that stand at the paths of `into`, a bounded number of each."""
    found = into.get(at.path)
    if found is not None:
        if len(found) < _MOST_PEERS:
            found.append(value)
    elif at.depth > _DEEPEST:
        raise UncomparableError("too deep")
    elif isinstance(value, dict):
        for key, below in value.items():
            _gather(below, at.key(key), into)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _gather(item, at.item(index), into)


def parse(body: bytes) -> Any:
    """The value of a JSON body, numbers as Decimal. Raises ValueError when it is none, UncomparableError when
    it is too deep to look at."""
    try:
        return json.loads(body, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant)
    except RecursionError as error:
        raise UncomparableError("too deep") from error
    except ArithmeticError as error:  # an exponent beyond every decimal
        raise ValueError("a number out of range") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 §6)")


def differences(
    control: object,
    candidate: object,
    *,
    root: Node,
    mask: Mask = NO_MASK,
    parameters: Mapping[str, str] | None = None,
) -> tuple[Difference, ...]:
    """The first MOST_DIFFERENCES differences. `parameters` are the request's, for lists sorted by `?NAME`.
    Raises UncomparableError beyond the greatest depth."""
    walk = _Walk(mask, parameters or {})
    walk.pair(control, candidate, _At("$", "$", root, 0))
    return tuple(walk.found[:MOST_DIFFERENCES])


class _Walk:
    """Two values, walked together; `found` are the differences."""

    def __init__(self, mask: Mask, parameters: Mapping[str, str]) -> None:
        self._mask = mask
        self._parameters = parameters
        self.found: list[Difference] = []

    def pair(self, left: object, right: object, at: _At) -> None:
        """What differs between two values at one place."""
        if at.node.ignored or len(self.found) >= MOST_DIFFERENCES:
            return
        if at.depth > _DEEPEST:
            raise UncomparableError("too deep")
        noisy = self._mask.values.get(at.path)
        if noisy is not None:
            self._noisy(left, right, at, noisy)
        elif isinstance(left, dict) and isinstance(right, dict):
            self._objects(left, right, at)
        elif isinstance(left, list) and isinstance(right, list):
            self._lists(left, right, at)
        elif isinstance(left, dict | list) or isinstance(right, dict | list):
            self._add(at, What.TYPE, left, right)
        else:
            self._scalars(left, right, at)

    def _noisy(self, left: object, right: object, at: _At, peers: Sequence[object]) -> None:
        if type_name(left) == type_name(right) and left == right:
            return
        why = plausible(right, peers)
        if why:
            self._add(at, What.FORM, left, right, note=why)
        else:
            self._add(at, What.VALUE, left, right, Weight.NOISE)

    def _scalars(self, left: object, right: object, at: _At) -> None:
        if at.path in _ENVELOPE and isinstance(left, str) and isinstance(right, str):
            relation = urls(left, right)
        else:
            relation = alike(left, right, at.node.kind)
        match relation:
            case Alike.SAME:
                pass
            case Alike.NOTATION:
                self._add(at, What.NOTATION, left, right, Weight.REPRESENTATION)
            case Alike.OTHER:
                same_type = type(left) is type(right)
                self._add(at, What.VALUE if same_type else What.TYPE, left, right)

    def _objects(self, left: dict[str, Any], right: dict[str, Any], at: _At) -> None:
        for key, value in left.items():
            below = at.key(key)
            if key in right:
                self.pair(value, right[key], below)
            else:
                self._add(below, What.MISSING, value, ABSENT)
        for key in right.keys() - left.keys():
            self._add(at.key(key), What.EXTRA, ABSENT, right[key])

    # Lists

    def _lists(self, left: list[Any], right: list[Any], at: _At) -> None:
        match at.node.items.order:
            case Order.POSITION if at.path not in self._mask.orders:
                self._by_position(left, right, at)
            case Order.KEY if all(self._name(item, at) is not None for item in (*left, *right)):
                self._by_key(left, right, at)
            case Order.KEY:
                self._by_position(left, right, at)
            case _:
                self._as_set(left, right, at)

    def _by_position(self, left: list[Any], right: list[Any], at: _At) -> None:
        if len(left) != len(right):
            self._add(at, What.LENGTH, left, right, note=f"{len(left)} elements, then {len(right)}")
        attempt = _Walk(self._mask, self._parameters)
        for index, (one, other) in enumerate(zip(left, right, strict=False)):
            attempt.pair(one, other, at.item(index))
        if len(left) == len(right) and any(item.weight is Weight.REAL for item in attempt.found):
            pairs, missing, extra = self._match(left, right, at)
            moved = any(one != other for one, other in pairs)
            if moved and not missing and not extra:
                self._order(left, right, at, pairs)
                for one, other in pairs:
                    self.pair(left[one], right[other], at.item(one))
                return
        if at.path in self._mask.shapes:  # elements have moved: positions say nothing
            attempt.found = [_lighter(item) for item in attempt.found]
        self.found += attempt.found

    def _order(self, left: list[Any], right: list[Any], at: _At, pairs: Iterable[tuple[int, int]]) -> None:
        """The same elements stand in another order: which kind of difference is that?"""
        fields = self._sort_fields(at.node.items)
        if fields and [_sort_key(item, fields) for item in left] == [
            _sort_key(item, fields) for item in right
        ]:
            note = "unstable sort: add the primary key as the last sort key"
            self._add(at, What.TIES, left, right, Weight.NOISE, note=note)
            return
        moved = next((one for one, other in pairs if one != other), 0)
        self._add(at, What.ORDER, left, right, note=f"same elements, another order from [{moved}] on")

    def _as_set(self, left: list[Any], right: list[Any], at: _At) -> None:
        pairs, missing, extra = self._match(left, right, at)
        for one, other in pairs:
            self.pair(left[one], right[other], at.item(one))
        for index in missing:
            self._add(at.item(index), What.MISSING, left[index], ABSENT)
        for index in extra:
            self._add(at.item(index), What.EXTRA, ABSENT, right[index])

    def _match(
        self, left: list[Any], right: list[Any], at: _At
    ) -> tuple[list[tuple[int, int]], list[int], list[int]]:
        """Pair equal elements (in whatever notation) as multisets: index pairs, those left over here, there."""
        waiting: defaultdict[str, list[int]] = defaultdict(list)
        for index in range(len(right) - 1, -1, -1):
            waiting[self._text(right[index], at.item(index))].append(index)
        pairs: list[tuple[int, int]] = []
        missing: list[int] = []
        for index, item in enumerate(left):
            there = waiting.get(self._text(item, at.item(index)))
            if there:
                pairs.append((index, there.pop()))
            else:
                missing.append(index)
        return pairs, missing, sorted(index for rest in waiting.values() for index in rest)

    def _by_key(self, left: list[Any], right: list[Any], at: _At) -> None:
        rule = at.node.items
        here = self._named(left, at)
        there = self._named(right, at)
        common = [name for name in here if name in there]
        missing = [name for name in here if name not in there]
        extra = [name for name in there if name not in here]
        for name in common:
            self.pair(here[name], there[name], at.item(f"{rule.key}={name[0]}"))
        fields = self._sort_fields(rule)
        strangers = [there[name] for name in extra]
        if fields and self._tied_at_edge(left, [here[name] for name in missing], strangers, fields):
            note = "rows that tie at the page's edge: add the primary key as the last sort key"
            self._add(at, What.TIES, left, right, Weight.NOISE, note=note)
            for item in strangers:
                self._row_like(left[0], item, at.item(rule.key))
        else:
            for name in missing:
                self._add(at.item(f"{rule.key}={name[0]}"), What.MISSING, here[name], ABSENT)
            for name in extra:
                self._add(at.item(f"{rule.key}={name[0]}"), What.EXTRA, ABSENT, there[name])
        if (rule.ordered or fields) and at.path not in self._mask.orders:
            known = set(common)
            order = [name for name in there if name in known]
            if order != common:
                # by the control's sort keys: a changed value is the pair's difference, not the order's
                self._order(
                    [here[name] for name in common],
                    [here[name] for name in order],
                    at,
                    [(i, 0 if a == b else -1) for i, (a, b) in enumerate(zip(common, order, strict=True))],
                )

    def _named(self, items: list[Any], at: _At) -> dict[tuple[str, int], Any]:
        """Elements by their key, and by how often it came before."""
        seen: defaultdict[str, int] = defaultdict(int)
        named: dict[tuple[str, int], Any] = {}
        for item in items:
            name = self._name(item, at)
            assert name is not None  # `_lists` asked
            named[name, seen[name]] = item
            seen[name] += 1
        return named

    @staticmethod
    def _name(item: object, at: _At) -> str | None:
        value = item.get(at.node.items.key) if isinstance(item, dict) else None
        return None if value is None or isinstance(value, dict | list) else str(value)

    @staticmethod
    def _tied_at_edge(
        left: Sequence[object], missing: Sequence[object], extra: Sequence[object], fields: Sequence[str]
    ) -> bool:
        """Did rows only change places with rows of the neighbouring page that tie with the page's edge?"""
        if not left or not missing or len(missing) != len(extra):
            return False
        edges = (_sort_key(left[0], fields), _sort_key(left[-1], fields))
        gone = sorted(map(repr, (_sort_key(item, fields) for item in missing)))
        come = sorted(map(repr, (_sort_key(item, fields) for item in extra)))
        return gone == come and all(_sort_key(item, fields) in edges for item in missing)

    def _row_like(self, known: dict[str, Any], stranger: dict[str, Any], at: _At) -> None:
        """A row that the control shows on another page: its values say nothing, its shape does."""
        for key, value in known.items():
            if key not in stranger:
                self._add(at.key(key), What.MISSING, value, ABSENT)
                continue
            other = stranger[key]
            if None not in (value, other) and type_name(value) != type_name(other):
                self._add(at.key(key), What.TYPE, value, other)
        for key in stranger.keys() - known.keys():
            self._add(at.key(key), What.EXTRA, ABSENT, stranger[key])

    def _sort_fields(self, rule: ListRule) -> tuple[str, ...]:
        for term in rule.sorted_by:
            if term.startswith("?"):
                asked = self._parameters.get(term[1:], "")
                if asked:
                    return tuple(name.strip().lstrip("-") for name in asked.split(","))
        return tuple(term.lstrip("-") for term in rule.sorted_by if not term.startswith("?"))

    def _text(self, value: object, at: _At) -> str:
        """A text that two values share when nothing but notation, order of sets and noise tells them
        apart."""
        if at.depth > _DEEPEST:
            raise UncomparableError("too deep")
        if at.node.ignored or at.path in self._mask.values:
            return "~"
        if isinstance(value, dict):
            shown = (f"{key!r}:{self._text(value[key], at.key(key))}" for key in sorted(value))
            return f"{{{','.join(shown)}}}"
        if isinstance(value, list):
            items = [self._text(item, at.item(index)) for index, item in enumerate(value)]
            ordered = at.node.items.order is Order.POSITION and at.path not in self._mask.orders
            return f"[{','.join(items if ordered else sorted(items))}]"
        return repr(canonical(value, at.node.kind))

    def _add(
        self,
        at: _At,
        what: What,
        left: object,
        right: object,
        weight: Weight = Weight.REAL,
        *,
        note: str = "",
    ) -> None:
        if at.node.ignored:
            return
        difference = Difference(at.path, at.place, what, weight, left, right, note)
        shaped = what in (What.MISSING, What.EXTRA, What.LENGTH) and self._shape_masked(at.path)
        self.found.append(_lighter(difference) if shaped else difference)

    def _shape_masked(self, path: str) -> bool:
        shapes = self._mask.shapes
        return path in shapes or (path.endswith("[]") and path[:-2] in shapes)


def _lighter(item: Difference) -> Difference:
    return Difference(item.path, item.place, item.what, Weight.NOISE, item.control, item.candidate, item.note)


def _sort_key(item: object, fields: Sequence[str]) -> tuple[object, ...]:
    """The element's values that the list is sorted by."""
    if not isinstance(item, dict):
        return (item,)
    return tuple(canonical(_scalar(item.get(name)), None) for name in fields)


def _scalar(value: object) -> object:
    return repr(value) if isinstance(value, dict | list) else value
