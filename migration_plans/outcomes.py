"""What the proxy saw, as values: good requests in runs, each failed request by itself.

`read_items` turns the `items` of one `batch` line of the proxy's outcome stream
(docs/reference/contracts.md) into `Good` and `Bad`, in the worker's order. Input from a newer proxy may
carry more keys; they are ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Arm(StrEnum):
    """Who answered: `control` is the monolith, `canary` the service."""

    CONTROL = "control"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Good:
    """`count` good requests in a row, routed while the group stood at `percent`."""

    arm: Arm
    count: int
    percent: Decimal


@dataclass(frozen=True, slots=True)
class Bad:
    """One failed request.

    `error` is status, timeout, refused, reset or protocol. `client` is an opaque name of whoever sent it.
    `at_ns` is the wall clock (ns since 1970) when the proxy knew.
    """

    arm: Arm
    error: str
    client: str
    at_ns: int
    percent: Decimal
    status: int | None = None
    request_id: str = ""
    path: str = ""


Outcome = Good | Bad


def read_items(items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """The outcomes of one batch. Raises ValueError, naming the item, for one that breaks the contract."""
    found: list[Outcome] = []
    for item in items:
        try:
            arm, percent = Arm(item["arm"]), Decimal(str(item["percent"]))
            if "ok" in item:
                found.append(Good(arm, int(item["ok"]), percent))
                continue
            status = item.get("status")
            found.append(
                Bad(
                    arm=arm,
                    error=str(item["error"]),
                    client=str(item["client"]),
                    at_ns=int(item["at_ns"]),
                    percent=percent,
                    status=None if status is None else int(status),
                    request_id=str(item.get("request_id") or ""),
                    path=str(item.get("path") or ""),
                )
            )
        except (KeyError, ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(
                f"an item of the outcome stream breaks the contract ({error!r}): {item!r}"
            ) from error
    return found
