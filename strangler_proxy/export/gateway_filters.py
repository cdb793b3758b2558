"""Filters of HTTPRoute rules and backendRefs: headers, rewritten paths, mirrors. Pure."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from strangler_proxy.gateway.transform import HeaderChanges, Transforms, rewriter
from strangler_proxy.table import Group

JSON = dict[str, Any]

LIMIT = 16  # headers of one kind of change in one filter, by the schema
_PARTS = 1_000_000  # of the denominator of a mirror's share

# What only the toolkit may say, so that no client can say it to a backend, and no backend to a client.
_FROM_CLIENTS = ("X-Strangler-Arm", "X-Strangler-Issuer", "X-Strangler-Shadow", "X-Strangler-Subject")
_TO_CLIENTS = ("X-Strangler-Applied", "X-Strangler-LSN", "X-Strangler-Position", "X-Strangler-User")


def of_both(transforms: Transforms | None, rewrite: JSON | None) -> list[JSON]:
    """The filters of a rule: what is changed whichever side answers."""
    both = transforms.both if transforms is not None else None
    found = [
        _headers("Request", both.request if both else HeaderChanges(), _FROM_CLIENTS),
        _headers("Response", both.response if both else HeaderChanges(), _TO_CLIENTS),
    ]
    made = [item for item in found if item is not None]
    if rewrite is not None:
        made.append({"type": "URLRewrite", "urlRewrite": {"path": rewrite}})
    return made


def of_side(transforms: Transforms | None, *, control: bool) -> list[JSON]:
    """The filters of a backendRef: what is changed when this side answers, in addition."""
    if transforms is None:
        return []
    side = transforms.control if control else transforms.canary
    found = [_headers("Request", side.request, ()), _headers("Response", side.response, ())]
    return [item for item in found if item is not None]


def beyond_limits(group: Group) -> Iterator[str]:
    """Which parts of a group's transforms change more headers than one filter can."""
    if group.transforms is None:
        return
    for item in (
        *of_both(group.transforms, None),
        *of_side(group.transforms, control=True),
        *of_side(group.transforms, control=False),
    ):
        for change in item.values():
            if isinstance(change, dict) and any(len(changed) > LIMIT for changed in change.values()):
                yield str(item["type"])


def _headers(of: str, changes: HeaderChanges, removed: Sequence[str]) -> JSON | None:
    set_: list[JSON] = []
    add: list[JSON] = []
    written: set[str] = set()
    for line in changes.lines:
        name, _, value = line.decode("ascii").partition(":")
        entry = {"name": name, "value": value.strip()}
        replaces = name.lower().encode() in changes.remove
        (set_ if replaces else add).append(entry)
        written.add(name.lower())
    remove = [*removed, *sorted(name.decode() for name in changes.remove if name.decode() not in written)]
    change = {key: value for key, value in (("set", set_), ("add", add), ("remove", remove)) if value}
    if not change:
        return None
    return {"type": f"{of}HeaderModifier", f"{of.lower()}HeaderModifier": change}


def full_rewrite(transforms: Transforms | None, path: str) -> JSON | None:
    """What an exact path becomes; None when it stays."""
    changes = transforms.both.path if transforms is not None else None
    if changes is None:
        return None
    new = rewriter(changes)(path.encode()).decode()
    return None if new == path else {"type": "ReplaceFullPath", "replaceFullPath": new}


def prefix_rewrite(transforms: Transforms | None, prefix: str) -> JSON | None:
    """What everything below `prefix` (it ends with a slash) begins with instead; None when it stays."""
    changes = transforms.both.path if transforms is not None else None
    if changes is None:
        return None
    for old, new in changes.prefixes:  # the longest first
        before, after = old.decode(), new.decode()
        if prefix.startswith(before) and (before.endswith("/") or prefix[len(before) :][:1] == "/"):
            to = f"{after.rstrip('/')}/{prefix[len(before) :].lstrip('/')}"
            return None if to == prefix else {"type": "ReplacePrefixMatch", "replacePrefixMatch": to}
    return None


def mirrored(common: list[JSON], refs: list[JSON], percent: Decimal) -> tuple[list[JSON], list[JSON]]:
    """Filters of the rule and its targets with a mirror of each side to the other.

    Only filters of a backendRef know which side answers; fewer implementations have them, so while one side answers
    everything the mirror is the rule's.
    """
    share = {"numerator": int(percent * _PARTS / 100), "denominator": _PARTS}

    def to(ref: JSON) -> JSON:
        backend = {key: value for key, value in ref.items() if key not in ("weight", "filters")}
        return {"type": "RequestMirror", "requestMirror": {"backendRef": backend, "fraction": share}}

    control, canary = refs
    if not canary["weight"]:
        return [*common, to(canary)], refs
    if not control["weight"]:
        return [*common, to(control)], refs
    return common, [
        {**control, "filters": [*control.get("filters", []), to(canary)]},
        {**canary, "filters": [*canary.get("filters", []), to(control)]},
    ]
