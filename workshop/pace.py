"""How much traffic a machine can carry, so that a run is judged for the migration and not for the machine.

The rate is chosen once, by asking the shop, and lowered when answers become slow: the schedule of the shoppers
is open, so requests that come faster than they are answered would pile up until they time out.
"""

import time

import httpx

GREATEST_RATE = 40.0
_LEAST_RATE, _EASED_RATE = 15.0, 5.0
_LOAD = 0.6
# few shoppers would leave it to chance whether anybody is among the first 10 %
_SHOPPERS = 150
_THINK = 5.0
_TOO_SLOW = 1.5  # seconds that an answer takes on average
_EASE_BY = 0.7


def seconds_a_request(shop: str) -> float:
    """Mean time of a few requests of the usual kinds to `shop`, one after the other, warmed up."""
    with httpx.Client(base_url=shop, timeout=10.0) as client:
        slug = client.get("/api/products/").raise_for_status().json()["results"][0]["slug"]
        paths = (
            "/api/categories/",
            "/api/products/",
            f"/api/products/{slug}/",
            f"/api/products/{slug}/reviews/",
        )
        for path in paths:
            client.get(path).raise_for_status()
        began = time.monotonic()
        for path in paths * 4:
            client.get(path).raise_for_status()
        return (time.monotonic() - began) / (4 * len(paths))


def fitting_rate(seconds: float) -> float:
    """Requests a second that keep a monolith busy for about 60 %, within what makes a demo."""
    return round(min(max(_LOAD / seconds, _LEAST_RATE), GREATEST_RATE), 1)


def eased(rate: float, *, waiting: int) -> float:
    """`rate`, or less when `waiting` requests are too many for it.

    Little's law: as many wait as come in during the time of an answer.
    """
    if waiting <= _TOO_SLOW * rate:
        return rate
    return max(_EASE_BY * rate, min(rate, _EASED_RATE))


def think(rate: float) -> float:
    """Seconds that shoppers think, so that a low rate does not come from a few shoppers."""
    return max(_THINK, _SHOPPERS / rate)
