"""The breaker's table, walked with a clock in the test's hand."""

from hypothesis import given
from hypothesis import strategies as st

from chassis.resilience.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(consecutive=5, window=20, rate=0.5, pause=1.0, longest_pause=3.0, probes=2)


def opened() -> Breaker:
    """A breaker that opened at 0 s."""
    breaker = Breaker(POLICY)
    for _ in range(5):
        assert breaker.permit(0.0)
        breaker.record(ok=False, now=0.0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_opens_at_the_nth_failure_in_a_row_and_not_before() -> None:
    breaker = Breaker(POLICY)
    for ok in (False, False, False, False, True, False, False, False, False):
        breaker.record(ok=ok, now=0.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.record(ok=False, now=0.0)
    assert breaker.state is BreakerState.OPEN


def test_opens_at_the_rate_over_a_full_window() -> None:
    breaker = Breaker(POLICY)
    for turn in range(19):
        breaker.record(ok=turn % 2 == 0, now=0.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.record(ok=False, now=0.0)
    assert breaker.state is BreakerState.OPEN


def test_old_outcomes_leave_the_window() -> None:
    breaker = Breaker(BreakerPolicy(consecutive=100, window=10, rate=0.5))
    for ok in [False] * 4 + [True] * 10 + [False] * 4 + [True] * 10:
        breaker.record(ok=ok, now=0.0)
    assert breaker.state is BreakerState.CLOSED


def test_refuses_until_its_pause_is_over_then_lets_probes_through() -> None:
    breaker = opened()
    assert not breaker.permit(0.99)
    assert breaker.retry_after(0.25) == 0.75
    assert breaker.permit(1.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.permit(1.0)
    assert not breaker.permit(1.0)


def test_good_probes_close_it() -> None:
    breaker = opened()
    for _ in range(2):
        assert breaker.permit(1.0)
    breaker.record(ok=True, now=1.1)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(ok=True, now=1.1)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.retry_after(1.1) == 0


def test_each_bad_probe_doubles_the_pause_up_to_the_longest() -> None:
    breaker = opened()
    now = 1.0
    for pause in (2.0, 3.0, 3.0):
        assert breaker.permit(now)
        breaker.record(ok=False, now=now)
        assert breaker.retry_after(now) == pause
        now += pause


def test_a_probe_without_evidence_gives_its_place_back() -> None:
    breaker = opened()
    assert breaker.permit(1.0)
    assert breaker.permit(1.0)
    assert not breaker.permit(1.0)
    breaker.forget()
    assert breaker.permit(1.0)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["permit", "ok", "bad", "forget"]), st.floats(0, 2)), max_size=80
    )
)
def test_never_more_probes_than_allowed_and_never_closed_by_waiting(events: list[tuple[str, float]]) -> None:
    breaker = opened()
    now = 0.0
    under_way = 0
    for kind, step in events:
        now += step
        before = breaker.state
        match kind:
            case "permit":
                under_way += breaker.permit(now) and breaker.state is BreakerState.HALF_OPEN
            case "forget":
                breaker.forget()
                under_way -= under_way > 0 and before is BreakerState.HALF_OPEN
            case _ if under_way or before is not BreakerState.HALF_OPEN:
                breaker.record(ok=kind == "ok", now=now)
                under_way -= under_way > 0
            case _:
                pass
        if breaker.state is not BreakerState.HALF_OPEN:
            under_way = 0
        assert under_way <= POLICY.probes
        if before is BreakerState.OPEN:
            assert breaker.state is not BreakerState.CLOSED


def test_calls_from_before_it_opened_say_nothing_about_the_probe() -> None:
    breaker = Breaker(BreakerPolicy(consecutive=2, pause=1.0))
    assert breaker.permit(0.0)
    old = breaker.epoch
    for _ in range(2):
        breaker.record(ok=False, now=0.0, epoch=old)
    assert breaker.permit(2.0)
    probe = breaker.epoch
    breaker.record(ok=True, now=2.0, epoch=old)
    breaker.forget(epoch=old)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.permit(2.0)
    breaker.record(ok=True, now=2.1, epoch=probe)
    assert breaker.state is BreakerState.CLOSED
