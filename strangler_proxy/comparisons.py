"""What comparisons add up to: counts by verdict, what was not compared and why, the latest examples. Pure.

A worker records (`Recorder`) and drains to the parent now and then; the parent adds up (`Comparisons`) and
shows. Examples are redacted where they arise, in the worker: of a value its type, its length and a keyed hash
are kept, enough to see that two values differ and how, useless to learn one.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from strangler_proxy.compare import Comparison, Verdict
from strangler_proxy.compare_json import ABSENT, Difference, Weight
from strangler_proxy.compare_values import type_name

CONFIDENCE = 0.95
_MOST_EXAMPLES = 200  # for each group: latest of each template and path
_MOST_REASONS = 50
_MOST_OF_ONE = 5  # examples that one comparison gives
_LONGEST = 200  # characters of a shown value
_OPINIONS = (
    Verdict.EQUAL,
    Verdict.REPRESENTATION,
    Verdict.NOISE,
    Verdict.REAL,
    Verdict.CANDIDATE_ERROR,
)


@dataclass(frozen=True, slots=True)
class Occasion:
    """The request an example comes from. `target` is shown only where full examples are wanted."""

    group: str
    template: str
    method: str
    target: str
    request_id: str
    at_ns: int


def redacted(value: object, key: bytes) -> str:
    """What may be told of a value: type, length, a hash that is the same for the same value and `key`."""
    match value:
        case str():
            told = f"string of {len(value)} characters #{_hash(value, key)}"
        case bytes():
            told = f"{len(value)} bytes #{_hash(value, key)}"
        case bool() | None:
            told = type_name(value)
        case Decimal() | int():
            told = f"number of {len(str(value))} characters #{_hash(str(value), key)}"
        case list() | dict():
            told = f"{type_name(value)} of {len(value)}"
        case _:
            told = "absent"
    return told


def _hash(value: str | bytes, key: bytes) -> str:
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=4, key=key).hexdigest()


def shown(value: object) -> str:
    """The value itself, shortened."""
    match value:
        case bytes():
            text = value[: _LONGEST + 1].decode("utf-8", "replace")
        case _ if value is ABSENT:
            text = "absent"
        case _:
            text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class Recorder:
    """One worker's comparisons since the last drain. `key` makes the hashes of examples this process's own."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.running: Counter[str] = Counter()  # by group; outlives a change of routes
        self._counts: dict[str, dict[str, Counter[str]]] = {}
        self._reasons: dict[str, dict[str, Counter[str]]] = {}
        self._examples: dict[tuple[str, str, str], dict[str, Any]] = {}

    def compared(self, result: Comparison, occasion: Occasion, *, full: bool) -> None:
        """A comparison is settled."""
        counts = self._counts.setdefault(occasion.group, {})
        counts.setdefault(occasion.template, Counter())[result.verdict.value] += 1
        if result.verdict in (Verdict.NOT_COMPARED, Verdict.CANDIDATE_ERROR):
            self._reason(occasion.group, result.verdict.value, result.reason)
        if result.verdict in (Verdict.REAL, Verdict.REPRESENTATION, Verdict.CANDIDATE_ERROR):
            for difference in _telling(result.differences) or (None,):
                self._example(result, occasion, difference, full=full)

    def not_compared(self, occasion: Occasion, reason: str) -> None:
        """A request that was drawn cannot be compared."""
        self.compared(Comparison(Verdict.NOT_COMPARED, reason=reason), occasion, full=False)

    def dropped(self, group: str, reason: str) -> None:
        """A request that was drawn is left out to spare somebody."""
        self._reason(group, "dropped", reason)

    def drain(self) -> dict[str, Any] | None:
        """Everything since the last call, ready for JSON; None when there is nothing."""
        if not self._counts and not self._reasons:
            return None
        wire = {
            "counts": {
                group: {template: dict(verdicts) for template, verdicts in templates.items()}
                for group, templates in self._counts.items()
            },
            "reasons": {
                group: {kind: dict(reasons) for kind, reasons in kinds.items()}
                for group, kinds in self._reasons.items()
            },
            "examples": list(self._examples.values()),
        }
        self._counts, self._reasons, self._examples = {}, {}, {}
        return wire

    def _reason(self, group: str, kind: str, reason: str) -> None:
        _count_reason(self._reasons.setdefault(group, {}).setdefault(kind, Counter()), reason, 1)

    def _example(
        self, result: Comparison, occasion: Occasion, difference: Difference | None, *, full: bool
    ) -> None:
        path = difference.path if difference is not None else ""
        example: dict[str, Any] = {
            "group": occasion.group,
            "template": occasion.template,
            "path": path,
            "verdict": result.verdict.value,
            "what": difference.what.value if difference is not None else "",
            "note": difference.note if difference is not None else result.reason,
            "method": occasion.method,
            "request_id": occasion.request_id,
            "at_ns": occasion.at_ns,
        }
        if difference is not None:
            show = shown if full else self._redacted
            example |= {"control": show(difference.control), "candidate": show(difference.candidate)}
            if full:
                example |= {"place": difference.place, "target": occasion.target}
        self._examples[occasion.group, occasion.template, path] = example

    def _redacted(self, value: object) -> str:
        return redacted(value, self._key)


def _telling(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """The differences worth an example: one of each path, the weighty ones."""
    chosen: dict[str, Difference] = {}
    for item in differences:
        if item.weight is not Weight.NOISE:
            chosen.setdefault(item.path, item)
    order = sorted(chosen.values(), key=lambda item: item.weight is not Weight.REAL)
    return tuple(order[:_MOST_OF_ONE])


def _count_reason(counter: Counter[str], reason: str, count: int) -> None:
    """Servers choose some reasons (a status, a content coding): what is kept of them stays bounded."""
    known = reason in counter or len(counter) < _MOST_REASONS
    counter[reason if known else "other"] += count


@dataclass(slots=True)
class GroupSums:
    """One group's sums over all workers: verdicts by template, reasons by kind, examples by template and
    path."""

    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def total(self) -> Counter[str]:
        """Verdicts over all templates."""
        return sum(self.verdicts.values(), Counter())

    def as_json(self) -> dict[str, Any]:
        """For `GET /admin/comparisons`."""
        latest = sorted(self.examples.values(), key=lambda example: -int(example["at_ns"]))
        return {
            **_summary(self.total),
            "templates": {name: _summary(verdicts) for name, verdicts in sorted(self.verdicts.items())},
            "not_compared": dict(self.reasons.get(Verdict.NOT_COMPARED.value, {})),
            "candidate_errors": dict(self.reasons.get(Verdict.CANDIDATE_ERROR.value, {})),
            "dropped": dict(self.reasons.get("dropped", {})),
            "examples": [
                {name: value for name, value in example.items() if name != "group"} for example in latest
            ],
        }


class Comparisons:
    """The parent's sums since start, by group."""

    def __init__(self) -> None:
        self.groups: dict[str, GroupSums] = {}

    def add(self, wire: Mapping[str, Any]) -> None:
        """What a worker drained."""
        for group, templates in wire["counts"].items():
            for template, verdicts in templates.items():
                self._group(group).verdicts.setdefault(template, Counter()).update(verdicts)
        for group, kinds in wire["reasons"].items():
            for kind, reasons in kinds.items():
                counter = self._group(group).reasons.setdefault(kind, Counter())
                for reason, count in reasons.items():
                    _count_reason(counter, reason, count)
        for example in wire["examples"]:
            examples = self._group(example["group"]).examples
            key = example["template"], example["path"]
            examples.pop(key, None)
            examples[key] = example
            while len(examples) > _MOST_EXAMPLES:
                del examples[next(iter(examples))]

    def _group(self, name: str) -> GroupSums:
        return self.groups.setdefault(name, GroupSums())

    def as_json(self, names: Iterable[str]) -> dict[str, Any]:
        """By group: those of `names`, and those that were compared before."""
        return {
            name: self.groups.get(name, GroupSums()).as_json()
            for name in dict.fromkeys((*names, *self.groups))
        }


def _summary(verdicts: Mapping[str, int]) -> dict[str, Any]:
    counts = {verdict.value: verdicts.get(verdict.value, 0) for verdict in Verdict}
    compared = sum(counts[verdict.value] for verdict in _OPINIONS)
    return {
        "verdicts": counts,
        "compared": compared,
        "real_rate_at_most": rate_at_most(counts[Verdict.REAL.value], compared),
    }


def rate_at_most(events: int, trials: int) -> float | None:
    """The upper end of the 95 % interval of a rate (one-sided, Poisson): with no event in n trials about 3/n.
    None without trials."""
    if not trials:
        return None
    low, high = float(events), events + 10 + 5 * math.sqrt(events)
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(events, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return min(1.0, high / trials)


def _at_most(events: int, mean: float) -> float:
    """The probability of at most so many events (Poisson)."""
    if mean <= 0:
        return 1.0
    if mean > 500:  # the terms would underflow; the normal distribution is close enough by far
        return 0.5 * math.erfc(-(events + 0.5 - mean) / math.sqrt(2 * mean))
    term = total = math.exp(-mean)
    for number in range(1, events + 1):
        term *= mean / number
        total += term
    return total
