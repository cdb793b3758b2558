"""The demo's judgement: every promise can fail, and says with which numbers."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest

from cdc.meter import LATENCY_BOUNDS_MS, Phase
from cdc.status import CdcStatus
from migration_plans.ledger import Entry
from workshop import report
from workshop.checks import Check, run_checks, users_by_chance
from workshop.facts import (
    CdcFacts,
    Facts,
    Mark,
    RollbackFacts,
    ShareFacts,
    StageRun,
    TableFacts,
    VerifyFacts,
)
from workshop.observe import CanaryOutcome, Detection, LagSample, Observations, detection
from workshop.plots import lanes_of
from workshop.reckoning import cdc_facts, shares, stage_runs
from workshop.traffic.record import Latency, Seen, Slice
from workshop.traffic.stickiness import Change, Sighting, Stickiness, Timeline
from workshop.view import PlainView, Standing

START = 1_800_000_000.0
ROLLBACK = RollbackFacts(
    "ramp 25", Detection(3, 4, 6), 50.0, 49.0, int((START + 16) * 1e9), {"rule": "start", "e": 1.5}
)
GOOD = Facts(
    started=START,
    seconds=60.0,
    finished=True,
    trouble="",
    planned_stages=("prepare", "ramp 25", "ramp 100"),
    stages=(
        StageRun("prepare", START + 5, 1.0, 0.0),
        StageRun("ramp 25", START + 10, 5.0, 25.0),
        StageRun("ramp 25", START + 25, 5.0, 25.0),
        StageRun("ramp 100", START + 40, 5.0, 100.0),
    ),
    fault_at=START + 15,
    healed_at=START + 20,
    rollback=ROLLBACK,
    total=1000,
    rate=40.0,
    rate_at_end=40.0,
    by_arm={"control": 500, "canary": 300, "fallback": 3, "none": 197},
    by_status={"200": 990, "201": 10},
    faults=(),
    steps={"product": 1000},
    latency={"control": Latency(10.0, 20.0, 30.0)},
    slices=(
        Slice(START, {"control": 10}, {}, {"control": 8}),
        Slice(
            START + 30, {"control": 5, "canary": 5, "fallback": 1}, {"canary": 0}, {"canary": 5, "control": 5}
        ),
    ),
    stickiness=Stickiness(users=200, flipped_back=0, jumped_ahead=0, examples=()),
    shares=(ShareFacts(percent=25.0, users=100, canary=27),),
    verify=VerifyFacts("0/16B3748", {"product": TableFacts(2000, 0)}, writes_meanwhile=4, runs=3),
    cdc=CdcFacts(lag_ms_p50=4.0, lag_ms_p99=120.0, changes_applied=40, greatest_lag_seconds=0.2),
    lag=(LagSample(START + 10, 0.0, 0, None), LagSample(START + 11, 0.1, 512, 12.0)),
    splits=((START + 8, 0.0), (START + 10, 25.0)),
    marks=(
        Mark(START + 15, "fault", "fault: <b>rights</b> taken away"),
        Mark(START + 15.1, "rollback", "back"),
    ),
    stream_breaks=0,
    left_running=(),
)
FAILED = Seen("check out", False, "none", 500, START, START, START + 1, "u", "server error 500", "w1-7")


def failing(facts: Facts) -> list[Check]:
    return [check for check in run_checks(facts) if not check.passed]


def test_a_good_run_passes_every_check() -> None:
    assert failing(GOOD) == []


@pytest.mark.parametrize(
    ("change", "name", "numbers"),
    [
        ({"finished": False, "trouble": "waited 20 s"}, "all stages reached", "waited 20 s"),
        ({"stages": GOOD.stages[:2]}, "all stages reached", "not reached: ramp 100"),
        ({"rollback": None}, "rolled back after at most 3 canary requests", "no rollback happened"),
        (
            {"rollback": replace(ROLLBACK, detection=Detection(4, 4, 4))},
            "rolled back after at most 3 canary requests",
            "4 canary requests",
        ),
        (
            {"rollback": replace(ROLLBACK, actuation_ms=251.0)},
            "0 % in every worker within 250 ms of the deciding response",
            "251 ms",
        ),
        (
            {"rollback": replace(ROLLBACK, actuation_ms=float("inf"))},
            "0 % in every worker within 250 ms of the deciding response",
            "inf",
        ),
        ({"healed_at": START + 50}, "carried on by itself after the fault was gone", "no stage"),
        ({"faults": (FAILED,)}, "no shopper saw an error", "w1-7"),
        ({"total": 0}, "no shopper saw an error", "of 0"),
        ({"by_arm": {"fallback": 0}}, "failed safe requests were answered by the monolith", "0 requests"),
        ({"stickiness": Stickiness(200, 1, 0, ("u: x",))}, "no user changed sides without cause", "u: x"),
        ({"stickiness": Stickiness(200, 0, 1, ())}, "no user changed sides without cause", "1 jumped"),
        ({"stickiness": Stickiness(0, 0, 0, ())}, "no user changed sides without cause", "of 0 users"),
        (
            {"shares": (ShareFacts(25.0, 100, 60),)},
            "share of users follows the percentage",
            "60 of 100 users",
        ),
        ({"shares": ()}, "share of users follows the percentage", "no users"),
        (
            {"stages": (*GOOD.stages, StageRun("ramp 50", START + 30, 5.0, 50.0))},
            "share of users follows the percentage",
            "50 %: no users",
        ),
        ({"verify": None}, "both databases are equal, row by row, at one position", "not compared"),
        (
            {"verify": VerifyFacts("0/1", {"product": TableFacts(2000, 1)}, 4, 3)},
            "both databases are equal, row by row, at one position",
            "1 of 2000",
        ),
        (
            {"verify": VerifyFacts("0/1", {"product": TableFacts(2000, 0)}, 0, 3)},
            "both databases are equal, row by row, at one position",
            "0 writes",
        ),
        (
            {"verify": VerifyFacts("0/1", {"product": TableFacts(0, 0)}, 4, 3)},
            "both databases are equal, row by row, at one position",
            "0 of 0",
        ),
        ({"cdc": CdcFacts(4.0, 5_001.0, 40, 3.0)}, "the change stream kept up (p99 at most 5000 ms)", "5001"),
        (
            {"cdc": CdcFacts(None, None, 0, None)},
            "the change stream kept up (p99 at most 5000 ms)",
            "no change",
        ),
        ({"stream_breaks": 1}, "the demo saw every outcome", "broke 1 times"),
        ({"left_running": ("proxy (group 7)",)}, "nothing is left running", "proxy (group 7)"),
    ],
)
def test_each_promise_can_fail_and_says_why(change: dict[str, Any], name: str, numbers: str) -> None:
    found = {check.name: check for check in failing(replace(GOOD, **change))}
    assert name in found
    assert numbers in found[name].text
    assert found[name].where


@pytest.mark.parametrize(("percent", "users"), [(10.0, 30), (25.0, 130), (50.0, 1), (75.0, 10_000)])
def test_the_bounds_on_shares_are_exact_tails(percent: float, users: int) -> None:
    least, greatest = users_by_chance(percent, users)
    share = Fraction(percent) / 100

    def chance(counts: range) -> Fraction:
        return sum((comb(users, k) * share**k * (1 - share) ** (users - k) for k in counts), Fraction(0))

    assert 0 <= least <= share * users <= greatest <= users
    if users <= 130:  # exact fractions of 10,000 users take too long
        assert chance(range(least)) < 1e-6 <= chance(range(least + 1))
        assert chance(range(greatest + 1, users + 1)) < 1e-6 <= chance(range(greatest, users + 1))
    else:
        assert greatest - least < 0.05 * users


def bad(at_ns: int, client: str = "", *, percent: int = 25) -> CanaryOutcome:
    return CanaryOutcome(
        1, failed=True, percent=Decimal(percent), at_ns=at_ns, client=client or f"client {at_ns}"
    )


def good(count: int) -> CanaryOutcome:
    return CanaryOutcome(count, failed=False, percent=Decimal(25))


def detected(outcomes: list[CanaryOutcome], *, since: int, decided: int) -> Detection:
    return detection(
        outcomes, percent=Decimal(25), since_ns=since, decided_ns=decided, client_window=10.0
    )  # fmt: skip


def test_detection_counts_from_the_first_failure_after_the_last_good_answer() -> None:
    outcomes = [bad(10), good(50), bad(100), good(2), bad(110), bad(120), bad(130)]
    assert detected(outcomes, since=90, decided=120) == Detection(2, 2, 5)
    assert detected(outcomes, since=105, decided=110) == Detection(1, 1, 1)
    assert detected(outcomes, since=90, decided=130) == Detection(3, 3, 6)
    assert detected([], since=0, decided=1) == Detection(0, 0, 0)


def test_detection_counts_a_client_once_in_its_window_and_other_percentages_never() -> None:
    second = 10**9
    outcomes = [bad(second, "a"), bad(2 * second, "a"), bad(3 * second, "b"), bad(12 * second, "a")]
    assert detected(outcomes, since=0, decided=12 * second) == Detection(3, 4, 4)
    # a repetition of a failure that a good answer has outlived is still one
    outcomes = [bad(second, "a"), good(1), bad(2 * second, "a"), bad(3 * second, "b"), bad(4 * second, "c")]
    assert detected(outcomes, since=0, decided=4 * second) == Detection(2, 3, 5)
    outcomes = [bad(1, percent=10), bad(2), bad(3)]
    assert detected(outcomes, since=0, decided=3) == Detection(2, 2, 2)


def test_a_controller_that_needs_more_failures_is_seen() -> None:
    outcomes = [good(20), *(bad(number) for number in range(1, 6))]
    assert detected(outcomes, since=0, decided=5).trials == 5


def test_lag_counts_from_the_first_percentage_on() -> None:
    def status(slow: int, quick: int) -> CdcStatus:
        histogram = (quick, *(0,) * (len(LATENCY_BOUNDS_MS) - 1), slow)
        return CdcStatus(
            "s", Phase.STREAMING, "", 0.1, True, None, None, None, 0, 0.0, 9, 9, 0, None, 1.0, 60_000.0, histogram
        )  # fmt: skip

    seen = Observations(cdc=status(3, 40), latencies_before=status(3, 0).latencies)
    assert cdc_facts(seen).lag_ms_p99 == pytest.approx(1.0, abs=0.02)
    seen = Observations(cdc=status(3, 40))
    assert cdc_facts(seen).lag_ms_p99 == 60_000.0


def entry(second: int, event: str, stage: str, percent: str) -> Entry:
    at = datetime.fromtimestamp(START + second, UTC).isoformat()
    return Entry(second, at, "controller", event, "", stage, percent, {}, "")


def test_stays_in_stages_are_read_off_the_ledger() -> None:
    history = [
        entry(0, "start", "prepare", "0"),
        entry(1, "entered", "prepare", "0"),
        entry(2, "passed", "ramp 25", "25"),
        entry(3, "entered", "ramp 25", "25"),
        entry(6, "tripped", "ramp 25", "0"),
        entry(7, "at_zero", "ramp 25", "0"),
        entry(9, "retry", "ramp 25", "25"),
        entry(10, "entered", "ramp 25", "25"),
    ]
    runs = [(run.name, run.started - START, run.seconds, run.percent) for run in
            stage_runs(history, ended=START + 15)]  # fmt: skip
    assert runs == [("prepare", 1, 1, 0.0), ("ramp 25", 3, 3, 25.0), ("ramp 25", 10, 5, 25.0)]


def test_shares_count_users_at_times_of_one_certain_percentage() -> None:
    timeline = Timeline([Change(0, 0, Decimal(0)), Change(10, 11, Decimal(25)), Change(20, 21, Decimal(100))])
    seen = [
        Sighting("a", "canary", 12, 12.1),
        Sighting("a", "canary", 13, 13.1),
        Sighting("b", "control", 12, 12.1),
        Sighting("c", "control", 10.5, 10.6),
        Sighting("d", "canary", 25, 25.1),
    ]
    assert list(shares(seen, timeline)) == [ShareFacts(percent=25.0, users=2, canary=1)]


def test_the_report_has_every_field_that_was_promised(tmp_path: Path) -> None:
    as_data, as_page = report.write(tmp_path, GOOD, run_checks(GOOD))
    data = json.loads(as_data.read_text())
    assert data["result"] == "passed"
    assert data["seconds"] == 60.0
    assert set(data["stages"][0]) == {"name", "started", "seconds", "percent"}
    assert {"stage", "canary_requests_to_detect", "actuation_ms", "verdict"} <= set(data["rollback"])
    assert {"total", "by_arm", "user_visible_errors", "by_status"} <= set(data["requests"])
    assert data["verify"]["tables"]["product"] == {"rows": 2000, "differing": 0}
    assert data["verify"]["position"] == "0/16B3748"
    assert {"lag_ms_p50", "lag_ms_p99", "changes_applied"} <= set(data["cdc"])
    assert {"users", "flipped_back"} <= set(data["stickiness"])
    page = as_page.read_text()
    assert page.count("<svg") == 3
    assert "&lt;b&gt;rights" in page
    assert "<b>rights" not in page
    for outside in ("http://", "https://", "url(http", "<script", "<link", "src="):
        assert outside not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        ).replace("https://matplotlib.org", ""), outside


def test_names_of_marks_overlap_neither_each_other_nor_lines() -> None:
    far = [(0.0, "ramp 10"), (0.3, "ramp 25"), (0.99, "verified")]
    assert lanes_of(far) == [0, 0, 0]
    close = [(0.40, "fault"), (0.41, "rolled back"), (0.45, "healed"), (0.46, "ramp 25"), (0.6, "ramp 50")]
    # each stands above the marks it reaches over, whose lines end below it
    assert lanes_of(close) == [3, 2, 1, 0, 0]
    assert lanes_of([]) == []


def test_a_run_that_ended_at_once_still_has_a_report(tmp_path: Path) -> None:
    nothing = replace(
        GOOD, finished=False, trouble="it broke", stages=(), rollback=None, fault_at=None, healed_at=None,
        total=0, by_arm={}, by_status={}, latency={}, slices=(), shares=(), verify=None, lag=(), splits=(),
        marks=(), cdc=CdcFacts(None, None, 0, None),
    )  # fmt: skip
    as_data, _ = report.write(tmp_path, nothing, run_checks(nothing))
    assert json.loads(as_data.read_text())["result"] == "failed"


def test_the_plain_view_tells_events_at_once_and_standings_now_and_then() -> None:
    import time

    lines: list[str] = []
    view = PlainView(started=time.time(), write=lines.append)
    standing = Standing(("prepare", "ramp 25"), 1, "soaking", 25.0, 70, 25, 5, 100, 0, 33.3, 4.0)
    view.stand(standing)
    view.stand(standing)
    view.happened(Mark(time.time(), "stage", "ramp 25"))
    assert len(lines) == 2
    assert "ramp 25 soaking; 25 % wanted, 25 % answered by the service" in lines[0]
    assert lines[1].endswith("s  stage ramp 25")
