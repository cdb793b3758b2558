"""Who walks in: mostly people who look around, some with an account, now and then somebody from the staff.

Every shopper with an account has one of their own, so that two shoppers are never one user by chance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from workshop.layout import Seed
from workshop.traffic.accounts import buy, change_price, log_in, review
from workshop.traffic.journeys import Journey, browse, search
from workshop.traffic.pages import stroll

STAFF = "staff@shop.test"
_WITH_ACCOUNT_EVERY = 4
_STAFF_EVERY = 12

_AROUND: tuple[Callable[[Random], Journey], ...] = (browse, browse, search)
# a page costs the monolith a few times what an answer of the API does: a few percent of the requests
_WITH_PAGES: tuple[Callable[[Random], Journey], ...] = (*_AROUND * 4, stroll)
_WITH_ACCOUNT: tuple[Callable[[Random], Journey], ...] = (browse, search, buy, buy, review)
_STAFF: tuple[Callable[[Random], Journey], ...] = (change_price, change_price, browse)


@dataclass(slots=True)
class Visitor:
    """What a shopper is. `account` (an e-mail address) is empty for somebody who never logs in."""

    account: str = ""
    password: str = ""
    habits: tuple[Callable[[Random], Journey], ...] = _AROUND
    looks_first: bool = False
    logged_in: bool = False

    def choose(self, random: Random) -> Journey:
        """The next journey: log in when there is an account (some look around before), then as one pleases."""
        if self.looks_first:
            self.looks_first = False
            return random.choice(_AROUND)(random)
        if self.account and not self.logged_in:
            self.logged_in = True
            return log_in(self.account, self.password)
        return random.choice(self.habits)(random)


@dataclass(slots=True)
class Visitors:
    """Hands out visitors; accounts are those of `seed_shop`, at most `seed.users` of them.

    With `pages` the shop has a storefront, and those without an account look at its pages too.
    """

    password: str
    seed: Seed
    pages: bool = False
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _accounts: "count[int]" = field(default_factory=lambda: count(1))

    def next(self, _random: Random) -> Visitor:
        """The next one."""
        number = next(self._numbers)
        if number % _STAFF_EVERY == _WITH_ACCOUNT_EVERY + 1:
            return Visitor(STAFF, self.password, _STAFF)
        if number % _WITH_ACCOUNT_EVERY == 0:
            account = next(self._accounts)
            if account <= self.seed.users:
                email = f"shopper{account:04d}@shop.test"
                return Visitor(email, self.password, _WITH_ACCOUNT, looks_first=account % 3 == 0)
        return Visitor(habits=_WITH_PAGES if self.pages else _AROUND)
