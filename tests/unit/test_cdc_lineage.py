"""Whether a source holds the log that the target was filled from."""

import pytest

from cdc.changes import Lsn
from cdc.lineage import Fork, Origin, Seen, judge, parse_history
from cdc.seams import BEGIN_ANEW, AwayError, StreamError

HOME = Origin("7001", 2, 16384)
HISTORY = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n"


def seen(*, system: str = "7001", timeline: int = 2, database: int = 16384, replays: bool = False) -> Seen:
    return Seen(Origin(system, timeline, database), Lsn.parse("0/6000000"), replays)


def check(found: Seen, position: str, *, stored: Origin | None = HOME, history: str = "") -> None:
    judge(stored, found, stream="s", position=Lsn.parse(position), history=parse_history(history))


def test_a_history_file_tells_where_each_timeline_was_left() -> None:
    assert parse_history(HISTORY) == (Fork(1, Lsn.parse("0/3000000")), Fork(2, Lsn.parse("0/5000000")))
    assert parse_history("# a comment\n") == ()


@pytest.mark.parametrize("line", ["1", "one\t0/3", "1\tthere"])
def test_a_history_that_is_not_understood_names_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 of the timeline's history"):
        parse_history(f"1\t0/3\n{line}")


@pytest.mark.parametrize(
    ("found", "position", "history"),
    [
        (seen(), "0/6000000", ""),
        (seen(timeline=3), "0/5000000", HISTORY),
        (seen(timeline=5), "0/4FFFFFF", f"{HISTORY}3\t0/5000100\twhy\n4\t0/5000200\twhy\n"),
    ],
)
def test_a_source_that_contains_the_position_is_taken(found: Seen, position: str, history: str) -> None:
    check(found, position, history=history)


@pytest.mark.parametrize(
    ("found", "position", "history", "part"),
    [
        (seen(system="9"), "0/1", "", "system identifier 7001, the source is another one"),
        (seen(database=5), "0/1", "", "OID 16384, the source's has 5"),
        (seen(), "0/6000001", "", "log, which ends at 0/6000000"),
        (seen(timeline=3), "0/5000001", HISTORY, "up to 0/5000001 lies behind 0/5000000"),
        (seen(timeline=3), "0/1", HISTORY.partition("\n")[0], "timeline 3 is no descendant"),
        (seen(timeline=1), "0/1", "", "timeline 1 is no descendant"),
    ],
)
def test_a_source_that_does_not_is_refused(found: Seen, position: str, history: str, part: str) -> None:
    with pytest.raises(StreamError, match=part) as caught:
        check(found, position, history=history)
    assert BEGIN_ANEW in str(caught.value)


def test_a_standby_that_still_replays_is_asked_again() -> None:
    with pytest.raises(AwayError, match="come to 0/6000000"):
        check(seen(replays=True), "0/6000001")


def test_a_position_whose_origin_was_never_noted_must_at_least_lie_in_the_log() -> None:
    check(seen(system="9", timeline=7), "0/6000000", stored=None)
    with pytest.raises(StreamError, match="an older copy"):
        check(seen(), "0/6000001", stored=None)
