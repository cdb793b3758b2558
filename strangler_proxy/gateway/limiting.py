"""The duty that limits rates: gathers the facts, asks the shared table, answers 429 with `Retry-After`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from strangler_proxy.duties import Admission, Call, Duty, Refusal
from strangler_proxy.gateway.rate_table import RateTable
from strangler_proxy.gateway.rates import (
    Counted,
    Facts,
    RateLimit,
    client_key,
    limit_lines,
    slot_key,
    worst,
)
from strangler_proxy.headers import value_of
from strangler_proxy.identity import USER_COOKIE, CookieSigner, cookie_value


class Limiting(Duty):
    """Applies `limits`. `clock` is the machine's monotonic one, which all workers share (the loop's own stands
    still while callbacks run)."""

    def __init__(
        self,
        limits: Sequence[RateLimit],
        *,
        table: RateTable,
        signer: CookieSigner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = tuple(limits)
        self._table = table
        self._signer = signer
        self._clock = clock
        self._asks_user = any(limit.counted is Counted.USER for limit in limits)

    def admit(self, call: Call) -> Admission:
        """Let the request go on when every limit does."""
        wanted = [
            (
                slot_key(limit, client_key(limit, self._facts(call, limit)), secret=self._signer.secret),
                limit.rate,
            )
            for limit in self._limits
        ]
        taken = self._table.take_all(wanted, self._clock())
        refused = worst(list(zip(self._limits, taken, strict=True)))
        if refused is None:
            return None
        limit, seconds = refused
        detail = f"too many requests: limit {limit.name} allows {limit.rate.per_second:g} a second on average"
        return Refusal(429, detail, limit_lines(limit, seconds), retry_after=seconds, kind="rate")

    def _facts(self, call: Call, limit: RateLimit) -> Facts:
        user = b""
        if self._asks_user:
            user = self._signer.verify(USER_COOKIE, cookie_value(call.request.head.cookies, USER_COOKIE))
        header = value_of(call.request.headers, limit.header) if limit.header else b""
        return Facts(call.origin.address, user, call.subject, header)
