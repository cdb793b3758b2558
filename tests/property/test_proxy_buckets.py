"""Laws of the buckets: a user's side follows from the percentage alone, and moves one way."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.buckets import bucket_of, digest_of, in_canary
from strangler_proxy.decide import Arm, decide
from strangler_proxy.table import Group, Sticky, StickyKind, Timeouts

KEYS = st.binary(min_size=1, max_size=64)
THRESHOLDS = st.integers(min_value=0, max_value=10_000)
USERS = [b"user:%d" % number for number in range(10_000)]


def group(percent: Decimal, *, owner: str = "monolith") -> Group:
    """A group at `percent`."""
    return Group(
        name="catalog",
        backend="catalog",
        paths=("/api/*",),
        percent=percent,
        owner=owner,
        sticky=Sticky(StickyKind.USER),
        fallback=True,
        timeouts=Timeouts(),
    )


@given(key=KEYS, low=THRESHOLDS, high=THRESHOLDS)
def test_raising_only_adds_users_and_lowering_only_removes_them(key: bytes, low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)
    digest = digest_of("catalog", key)
    assert in_canary(digest, low) <= in_canary(digest, high)


@given(keys=st.lists(KEYS, min_size=2, max_size=50, unique=True), steps=st.lists(THRESHOLDS, max_size=10))
def test_the_last_to_come_is_the_first_to_go(keys: list[bytes], steps: list[int]) -> None:
    """Whoever is in at a threshold came at the same bucket it will leave at: order of arrival reversed."""
    digests = [digest_of("catalog", key) for key in keys]
    ramp = sorted(set(steps))
    came = [[digest for digest in digests if in_canary(digest, step)] for step in ramp]
    went = [[digest for digest in digests if in_canary(digest, step)] for step in reversed(ramp)]
    assert came == went[::-1]


@given(key=KEYS)
def test_nobody_at_zero_everybody_at_a_hundred(key: bytes) -> None:
    digest = digest_of("catalog", key)
    assert not in_canary(digest, 0)
    assert in_canary(digest, 10_000)
    assert 0 <= bucket_of(digest) < 10_000


@pytest.mark.parametrize("percent", [1, 5, 10, 25, 50, 75, 90, 99])
def test_share_is_within_a_point_at_ten_thousand_users(percent: int) -> None:
    chosen = sum(in_canary(digest_of("catalog", user), percent * 100) for user in USERS)
    assert abs(chosen / 100 - percent) <= 1


def test_shares_spread_as_chance_says() -> None:
    """Forty populations: one user's bucket says nothing about another's, so deviations are binomial."""
    deviations = []
    for population in range(40):
        digests = [digest_of("orders", b"user:%d-%d" % (population, number)) for number in range(10_000)]
        for percent in (10, 25, 50, 75):
            share = sum(in_canary(digest, percent * 100) for digest in digests) / 10_000
            sigma = (percent / 100 * (1 - percent / 100) / 10_000) ** 0.5
            deviations.append((share - percent / 100) / sigma)
    assert max(map(abs, deviations)) < 4
    assert 0.7 < (sum(each * each for each in deviations) / len(deviations)) ** 0.5 < 1.3


def test_ramp_flips_nobody_back() -> None:
    stages = [0, 10, 25, 50, 75, 100]
    before: set[bytes] = set()
    for percent in stages:
        now = {user for user in USERS if in_canary(digest_of("catalog", user), percent * 100)}
        assert before <= now
        before = now
    assert len(before) == len(USERS)


def test_groups_draw_independently() -> None:
    both = sum(
        in_canary(digest_of("catalog", user), 1000) and in_canary(digest_of("orders", user), 1000)
        for user in USERS
    )
    assert 60 <= both <= 140  # 100 expected; five standard deviations


def test_known_buckets_never_change() -> None:
    """A new release must not move users: these values are a promise."""
    assert [bucket_of(digest_of("catalog", b"user:%d" % number)) for number in range(5)] == KNOWN


KNOWN = [5525, 495, 5723, 5343, 3893]


@given(
    key=KEYS,
    percent=st.decimals(min_value=0, max_value=100, places=2),
    safe=st.booleans(),
    override=st.sampled_from(["", "canary", "control", "catalog", "monolith", "nonsense"]),
    owner=st.sampled_from(["monolith", "catalog"]),
)
def test_decisions(key: bytes, percent: Decimal, *, safe: bool, override: str, owner: str) -> None:
    digest = digest_of("catalog", key)
    made = decide(
        group=group(percent, owner=owner), default="monolith", safe=safe, digest=digest, override=override
    )
    assert (made.arm is Arm.CANARY) == (made.backend == "catalog")
    if not safe:
        assert made.backend == owner
        assert not made.fallback
        assert made.weight == (0 if owner == "monolith" else 100)
        assert made.evidence
    elif override in {"", "nonsense"}:
        assert made.evidence
        assert made.weight == percent
        assert (made.arm is Arm.CANARY) == in_canary(digest, int(percent * 100))
        assert made.fallback == (made.arm is Arm.CANARY)
    else:
        assert not made.evidence
        assert not made.fallback
        assert (made.arm is Arm.CANARY) == (override in {"canary", "catalog"})


def test_a_million_users_are_shared_within_a_fifth_of_a_point() -> None:
    """Binomial: at 50 % one standard deviation is 0.05 points, so 0.2 are four of them."""
    counts = [0] * 10_000
    for number in range(1_000_000):
        counts[bucket_of(digest_of("catalog", b"user:%d" % number))] += 1
    below = 0
    for threshold, count in enumerate(counts, start=1):
        below += count
        assert abs(below / 1_000_000 - threshold / 10_000) < 0.002, threshold
