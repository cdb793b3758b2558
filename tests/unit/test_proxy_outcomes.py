"""Counters, runs, histogram, distinct clients, frames: what a worker drains is what the parent shows."""

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.clients import DistinctClients
from strangler_proxy.decide import Arm
from strangler_proxy.link import Decoder, FrameError, encode
from strangler_proxy.outcomes import LATENCY_BOUNDS, MOST_ITEMS, Failure, Recorder
from strangler_proxy.totals import Totals, evidence, quantile
from strangler_proxy.worker import FlushTimes


def good(recorder: Recorder, arm: Arm, *, status: int = 200, client: int = 1, weight: float = 25) -> None:
    """A good answer."""
    recorder.answered("g", arm, status=status, latency_ms=3.0, client=client, weight=weight)


def bad(recorder: Recorder, arm: Arm, number: int, failure: Failure = Failure.STATUS) -> None:
    """A failure."""
    recorder.failed(
        "g",
        arm,
        failure=failure,
        status=500,
        latency_ms=3.0,
        client=number,
        weight=25.0,
        at_ns=number,
        request_id=str(number),
        path="/p",
    )


def test_good_answers_are_batched_in_runs_and_order_is_kept() -> None:
    recorder = Recorder()
    for _ in range(3):
        good(recorder, Arm.CANARY)
    bad(recorder, Arm.CANARY, 7)
    good(recorder, Arm.CANARY)
    good(recorder, Arm.CONTROL)
    good(recorder, Arm.CONTROL, weight=0)
    good(recorder, Arm.CONTROL, weight=0, status=404)
    good(recorder, Arm.CONTROL, weight=0)
    wire = recorder.drain()
    assert wire is not None
    items = evidence(wire)["g"]
    assert [(item["arm"], item.get("ok"), item["percent"]) for item in items] == [
        ("canary", 3, 25),
        ("canary", None, 25),
        ("canary", 1, 25),
        ("control", 1, 25),
        ("control", 2, 0),
    ]
    assert items[1] == {
        "arm": "canary",
        "error": "status",
        "status": 500,
        "client": f"{7:016x}",
        "at_ns": 7,
        "latency_ms": 3.0,
        "request_id": "7",
        "path": "/p",
        "percent": 25,
    }
    assert recorder.drain() is None


def test_evidence_without_room_is_counted_and_what_was_counted_stays_exact() -> None:
    recorder, totals = Recorder(), Totals()
    for number in range(MOST_ITEMS + 3):
        bad(recorder, Arm.CANARY, number)
    good(recorder, Arm.CANARY)
    good(recorder, Arm.CANARY)
    wire = recorder.drain()
    assert wire is not None
    totals.add(wire)
    assert totals.dropped == 5
    assert len(evidence(wire)["g"]) == MOST_ITEMS
    assert totals.group("g")[Arm.CANARY].counts.requests == MOST_ITEMS + 5
    good(recorder, Arm.CANARY)
    wire = recorder.drain()
    assert wire is not None
    assert evidence(wire) == {"g": [{"arm": "canary", "ok": 1, "percent": 25}]}


def test_hundreds_of_groups_drain_what_happened_and_nothing_else() -> None:
    recorder, totals = Recorder(), Totals()
    for _ in range(2):
        for number in range(500):
            recorder.answered(f"g{number}", Arm.CONTROL, status=200, latency_ms=1.2, client=number, weight=5)
        wire = recorder.drain()
        assert wire is not None
        totals.add(wire)
    assert len(json.dumps(wire)) < 500 * 50  # the second time there is no new client
    recorder.answered("g7", Arm.CANARY, status=204, latency_ms=1.25, client=1, weight=5)
    wire = recorder.drain()
    assert wire is not None
    assert wire["names"] == ["g7"]
    totals.add(wire)
    assert len(totals.groups) == 500
    shown = totals.group("g7")
    assert shown[Arm.CONTROL].counts.latency_ms_sum == 2.4
    assert (shown[Arm.CANARY].counts.by_status, shown[Arm.CANARY].counts.latency_ms_sum) == ({204: 1}, 1.25)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(list(Arm)),
        st.sampled_from(["ok", "404", "bad", "timeout", "fallback", "rejected", "aborted", "overridden"]),
        st.integers(0, 30),
        st.integers(0, 2),
    ),
    max_size=120,
)


@given(events=EVENTS, drains=st.sets(st.integers(0, 120)))
def test_sums_do_not_depend_on_workers_or_on_when_they_are_drained(
    events: list[tuple[Arm, str, int, int]], drains: set[int]
) -> None:
    workers = [Recorder(), Recorder(), Recorder()]
    totals = Totals()
    expected: Counter[tuple[Arm, str]] = Counter()
    clients: dict[Arm, set[int]] = {Arm.CONTROL: set(), Arm.CANARY: set()}
    items = 0
    for position, (arm, kind, client, worker) in enumerate(events):
        recorder = workers[worker]
        expected[(arm, kind)] += 1
        match kind:
            case "ok":
                good(recorder, arm, client=client)
            case "404":
                good(recorder, arm, client=client, status=404)
            case "bad":
                bad(recorder, arm, client)
            case "timeout":
                bad(recorder, arm, client, Failure.TIMEOUT)
            case "fallback":
                recorder.fell_back("g", arm, good=True)
            case "rejected":
                recorder.rejected("g", arm)
            case "aborted":
                recorder.aborted("g", arm)
            case _:
                recorder.overridden("g", arm)
        if kind in {"ok", "404", "bad", "timeout"}:
            clients[arm].add(client)
        if position in drains:
            items += add(totals, recorder)
    for recorder in workers:
        items += add(totals, recorder)
    assert items == sum(count for (_, kind), count in expected.items() if kind in {"ok", "bad", "timeout"})
    for arm in Arm:
        shown = totals.group("g")[arm].as_json()
        failures = expected[(arm, "bad")] + expected[(arm, "timeout")]
        assert shown["errors"] == failures
        assert shown["timeouts"] == expected[(arm, "timeout")]
        assert shown["requests"] == failures + expected[(arm, "ok")] + expected[(arm, "404")]
        assert shown["fallbacks"] == expected[(arm, "fallback")]
        assert shown["breaker_rejections"] == expected[(arm, "rejected")]
        assert shown["aborted"] == expected[(arm, "aborted")]
        assert shown["overridden"] == expected[(arm, "overridden")]
        assert shown["clients"] == len(clients[arm])
        assert sum(shown["by_status"].values()) == shown["requests"]
        assert sum(totals.group("g")[arm].counts.latency) == shown["requests"]


def add(totals: Totals, recorder: Recorder) -> int:
    """Drain through JSON, as in life; the number of outcomes among the items."""
    wire = recorder.drain()
    if wire is None:
        return 0
    wire = json.loads(json.dumps(wire))
    totals.add(wire)
    return sum(item.get("ok", 1) for item in evidence(wire).get("g", []))


def test_quantiles_are_within_their_bucket() -> None:
    latencies = sorted(random.Random(3).lognormvariate(2.5, 1.0) for _ in range(5000))
    recorder = Recorder()
    for latency in latencies:
        recorder.answered("g", Arm.CONTROL, status=200, latency_ms=latency, client=1, weight=0)
    wire = recorder.drain()
    assert wire is not None
    totals = Totals()
    totals.add(wire)
    histogram = totals.group("g")[Arm.CONTROL].counts.latency
    for share in (0.5, 0.95, 0.99):
        true = latencies[round(share * 5000) - 1]
        bound = next(bound for bound in LATENCY_BOUNDS if bound >= true)
        below = max((bound for bound in LATENCY_BOUNDS if bound < true), default=0.0)
        shown = quantile(histogram, share)
        assert shown is not None
        assert below <= shown <= bound
    assert quantile([0] * len(histogram), 0.5) is None
    assert quantile([0] * (len(histogram) - 1) + [5], 0.5) == LATENCY_BOUNDS[-1]


def test_clients_are_exact_below_the_cap_and_close_above() -> None:
    dice = random.Random(11)
    small, large = DistinctClients(cap=1000), DistinctClients(cap=1000)
    for number in range(1000):
        assert small.add(number)
        assert not small.add(number)
    assert small.count() == 1000
    digests = [dice.getrandbits(64) for _ in range(100_000)]
    for digest in digests:
        large.add(digest)
    assert abs(large.count() / 100_000 - 1) < 0.05  # three standard errors
    assert not any(large.add(digest) for digest in digests)


def test_parent_that_hears_only_of_changes_counts_as_if_it_had_seen_everything() -> None:
    dice = random.Random(5)
    workers = [DistinctClients(cap=500), DistinctClients(cap=500)]
    parent, witness = DistinctClients(cap=500), DistinctClients(cap=500)
    forwarded = 0
    for _ in range(20_000):
        digest = dice.getrandbits(64)
        witness.add(digest)
        if workers[dice.randrange(2)].add(digest):
            forwarded += 1
            parent.add(digest)
    assert parent.count() == witness.count()
    assert forwarded < 20_000


@given(
    messages=st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=4), max_size=6
    ),
    places=st.lists(st.integers(0, 500), max_size=8),
)
def test_frames_survive_any_cut(messages: list[dict[str, Any]], places: list[int]) -> None:
    stream = b"".join(encode(message) for message in messages)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    decoder = Decoder()
    read = [
        message for start, end in itertools.pairwise(edges) for message in decoder.feed(stream[start:end])
    ]
    assert read == messages


def test_foreign_bytes_are_no_frame() -> None:
    with pytest.raises(FrameError):
        list(Decoder().feed(b"HTTP/1.1 200 OK"))


def test_burst_of_failures_does_not_delay_the_next_ones() -> None:
    times = FlushTimes()
    for _ in range(1000):
        assert times.due(5.0, urgent=True) == 5.0
    times.flushed(5.0)
    assert times.due(5.001, urgent=True) == 5.002
    assert times.due(5.1, urgent=True) == 5.1
    assert times.due(5.1, urgent=False) == 5.1 + 0.015
