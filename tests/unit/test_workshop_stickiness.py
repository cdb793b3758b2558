"""Who changed sides without cause."""

from decimal import Decimal

from workshop.traffic.stickiness import Change, Sighting, Stickiness, Timeline, stickiness

TIMELINE = Timeline(
    [
        Change(first=0, last=0, percent=Decimal(0)),
        Change(first=10, last=10.2, percent=Decimal(25)),
        Change(first=20, last=20.2, percent=Decimal(0)),
        Change(first=30, last=30.2, percent=Decimal(25)),
        Change(first=40, last=40.2, percent=Decimal(50)),
    ]
)


def judge(*sightings: tuple[str, str, float]) -> Stickiness:
    seen = [Sighting(who, side, at, at + 0.01) for who, side, at in sightings]  # type: ignore[arg-type]
    return stickiness(seen, TIMELINE)


def test_the_percentage_of_an_answer_that_straddles_a_change_is_an_interval() -> None:
    assert TIMELINE.between(5, 6) == (Decimal(0), Decimal(0))
    assert TIMELINE.between(10.1, 10.15) == (Decimal(0), Decimal(25))
    assert TIMELINE.between(19.9, 20.05) == (Decimal(0), Decimal(25))
    assert TIMELINE.between(9, 41) == (Decimal(0), Decimal(50))
    assert TIMELINE.between(-2, -1) is None


def test_a_user_who_follows_the_percentage_is_not_counted() -> None:
    places = [("control", 5), ("canary", 12), ("control", 25), ("canary", 32), ("canary", 45)]
    found = judge(*[("a", side, at) for side, at in places])
    assert (found.users, found.flipped_back, found.jumped_ahead) == (1, 0, 0)


def test_back_on_control_at_the_same_percentage_is_a_flip() -> None:
    found = judge(("a", "canary", 12), ("a", "control", 13))
    assert found.flipped_back == 1
    assert "a: on canary at 25 %, then on control at 25 %" in found.examples


def test_back_on_control_at_a_greater_percentage_is_a_flip_even_after_a_rollback() -> None:
    assert judge(("a", "canary", 12), ("a", "control", 25), ("a", "control", 45)).flipped_back == 1


def test_ahead_of_the_percentage_that_left_a_user_behind() -> None:
    found = judge(("a", "control", 45), ("b", "control", 12), ("b", "canary", 32))
    assert (found.flipped_back, found.jumped_ahead) == (0, 1)


def test_what_may_have_happened_before_the_change_is_no_flip() -> None:
    found = judge(("a", "canary", 12), ("a", "control", 20.1), ("a", "canary", 30.1))
    assert (found.flipped_back, found.jumped_ahead) == (0, 0)
