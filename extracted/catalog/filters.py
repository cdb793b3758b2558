"""`?category=&brand=&min_price=&max_price=&released_after=&search=&ordering=`: parameters → Selection.

One difference from the shop is on purpose: where a price has more digits than PostgreSQL's numeric holds
(`1e-400000`), the shop fails with 500, and this does not copy the failure.
"""

from collections.abc import Callable
from decimal import Decimal

from chassis.drf import forms
from chassis.drf.answers import invalid
from chassis.drf.query import Query
from extracted.catalog import rules
from extracted.catalog.rules import Selection, SortField, SortTerm


def wanted_category(query: Query) -> str | None:
    """The category slug whose existence `read_selection` needs to know; None when it need not."""
    slug = query.get("category")
    return slug if slug and "\x00" not in slug else None


def read_selection(query: Query, *, category_known: bool) -> Selection:
    """The selection that `query` asks for. Raises ApiError (400) that lists the faults of all parameters."""
    values, faults = forms.clean_all(
        {
            "category": lambda: forms.clean_choice(query.get("category"), known=category_known),
            "brand": lambda: forms.clean_text(query.get("brand")),
            "min_price": lambda: forms.clean_number(query.get("min_price")),
            "max_price": lambda: forms.clean_number(query.get("max_price")),
            "released_after": lambda: forms.clean_date(query.get("released_after"), forms.BRITISH_DATES),
            "search": lambda: forms.clean_text(query.get("search")),
        }
    )
    if faults:
        raise invalid(faults)
    return Selection(
        category=values["category"],
        brand=values["brand"],
        min_cents=_apply(rules.least_cents, values["min_price"]),
        max_cents=_apply(rules.most_cents, values["max_price"]),
        released_after=values["released_after"],
        words=values["search"],
        ordering=read_ordering(query.get("ordering")),
    )


def _apply(rounded: Callable[[Decimal], int], price: Decimal | None) -> int | None:
    return None if price is None else rounded(price)


def read_ordering(raw: str | None) -> tuple[SortTerm, ...]:
    """`price,-rating` → terms, as `rest_framework.filters.OrderingFilter`: unknown names are ignored."""
    known = {field.value: field for field in SortField}
    terms = [
        SortTerm(known[name.removeprefix("-")], descending=name.startswith("-"))
        for name in (part.strip() for part in (raw or "").split(","))
        if name.removeprefix("-") in known
    ]
    return tuple(terms)
