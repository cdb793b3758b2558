"""Section `shadow` of a group: which share of its safe requests is also sent to the other side and compared, and
by which rules.

    shadow:
      percent: 10
      timeout: 2000                    # ms the other side has
      patience: 1500                   # ms a candidate behind the log has before it is asked once more
      max_body: 262144                 # bytes; larger answers are not compared
      concurrency: 8                   # for each worker; more are dropped
      examples: redacted               # or full: values, too
      rules:
        /api/products/:
          lists:
            $.results: {key: id, sorted_by: ["?ordering", -created_at]}
            $.results[].tags: set
          types: {"$.results[].price": money}
          headers: [X-Total-Count]
          validation: class            # 400 and 422 are one refusal
          ignore:
            - {path: $.served_at, owner: catalogue team, until: 2027-01-31, reason: a clock}
"""

import datetime as dt
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from strangler_proxy.compare_rules import Ignore, Kind, ListRule, Order, Rules, ignorable, steps
from strangler_proxy.sections.fields import Milliseconds, Strict, Token
from strangler_proxy.shadow_policy import Shadow

_TEMPLATE = re.compile(r"/(?:[!-~])*")
_FIELD = re.compile(r"\?[A-Za-z0-9_.-]+|-?[^\s,?]+")


def _json_path(value: str) -> str:
    steps(value)
    return value


def _ignorable(value: str) -> str:
    ignorable(value)
    return value


def _template(value: str) -> str:
    if not _TEMPLATE.fullmatch(value) or "?" in value or "*" in value:
        raise ValueError("a template is a path like /api/products/{slug}/; no query, no *")
    if re.search(r"[{}]", re.sub(r"(?<=/)\{[A-Za-z_][A-Za-z0-9_]*\}(?=/|$)", "", value)):
        raise ValueError("a parameter is written {name} and stands for one whole segment")
    return value


def _date(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return dt.date.fromisoformat(value)
    except ValueError as error:
        raise ValueError("until is a day: 2027-01-31") from error


def _list_rule(value: object) -> object:
    if value == "set":
        return {"order": "set"}
    if isinstance(value, str):
        remedy = 'write set, or {key: FIELD}, or {sorted_by: [FIELD, "-FIELD", "?PARAMETER"]}'
        raise ValueError(remedy)  # noqa: TRY004  # pydantic turns ValueError into a fault of the file
    return value


def _sort_field(value: str) -> str:
    if not _FIELD.fullmatch(value):
        raise ValueError("a sort key is a field (-field for descending) or ?PARAMETER")
    return value


JsonPath = Annotated[str, AfterValidator(_json_path)]


class ListFile(Strict):
    """How one list is compared."""

    order: Literal["set"] | None = None
    key: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    sorted_by: list[Annotated[str, AfterValidator(_sort_field)]] = Field(default_factory=list)
    ordered: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.order is not None and (self.key is not None or self.sorted_by or self.ordered):
            raise ValueError("a set has neither key nor order")
        if self.ordered and self.key is None:
            raise ValueError("a list without a key is ordered anyway: leave ordered out")
        return self

    def value(self) -> ListRule:
        """The frozen value."""
        if self.order == "set":
            return ListRule(Order.SET)
        order = Order.POSITION if self.key is None else Order.KEY
        return ListRule(order, self.key or "", tuple(self.sorted_by), self.ordered)


class IgnoreFile(Strict):
    """One place that is not looked at, for a while."""

    path: Annotated[str, AfterValidator(_ignorable)]
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    until: Annotated[dt.date, BeforeValidator(_date)]
    reason: Annotated[str, Field(max_length=500)] = ""

    def value(self) -> Ignore:
        """The frozen value."""
        return Ignore(self.path, self.owner, self.until, self.reason)


class RulesFile(Strict):
    """The rules of one path template."""

    lists: dict[JsonPath, Annotated[ListFile, BeforeValidator(_list_rule)]] = Field(default_factory=dict)
    types: dict[JsonPath, Literal["money", "float", "instant", "text", "url"]] = Field(default_factory=dict)
    ignore: list[IgnoreFile] = Field(default_factory=list)
    headers: list[Token] = Field(default_factory=list)
    validation: Literal["exact", "class"] = "exact"

    def value(self, template: str) -> Rules:
        """The frozen value."""
        return Rules(
            template=template,
            lists={path: item.value() for path, item in self.lists.items()},
            types={path: Kind(kind) for path, kind in self.types.items()},
            ignores=tuple(item.value() for item in self.ignore),
            headers=tuple(name.lower() for name in self.headers),
            validation_by_class=self.validation == "class",
        )


class ShadowFile(Strict):
    """The section."""

    percent: Annotated[int | float, Field(ge=0, le=100)]
    timeout: Milliseconds = 2000
    patience: Milliseconds = 1500
    max_body: Annotated[int, Field(ge=1, le=4_194_304)] = 262_144
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    examples: Literal["redacted", "full"] = "redacted"
    rules: dict[Annotated[str, AfterValidator(_template)], RulesFile] = Field(default_factory=dict)

    def value(self) -> Shadow | None:
        """The frozen value; None when nothing is compared."""
        if not self.percent:
            return None
        return Shadow(
            percent=float(self.percent),
            timeout=self.timeout / 1000,
            patience=self.patience / 1000,
            max_body=self.max_body,
            concurrency=self.concurrency,
            full_examples=self.examples == "full",
            rules=tuple(item.value(template) for template, item in self.rules.items()),
        )
