"""The rollback rule, case by case: what trips it, what must not, and what the verdict says of itself."""

import json
from decimal import Decimal
from threading import Thread

import pytest

from migration_plans.monitor import Monitor
from migration_plans.outcomes import Arm, Bad, Good, Outcome, read_items
from migration_plans.rollback import Limits, Rule, Ruling, Verdict, Watch, fold, judge
from migration_plans.sequential import Alternatives, ChangeDetector, spend, upper_bound

PERCENT = Decimal(25)
SECOND = 1_000_000_000


def bad(client: str, *, arm: Arm = Arm.CANARY, error: str = "status", at: float = 0.0) -> Bad:
    return Bad(arm, error, client, int(at * SECOND), PERCENT, 500 if error == "status" else None)


def good(count: int = 1, *, arm: Arm = Arm.CANARY, percent: Decimal = PERCENT) -> Good:
    return Good(arm, count, percent)


def after(*outcomes: Outcome, limits: Limits | None = None) -> Watch:
    watch = Watch.begin(limits or Limits(), percent=PERCENT)
    for outcome in outcomes:
        watch = fold(watch, outcome)
    return watch


def verdict(*outcomes: Outcome) -> Verdict:
    return judge(after(*outcomes))


CONTROL = good(3, arm=Arm.CONTROL)


def test_certain_failure_from_the_start_takes_two_requests() -> None:
    assert verdict(bad("a"), CONTROL).ruling is Ruling.KEEP
    seen = verdict(bad("a"), CONTROL, bad("b"), CONTROL)
    assert (seen.ruling, seen.rule) == (Ruling.ROLLBACK, Rule.START)


def test_an_answer_from_before_the_fault_that_arrives_late_costs_no_failure() -> None:
    """Two workers report on their own: one's good answer may come in after the other's first failure."""
    seen = verdict(good(50), bad("a"), CONTROL, good(), bad("b"), CONTROL, bad("c"), CONTROL)
    assert seen.ruling is Ruling.ROLLBACK
    assert (seen.to_detect.requests, seen.to_detect.failed) == (4, 3)
    assert "3 of the last 4" in seen.reason


@pytest.mark.parametrize("before", [40, 1000, 10_000, 1_000_000])
def test_certain_failure_after_any_number_of_good_requests_takes_three(before: int) -> None:
    seen = verdict(good(before), bad("a"), CONTROL, bad("b"), CONTROL, bad("c"))
    assert (seen.ruling, seen.rule) == (Ruling.ROLLBACK, Rule.CHANGE)
    assert (seen.to_detect.requests, seen.to_detect.failed) == (3, 3)


def test_cap_speaks_for_itself() -> None:
    # six of a hundred, spread so that neither test is alarmed first by a run of them
    outcomes: list[Outcome] = []
    for number in range(6):
        outcomes += [good(16), CONTROL, bad(f"client {number}", at=number * 20)]
    limits = Limits(alpha=1e-12, family_alpha=1e-11, run_length=1e12)
    seen = judge(after(*outcomes, limits=limits))
    assert (seen.ruling, seen.rule) == (Ruling.ROLLBACK, Rule.CAP)
    assert "5.9%" in seen.reason
    fewer = judge(after(*outcomes[3:], limits=limits))
    assert fewer.ruling is Ruling.KEEP, "the cap needs its hundred requests"


def test_two_refused_connections_are_categorical() -> None:
    assert verdict(CONTROL, bad("a", error="refused"), CONTROL).ruling is Ruling.KEEP
    seen = verdict(bad("a", error="refused"), CONTROL, bad("a", error="refused"))
    assert (seen.ruling, seen.rule) == (Ruling.ROLLBACK, Rule.REFUSED)
    with_answer_between = verdict(good(500), bad("a", error="refused"), good(), bad("a", error="refused"))
    assert with_answer_between.ruling is Ruling.KEEP


def test_burst_of_one_client_is_one_fact() -> None:
    seen = verdict(CONTROL, *(bad("poison", at=number * 0.04) for number in range(200)))
    assert seen.ruling is Ruling.KEEP
    assert (seen.canary_errors, seen.canary_failures, seen.canary_clients) == (200, 1, 1)


def test_patient_poison_client_needs_company() -> None:
    """One error each eleven seconds for ten minutes, then a single error of somebody else."""
    outcomes: list[Outcome] = [CONTROL]
    for number in range(60):
        outcomes += [good(5), bad("poison", at=number * 11)]
    seen = verdict(*outcomes, bad("somebody", at=700), CONTROL)
    assert seen.rule is not Rule.NONE
    assert seen.ruling is Ruling.KEEP
    assert "more than half" in seen.reason


def test_both_arms_failing_is_no_rollback() -> None:
    outcomes: list[Outcome] = []
    for number in range(3):
        outcomes += [bad(f"m{number}", arm=Arm.CONTROL), bad(f"c{number}")]
    seen = verdict(*outcomes, bad("m9", arm=Arm.CONTROL))
    assert seen.ruling is Ruling.PAUSE
    assert "monolith fails too" in seen.reason


def test_verdict_waits_for_the_monolith_but_not_beyond_the_third_failure() -> None:
    two = after(bad("a"), bad("b"))
    assert judge(two).ruling is Ruling.KEEP
    assert "awaited" in judge(two).reason
    assert judge(fold(two, CONTROL)).ruling is Ruling.ROLLBACK
    assert judge(fold(two, bad("c"))).ruling is Ruling.ROLLBACK


def test_requests_routed_at_another_percentage_are_not_evidence() -> None:
    stray = [Bad(Arm.CANARY, "status", str(number), 0, Decimal(10)) for number in range(10)]
    assert verdict(*stray, CONTROL).canary_requests == 0


def test_service_need_not_be_better_than_the_monolith() -> None:
    poor = Watch.begin(Limits(), percent=PERCENT, control_requests=10_000, control_errors=300)
    assert poor.alternatives.p0 == pytest.approx(upper_bound(10_000, 300))
    assert 0.03 < poor.alternatives.p0 < 0.036
    unknown = Watch.begin(Limits(), percent=PERCENT, control_requests=20, control_errors=0)
    assert unknown.alternatives.p0 == 0.01, "twenty requests say nothing about one per cent"


def test_steady_state_forgets_old_errors_and_still_notices_a_change() -> None:
    watch = after(good(500), bad("a"), good(5000)).settled()
    watch = fold(watch, good(5000))
    assert not watch.canary.failures_by_client
    for client in "abcd":
        watch = fold(fold(watch, bad(client, at=100)), CONTROL)
    assert judge(watch).rule is Rule.CHANGE


def test_verdict_explains_itself_in_json() -> None:
    seen = verdict(good(100), bad("a"), CONTROL, bad("b"), CONTROL, bad("c"))
    shape = json.loads(json.dumps(seen.as_dict()))
    assert shape["ruling"] == "rollback"
    assert shape["canary"] == {
        "requests": 103, "errors": 3, "trials": 103, "failures": 3, "clients": 3, "by_error": {"status": 3},
        "requests_to_detect": 3, "failures_to_detect": 3, "trials_to_detect": 3,
    }  # fmt: skip
    assert shape["change"]["e_value"] > shape["change"]["threshold"] == 11_000
    assert shape["control"]["requests"] == 6
    assert shape["deciding"]["client"] == "c"


def test_mixture_is_the_weighted_likelihood_ratio() -> None:
    alternatives = Alternatives.against(0.01)
    mixture = {0.01: 0.05, 0.04: 0.56, 0.1: 0.10, 0.25: 0.09, 0.5: 0.07, 0.9: 0.13}
    assert sum(mixture.values()) == pytest.approx(1)
    rates = {0.01 + 0.99 * part: weight for part, weight in mixture.items()}
    by_hand = sum(weight * (p1 / 0.01) ** 2 * ((1 - p1) / 0.99) ** 7 for p1, weight in rates.items())
    import math

    assert math.exp(alternatives.since_start(9, 2)) == pytest.approx(by_hand)


def test_detector_starts_again_from_nothing() -> None:
    alternatives = Alternatives.against(0.01)
    detector = ChangeDetector().after_failure(alternatives).after_success(alternatives, 1000)
    assert detector.quiet
    assert detector.after_failure(alternatives) == ChangeDetector().after_failure(alternatives)


@pytest.mark.parametrize(
    ("trials", "failures", "bound"),
    [(100, 0, 0.04501), (300, 0, 0.01523), (1000, 5, 0.01306), (50, 50, 1.0), (0, 0, 1.0)],
)
def test_upper_bound_is_that_of_clopper_and_pearson(trials: int, failures: int, bound: float) -> None:
    # by hand: 1 - 0.01 ** (1/n) for no failure; 0.99 quantile of Beta(6, 995) for five of a thousand
    assert upper_bound(trials, failures) == pytest.approx(bound, abs=2e-5)


def test_family_of_tests_never_spends_more_than_its_budget() -> None:
    shares = [spend(0.001, 0.01, test) for test in range(1, 200)]
    assert sum(shares) <= 0.01
    assert shares[:5] == [0.001] * 5
    assert all(share > 0 for share in shares)


def test_items_of_the_stream_are_read_and_a_broken_one_is_named() -> None:
    items = [
        {"arm": "control", "ok": 7, "percent": 25, "new": "ignored"},
        {"arm": "canary", "error": "timeout", "status": None, "client": "x", "at_ns": 5, "percent": 25.5},
    ]
    assert read_items(items) == [
        Good(Arm.CONTROL, 7, Decimal(25)),
        Bad(Arm.CANARY, "timeout", "x", 5, Decimal("25.5")),
    ]
    with pytest.raises(ValueError, match="breaks the contract"):
        read_items([{"arm": "canary", "percent": 25}])


def test_a_clock_that_went_back_mutes_no_client() -> None:
    before = [bad(f"shopper {number}", at=3600.0) for number in range(2)]
    healthy = [good(500), good(300, arm=Arm.CONTROL)]
    after_the_jump = [bad(f"shopper {number % 2}", at=float(20 * number)) for number in range(4)]
    seen = after(*before, *healthy, *after_the_jump)
    assert seen.canary.failures == 6, "what failed an hour 'later' says nothing of now"


def test_a_new_watch_is_not_undone_by_an_outcome_that_is_being_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turns run in a thread of their own, beside the reader of the outcome stream."""
    monitor = Monitor(Limits())
    monitor.watch_for(percent=PERCENT, test=1, steady=False)
    turns: list[Thread] = []

    def fold_while_a_turn_comes(watch: Watch, outcome: Outcome) -> Watch:
        turn = Thread(target=lambda: monitor.watch_for(percent=PERCENT * 2, test=2, steady=False))
        turn.start()
        turn.join(0.2)
        turns.append(turn)
        return fold(watch, outcome)

    monkeypatch.setattr("migration_plans.monitor.fold", fold_while_a_turn_comes)
    monitor.take(good(500))
    turns[0].join(5)
    assert monitor.watch is not None
    assert monitor.watch.percent == PERCENT * 2
    canary = monitor.canary()
    assert canary is None or canary.requests == 0, "evidence of the old percentage is none for the new one"
