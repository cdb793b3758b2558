"""Section `cache` of a group: answers to safe anonymous reads are kept in each worker's memory.

    cache:
      fresh: 5000              # ms a 200 that says nothing of caching counts as fresh; default: not at all
      stale: 0                 # ms a stale answer may be given while a new one is fetched
      room: 33554432           # bytes, in each worker
      largest: 1048576         # bytes of one answer
      ignore_cookies: [_ga]    # cookies that mean nothing to the backends
      tables: [catalog_product, catalog_review]     # a change in one of these empties the cache

What may be kept is the answer's to say; `gateway/rfc9111.py` has the rules.
"""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from strangler_proxy.gateway.rfc9111 import CachePolicy
from strangler_proxy.identity import SESSION_COOKIE, USER_COOKIE
from strangler_proxy.sections.fields import Strict, Token

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")


def _table(value: str) -> str:
    if not _TABLE.fullmatch(value):
        raise ValueError("a table is written as the change stream's mapping names it: table, or schema.table")
    return value


def _cookie(value: str) -> str:
    if value.encode() in (SESSION_COOKIE, USER_COOKIE):
        raise ValueError(f"{value} says who somebody is: answers for a logged-in user are not shared")
    return value


class CacheFile(Strict):
    """How much is kept, for how long, and what empties it."""

    fresh: Annotated[int, Field(ge=0, le=86_400_000)] = 0
    stale: Annotated[int, Field(ge=0, le=86_400_000)] = 0
    room: Annotated[int, Field(ge=65_536, le=17_179_869_184)] = 33_554_432
    largest: Annotated[int, Field(ge=1024, le=268_435_456)] = 1_048_576
    ignore_cookies: list[Annotated[Token, AfterValidator(_cookie)]] = Field(default_factory=list)
    tables: list[Annotated[str, AfterValidator(_table)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.largest > self.room:
            raise ValueError("largest is more than room")
        return self

    def value(self) -> CachePolicy:
        """The frozen value."""
        return CachePolicy(
            fresh=self.fresh / 1000,
            stale=self.stale / 1000,
            room=self.room,
            largest=self.largest,
            cookies=frozenset(name.encode() for name in self.ignore_cookies),
            tables=tuple(table if "." in table else f"public.{table}" for table in self.tables),
        )
