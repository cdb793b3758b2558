"""When requests are due: a steady open-loop schedule. Pure and seeded.

Arrivals do not wait for answers. A driver that sends the next request only after the last answer slows down
exactly when the server does, and so leaves the worst moments out of its figures ("coordinated omission", Gil
Tene). Here a late answer changes nothing about when the next request is due, and latency is counted from the
time a request was due.
"""

from collections.abc import Iterator
from random import Random


def arrivals(rate: float, *, random: Random) -> Iterator[float]:
    """Seconds from the start at which requests are due: a Poisson stream of `rate` a second, without end.

    Raises ValueError for a rate that is not positive.
    """
    if rate <= 0:
        raise ValueError(f"the rate must be positive, not {rate}")

    def stream() -> Iterator[float]:
        due = 0.0
        while True:
            due += random.expovariate(rate)
            yield due

    return stream()
