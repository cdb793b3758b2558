"""How a stream begins, what has been applied already, and what the meter says."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.changes import Event, Lsn, Transaction, Watermark
from cdc.meter import LATENCY_BOUNDS_MS, Meter, SnapshotProgress, TableProgress, bucket, quantile
from cdc.pipeline import Start, StreamError, decide_start, not_yet_applied
from cdc.readahead import ReadAhead
from cdc.sources.slot import SlotState

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(-5_000, 70_000_000), max_size=40))
def test_each_transaction_is_counted_in_the_bucket_of_its_latency(microseconds: list[int]) -> None:
    meter = Meter()
    now = MOMENT + timedelta(days=1)
    commits = [now - timedelta(microseconds=each) for each in microseconds]
    meter.applied([Transaction(Lsn(9), commit, 1, ()) for commit in commits], now)
    counts = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    for each in microseconds:
        counts[bucket(each / 1_000)] += 1
    assert list(meter.facts(0.0).latencies) == counts


def slot(
    confirmed: int = 100, *, plugin: str = "pgoutput", lost: bool = False, database: str = "shop"
) -> SlotState:
    return SlotState("s", plugin, database, None, Lsn(confirmed), lost)


def transaction(position: int) -> Transaction:
    return Transaction(Lsn(position), MOMENT, 1, ())


@pytest.mark.parametrize(
    ("position", "state", "start"),
    [
        (None, None, Start.SNAPSHOT),
        (None, slot(), Start.SNAPSHOT_AGAIN),
        (Lsn(100), slot(100), Start.STREAM),
        (Lsn(150), slot(100), Start.STREAM),
    ],
)
def test_how_a_stream_begins(position: Lsn | None, state: SlotState | None, start: Start) -> None:
    assert decide_start(slot="s", database="shop", position=position, state=state) == start


@pytest.mark.parametrize(
    ("position", "state", "part"),
    [
        (Lsn(100), None, "does not exist on the source"),
        (Lsn(100), slot(100, lost=True), "max_slot_wal_keep_size"),
        (Lsn(100), slot(101), "restored from a backup"),
        (None, slot(plugin="wal2json"), "belongs to something else"),
        (Lsn(100), slot(plugin=""), "belongs to something else"),
        (None, slot(database="other"), "belongs to database other"),
        (Lsn(100), slot(database="other"), "belongs to database other"),
    ],
)
def test_a_stream_that_would_lose_changes_is_refused(
    position: Lsn | None, state: SlotState | None, part: str
) -> None:
    with pytest.raises(StreamError, match=part):
        decide_start(slot="s", database="shop", position=position, state=state)


def test_what_is_contained_in_the_position_is_left_out() -> None:
    events: list[Event] = [transaction(10), transaction(20), Watermark(Lsn(25)), transaction(30)]
    assert not_yet_applied(events, Lsn(20)) == [transaction(30)]
    assert not_yet_applied(events, Lsn(30)) == []


def test_an_idle_source_is_not_behind() -> None:
    meter = Meter()
    meter.reached(Lsn(100))
    meter.sample(Lsn(100), 0.0)
    meter.sample(Lsn(100), 60.0)
    facts = meter.facts(60.25)
    assert facts.lag_seconds == 0.0
    assert facts.lag_bytes == 0


def test_lag_is_the_age_of_the_oldest_unreached_sample() -> None:
    meter = Meter()
    meter.reached(Lsn(100))
    for now, end in ((0.0, 100), (1.0, 150), (2.0, 200), (3.0, 300)):
        meter.sample(Lsn(end), now)
    assert meter.facts(4.0).lag_seconds == 3.0
    assert meter.facts(4.0).lag_bytes == 200
    meter.reached(Lsn(160))
    assert meter.facts(4.0).lag_seconds == 2.0
    meter.reached(Lsn(300))
    assert meter.facts(3.5).lag_seconds == 0.0


def test_a_source_out_of_sight_is_not_taken_for_an_idle_one() -> None:
    meter = Meter()
    meter.reached(Lsn(100))
    meter.sample(Lsn(100), 10.0)
    assert meter.facts(10.5).lag_seconds == 0.0
    assert meter.facts(40.0).lag_seconds == 30.0


class Wide:
    """A source of transactions with few changes and many bytes."""

    def __init__(self) -> None:
        self.reads = 0
        self.full = threading.Event()

    def start(self, after: Lsn) -> None:
        """Nothing."""

    def read(self, timeout: float) -> list[Event]:
        """One transaction of 20 MB."""
        self.reads += 1
        assert self.reads < 100, "nothing bounds the reading"
        return [Transaction(Lsn(self.reads), MOMENT, 1, (), size=20_000_000)]

    def confirm(self, position: Lsn) -> None:
        """Nothing."""

    def answer(self) -> None:
        """Called while enough waits."""
        self.full.set()

    def close(self) -> None:
        """Nothing."""


def test_what_waits_is_bounded_in_bytes_too() -> None:
    source = Wide()
    with ReadAhead(source, max_changes=20_000) as ahead:
        assert source.full.wait(10)
        assert source.reads <= 5
        assert len(ahead.take(limit=5_000, timeout=1.0).events) == 1


def test_latencies_fill_the_histogram() -> None:
    meter = Meter()
    meter.applied([transaction(1)] * 99, MOMENT + timedelta(milliseconds=4))
    meter.applied([transaction(2)], MOMENT + timedelta(milliseconds=400))
    facts = meter.facts(0.0)
    assert sum(facts.latencies) == 100
    assert 3 <= (quantile(facts.latencies, 0.5) or 0) <= 5
    assert 300 <= (quantile(facts.latencies, 1.0) or 0) <= 500


def test_the_edges_of_the_histogram() -> None:
    assert bucket(-5.0) == 0
    assert bucket(1.0) == 0
    assert bucket(10_000_000.0) == len(LATENCY_BOUNDS_MS)
    assert quantile([0] * (len(LATENCY_BOUNDS_MS) + 1), 0.5) is None
    slow = [0] * len(LATENCY_BOUNDS_MS) + [3]
    assert quantile(slow, 0.5) == LATENCY_BOUNDS_MS[-1]


def test_snapshot_progress_knows_rate_and_time_left() -> None:
    progress = SnapshotProgress((TableProgress("a", 100, 300), TableProgress("b", 0, 100)), seconds=2.0)
    assert progress.rows_per_second == 50.0
    assert progress.seconds_left == 6.0
    assert SnapshotProgress((TableProgress("a", 0, 300),), 0.0).seconds_left is None
