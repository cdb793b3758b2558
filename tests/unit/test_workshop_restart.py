"""When a crashed process is started again."""

import pytest

from workshop.restart import GiveUp, Restart, RestartPolicy, after_crash

POLICY = RestartPolicy(first_delay=0.5, factor=2.0, longest_delay=3.0, crashes=5, window=60.0)


def test_delays_double_up_to_the_longest() -> None:
    crashes = [0.0, 1.0, 2.0, 3.0]
    delays = [after_crash(crashes[: count + 1], POLICY) for count in range(4)]
    assert delays == [Restart(0.5), Restart(1.0), Restart(2.0), Restart(3.0)]


def test_too_many_crashes_in_the_window_are_given_up_with_their_numbers() -> None:
    assert after_crash([0.0, 10.0, 20.0, 30.0, 59.0], POLICY) == GiveUp(crashes=5, seconds=59.0)


def test_a_long_healthy_time_forgets_old_crashes() -> None:
    assert after_crash([0.0, 1.0, 2.0, 3.0, 500.0], POLICY) == Restart(0.5)


@pytest.mark.parametrize(
    "fault", [{"first_delay": -1.0}, {"factor": 0.5}, {"longest_delay": 0.1}, {"crashes": 0}, {"window": 0.0}]
)
def test_an_impossible_policy_is_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|needed"):
        RestartPolicy(**fault)  # type: ignore[arg-type]  # one value of the wrong size at a time
