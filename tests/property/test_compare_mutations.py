"""The comparison finds the faults of a rewritten candidate under the noise of real servers, and nothing else.

A smaller run than `python -m benchmarks.parity`, which measures what is claimed in its result."""

from collections import Counter

import pytest

from strangler_proxy.compare import Comparison, Verdict
from tests.parity_mutations import MUTATIONS
from tests.parity_traffic import Shop, judge, triple

ALARMS = {Verdict.REAL, Verdict.REPRESENTATION, Verdict.CANDIDATE_ERROR}
FAULTY = 8


def test_a_sound_candidate_raises_no_alarm() -> None:
    """With 4,000 pairs and none alarmed, the rate is below 0.1 % with 95 % confidence (3/n)."""
    shop = Shop(7)
    results: list[Comparison] = []
    verdicts: Counter[Verdict] = Counter()
    for _ in range(4000):
        result = judge(triple(shop, shop.ask()))
        verdicts[result.verdict] += 1
        if result.verdict in ALARMS | {Verdict.NOT_COMPARED}:
            results.append(result)
    assert not results
    # The run was no walkover: there was noise to see through, and a candidate that lagged.
    assert verdicts[Verdict.NOISE] > 1000
    assert verdicts[Verdict.STALE] > 10


def test_faults_are_found_under_noise() -> None:
    assert len(MUTATIONS) >= 40
    found: dict[str, int] = {}
    for number, (name, (endpoint, mutation)) in enumerate(MUTATIONS.items()):
        shop = Shop(number)
        judged: list[Verdict] = []
        for _ in range(1000):
            pair = triple(shop, shop.ask_for(endpoint), mutation)
            if pair.mutated:
                judged.append(judge(pair).verdict)
            if len(judged) == FAULTY:
                break
        assert len(judged) == FAULTY, f"{name} finds nothing to change"
        found[name] = sum(verdict in ALARMS for verdict in judged)
    rate = sum(found.values()) / (FAULTY * len(found))
    assert rate >= 0.95, {name: hits for name, hits in found.items() if hits < FAULTY}
    assert all(found.values()), [name for name, hits in found.items() if not hits]


@pytest.mark.parametrize("name", ["served_at", "request_id", "took_ms"])
def test_without_asking_the_control_again_noise_would_be_an_alarm(name: str) -> None:
    """The second question is what tells noise from fault: each noisy field alone needs it."""
    shop = Shop(3)
    pair = triple(shop, shop.ask_for("product"))
    result = judge(pair)
    assert result.verdict is Verdict.NOISE
    assert f"$.{name}" in {difference.path for difference in result.differences}
