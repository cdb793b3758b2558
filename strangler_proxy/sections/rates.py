"""Section `rate_limit`, of a group or of the whole file (the site): how many requests, of whom, in what time.

    rate_limit:
      - {by: ip, requests: 20, per: second, burst: 40}
      - {by: group, requests: 1000, per: second}

`burst` (default: `requests`) may come at one instant; then one more every `per / requests`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from chassis.resilience.limiter import Rate
from strangler_proxy.gateway.rates import Counted, RateLimit
from strangler_proxy.sections.fields import TOKEN, Strict

_SECONDS = {"second": 1, "minute": 60, "hour": 3600}


def _by(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind == "header":
        if not TOKEN.fullmatch(name):
            raise ValueError("write header:NAME with the name of a header")
    elif name or kind not in {counted.value for counted in Counted}:
        raise ValueError("by is one of ip, user, subject, group, header:NAME")
    return value


class RateFile(Strict):
    """One limit."""

    by: Annotated[str, AfterValidator(_by)]
    requests: Annotated[int, Field(ge=1, le=10_000_000)]
    per: Literal["second", "minute", "hour"] = "second"
    burst: Annotated[int, Field(ge=1, le=10_000_000)] | None = None

    def value(self, scope: str, place: int) -> RateLimit:
        """The frozen value, of a group or (empty scope) of the site."""
        kind, _, name = self.by.partition(":")
        rate = Rate(self.requests / _SECONDS[self.per], self.burst or self.requests)
        return RateLimit(scope, place, Counted(kind), rate, name.lower().encode())


def limits_of(items: list[RateFile], scope: str) -> tuple[RateLimit, ...]:
    """The frozen values of a list."""
    return tuple(item.value(scope, place) for place, item in enumerate(items))
