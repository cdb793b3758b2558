"""The benchmark's arithmetic: medians, ratios within a round, verdicts, and what makes a result untrustworthy."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.proxy.corpus import GROUPS, SECRET, requests
from benchmarks.proxy.figures import ENVOY, NGINX, NODE, OURS, Body, Round, Setup, medians, ratio
from benchmarks.proxy.goals import Memory, Verdict, scaling, verdicts
from benchmarks.proxy.report import Result, table
from strangler_proxy.identity import USER_COOKIE, CookieSigner, cookie_value


def a_round(contender: str, rate: float, *, number: int = 0, **changes: Any) -> Round:
    """A good round on a quiet machine."""
    made = Round(
        contender=contender,
        setup=Setup(),
        number=number,
        requests=int(rate),
        requests_per_second=rate,
        p50_ms=1.0,
        p99_ms=2.0,
        p999_ms=3.0,
        errors=0,
        cpu_us=1e6 / rate,
        busy=1.0,
        others=0.0,
    )
    return replace(made, **changes)


def goal(found: list[Verdict], words: str) -> Verdict:
    """The one goal that has these words."""
    (verdict,) = [each for each in found if words in each.goal]
    return verdict


def test_median_is_of_each_figure_and_errors_are_the_sum() -> None:
    rounds = [a_round(OURS, rate, number=n, errors=n) for n, rate in enumerate((100, 900, 200))]
    (middle,) = medians(rounds)
    assert (middle.requests_per_second, middle.rounds, middle.errors) == (200, 3, 3)


def test_ratio_is_taken_within_a_round() -> None:
    """The machine was half as fast in round 1; taken apart, the medians would say 1.0 or 4.0."""
    assert ratio({0: 200.0, 1: 100.0, 2: 200.0}, {0: 100.0, 1: 50.0, 2: 100.0}) == 2.0
    with pytest.raises(ValueError, match="no round"):
        ratio({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(("ours", "met"), [(1_499, False), (1_500, True)])
def test_speed_is_judged_by_requests_per_second(ours: float, met: bool) -> None:
    verdict = goal(verdicts([a_round(OURS, ours), a_round(ENVOY, 1_000)], []), "x Envoy")
    assert verdict.met is met
    assert verdict.value == ours / 1_000


def test_peer_that_waited_is_named_beside_the_verdict() -> None:
    rounds = [a_round(OURS, 1_000), a_round(NGINX, 1_500, busy=0.5, cpu_us=333.0)]
    verdict = goal(verdicts(rounds, []), "x nginx")
    assert verdict.met
    assert "0.33 by processor time" in verdict.note
    assert "busy 50% of the time and could do more" in verdict.note


def test_slower_tail_than_envoys_misses_its_goal() -> None:
    rounds = [a_round(OURS, 1_000, p99_ms=2.1), a_round(ENVOY, 500, p99_ms=2.0)]
    assert not goal(verdicts(rounds, []), "p99").met


@pytest.mark.parametrize(("cost", "met"), [(104.9, True), (105.1, False)])
def test_many_groups_may_cost_five_percent_more_processor_time(cost: float, met: bool) -> None:
    many = Setup(groups=GROUPS)
    rounds = [a_round(OURS, 1_000, cpu_us=100.0), a_round(OURS, 1_000, setup=many, cpu_us=cost)]
    assert goal(verdicts(rounds, []), "500 groups").met is met


def test_scaling_compares_two_workers_with_one_of_the_same_contender() -> None:
    one, two = (Setup(workers=workers, pinned=False) for workers in (1, 2))
    rounds = [
        a_round(OURS, 1_000, setup=one, cpu_us=50.0),
        a_round(OURS, 1_700, setup=two, cpu_us=55.0),
        a_round(OURS, 900),  # pinned: not part of it
        a_round(NGINX, 9_000, setup=one),
    ]
    (found,) = scaling(rounds)
    assert (found.contender, found.rate, found.cpu) == (OURS, 1.7, 1.1)


def test_goals_without_measurements_are_not_there() -> None:
    found = verdicts([a_round(OURS, 1_000), a_round(NODE, 100)], [])
    assert [each.goal.split(" (")[0] for each in found] == ["requests/s at least 4 x http-proxy-middleware"]


def test_fewer_idle_connections_are_projected() -> None:
    held = Memory(
        contender=OURS,
        connections=2_000,
        empty_mb=40.0,
        idle_mb=120.0,
        streamed_mb=256,
        upload_above_mb=30.1,
        download_above_mb=30.0,
        slow_download_above_mb=1.0,
    )
    found = verdicts([], [held])
    idle = goal(found, "idle connections")
    assert (idle.value, idle.met) == (440.0, False)
    assert [each.met for each in found[1:]] == [False, True, True]


@pytest.mark.parametrize(
    ("bad", "words"),
    [({"errors": 3}, "3 errors"), ({"others": 0.2}, "something else used")],
)
def test_failed_requests_or_a_busy_machine_make_a_result_untrustworthy(
    bad: dict[str, Any], words: str
) -> None:
    rounds = [a_round(NGINX, 100), a_round(OURS, 50)]
    good = Result(command="", machine={}, versions={}, rounds=rounds)
    assert good.faults() == []
    assert "TRUSTED" not in table(good)
    spoiled = replace(good, rounds=[*rounds, a_round(ENVOY, 10, **bad)])
    assert any(words in fault for fault in spoiled.faults())
    assert words in table(spoiled)


def test_rows_of_the_file_say_what_they_were_measured_with() -> None:
    rounds = [a_round(OURS, 50, setup=Setup(body=Body.LARGE, connections=256))]
    written = Result(command="c", machine={}, versions={}, rounds=rounds).as_json()
    assert written["rounds"][0] | {"body": "100 KB", "connections": 256, "groups": 1} == written["rounds"][0]


def test_requests_differ_and_their_users_are_signed() -> None:
    corpus = requests(Body.SMALL)
    assert len(set(corpus)) == 10_000
    signer = CookieSigner(SECRET)
    subjects = {
        signer.verify(USER_COOKIE, cookie_value(line.removeprefix(b"Cookie: "), USER_COOKIE))
        for request in corpus
        for line in request.split(b"\r\n")
        if line.startswith(b"Cookie: ")
    }
    assert len(subjects) == 10_000
    assert b"" not in subjects
