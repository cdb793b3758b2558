"""Which instance takes a request, case by case."""

from strangler_proxy.cluster.choose import EXACT, Standing, choose


def test_the_fewest_pending_win() -> None:
    assert choose([Standing(3), Standing(1), Standing(2)], turn=7, safe=True) == 1


def test_equals_take_turns_also_beside_one_that_is_out() -> None:
    standings = [Standing(0), Standing(0, up=False), Standing(0)]
    assert [choose(standings, turn=turn, safe=True) for turn in range(6)] == [0, 2, 0, 2, 0, 2]


def test_one_that_is_down_gets_nothing_until_all_are() -> None:
    assert choose([Standing(9), Standing(0, up=False)], turn=0, safe=True) == 0
    assert choose([Standing(9, up=False), Standing(0, up=False)], turn=0, safe=True) == 1


def test_panic_does_not_overrule_breakers_nor_what_was_tried() -> None:
    down = Standing(0, up=False)
    assert choose([down, Standing(0, up=False, admits=False)], turn=1, safe=True) == 0
    assert choose([down, down], turn=0, safe=True, tried=[0]) == 1
    assert choose([down, down], turn=0, safe=True, tried=[0, 1]) is None
    # one is up but its breaker is open: nobody is asked who is known to be down
    assert choose([Standing(0, admits=False, proven=False), down], turn=0, safe=True) is None


def test_what_cannot_be_repeated_is_no_probe_while_there_is_a_choice() -> None:
    standings = [Standing(5), Standing(0, proven=False)]
    assert choose(standings, turn=0, safe=True) == 1
    assert choose(standings, turn=0, safe=False) == 0
    assert choose(standings[1:], turn=0, safe=False) == 0


def test_a_newcomer_takes_its_share_of_turns() -> None:
    standings = [Standing(0), Standing(0), Standing(0, share=0.25)]
    taken = [choose(standings, turn=turn, safe=True) for turn in range(30_000)]
    assert abs(taken.count(2) / 30_000 - 0.25 / 3) < 0.01


def test_nobody_is_nobody() -> None:
    assert choose([], turn=0, safe=True) is None


def test_many_instances_are_drawn_in_pairs_and_none_is_forgotten() -> None:
    standings = [Standing(0)] * (EXACT + 4)
    taken = [choose(standings, turn=turn, safe=True) for turn in range(24_000)]
    assert min(taken.count(place) for place in range(EXACT + 4)) > 1_700
