"""What the benchmark of the change stream calls reached."""

from benchmarks.cdc.figures import NATIVE, OURS, PIPE, WORKS, Measurement, median, ratio
from benchmarks.cdc.goals import GOALS, verdicts


def _measured(work: str, **values: list[float]) -> list[Measurement]:
    names = {"ours": OURS, "native": NATIVE, "pipe": PIPE}
    return [
        Measurement(work=work, contender=names[name], round=number, value=value)
        for name, rounds in values.items()
        for number, value in enumerate(rounds)
    ]


def test_a_ratio_compares_within_rounds() -> None:
    # the machine was twice as slow in the second round; the medians alone would say 1.0
    measured = _measured("ten", ours=[90, 45, 90], native=[100, 50, 60])
    assert ratio(measured, "ten", NATIVE) == 0.9


def test_a_round_of_one_alone_is_no_ratio() -> None:
    measured = _measured("ten", ours=[90], native=[])
    assert ratio(measured, "ten", NATIVE) is None
    assert median(measured, "ten", OURS) == 90
    assert verdicts(measured) == []


def test_a_rate_is_met_from_its_bound_on() -> None:
    [met] = verdicts(_measured("snapshot", ours=[95.0], pipe=[100.0]))
    [missed] = verdicts(_measured("snapshot", ours=[94.9], pipe=[100.0]))
    assert (met.met, missed.met) == (True, False)
    assert (met.value, met.bound) == (0.95, 0.95)


def test_a_time_is_met_up_to_its_bound() -> None:
    [met] = verdicts(_measured("p99", ours=[15.0], native=[1.0]))
    [missed] = verdicts(_measured("p99", ours=[15.1], native=[99.0]))
    assert (met.met, missed.met) == (True, False)


def test_every_goal_is_for_a_work_and_a_peer_of_it() -> None:
    works = {work.name: work for work in WORKS}
    for goal in GOALS:
        assert not goal.peer or goal.peer in works[goal.work].peers
