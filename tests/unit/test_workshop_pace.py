"""How much traffic the demo asks for: what suits the machine, less when it slows down."""

from itertools import pairwise

from workshop import pace


def test_the_rate_fits_the_machine_within_bounds() -> None:
    assert pace.fitting_rate(0.020) == 30.0
    assert pace.fitting_rate(0.001) == pace.GREATEST_RATE
    assert pace.fitting_rate(1.0) == 15.0


def test_a_rate_is_eased_only_while_too_many_wait_and_never_to_nothing() -> None:
    assert pace.eased(40.0, waiting=60) == 40.0
    assert pace.eased(40.0, waiting=61) == 28.0
    rates = [40.0]
    for _ in range(20):
        rates.append(pace.eased(rates[-1], waiting=1000))
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rates[-1] == 5.0
    assert pace.eased(2.0, waiting=1000) == 2.0


def test_a_low_rate_comes_from_no_fewer_shoppers() -> None:
    assert pace.think(40.0) == 5.0
    assert pace.think(15.0) * 15.0 == 150.0
