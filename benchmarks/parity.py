"""How well the comparison tells a faulty candidate from a sound one, beside Diffy's rule on the same traffic.

    python -m benchmarks.parity [--pairs 12000] [--faults 80] [--requests 500] [--seed 1] [--output FILE]

The traffic is a simulated shop with the noise of real servers (`tests/parity_traffic.py`); the faults are those
of a rewritten candidate (`tests/parity_mutations.py`). Measured:

* false alarms: pairs of a sound candidate judged REAL, REPRESENTATION or CANDIDATE_ERROR;
* recall: pairs of a faulty candidate judged so, for each fault and over all;
* Diffy's rule (a field is reported when its differences outnumber the control's own, by more than 20 % of
  both together and by more than 0.03 % of the requests): it judges fields over a whole run, not requests, so
  its figures are faults reported, in runs where every request is faulty and where one in fifty is, and fields
  reported though the candidate is sound. It sees the same answers and the same headers, and no rules, which it
  does not know.

Everything follows from the seed; the same command gives the same figures.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strangler_proxy.compare import Recorded, Verdict, decoded
from strangler_proxy.compare_headers import COMPARED
from tests.parity_mutations import MUTATIONS
from tests.parity_traffic import ENDPOINTS, Shop, Triple, judge, triple

ALARMS = frozenset({Verdict.REAL, Verdict.REPRESENTATION, Verdict.CANDIDATE_ERROR})
RARE = 50  # one request in so many is faulty


def false_alarms(seed: int, pairs: int) -> dict[str, Any]:
    """What the comparison says of a sound candidate."""
    shop = Shop(seed)
    verdicts = Counter(judge(triple(shop, shop.ask())).verdict for _ in range(pairs))
    alarms = sum(verdicts[verdict] for verdict in ALARMS)
    return {
        "pairs": pairs,
        "alarms": alarms,
        "rate": alarms / pairs,
        "by_verdict": {verdict.value: verdicts[verdict] for verdict in Verdict},
    }


def recall(seed: int, faults: int) -> dict[str, Any]:
    """What it says of faulty ones: `faults` faulty pairs for each kind of fault."""
    found: dict[str, float] = {}
    missed: Counter[str] = Counter()
    for number, (name, (endpoint, _)) in enumerate(MUTATIONS.items()):
        shop = Shop(seed * 1000 + number)
        hits = 0
        for _ in range(faults):
            verdict = judge(_faulty(shop, endpoint, name)).verdict
            hits += verdict in ALARMS
            missed[verdict.value] += verdict not in ALARMS
        found[name] = hits / faults
    return {
        "faults": len(found),
        "pairs": faults * len(found),
        "rate": sum(found.values()) / len(found),
        "missed": dict(sorted(missed.items())),
        "lowest": dict(sorted(found.items(), key=lambda item: item[1])[:8]),
    }


def _faulty(shop: Shop, endpoint: str, name: str) -> Triple:
    """A pair on which the fault took hold."""
    for _ in range(1000):
        found = triple(shop, shop.ask_for(endpoint), MUTATIONS[name][1])
        if found.mutated:
            return found
    raise RuntimeError(f"the fault {name!r} finds nothing to change in {endpoint!r}")


# Diffy's rule


@dataclass(slots=True)
class Fields:
    """How often each field of one endpoint differed from the candidate (`raw`) and between the control's own
    two answers (`noise`)."""

    total: int = 0
    raw: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)

    def add(self, raw: Iterable[str], noise: Iterable[str]) -> None:
        """Count one request."""
        self.total += 1
        self.raw.update(raw)
        self.noise.update(noise)

    def reported(self) -> set[str]:
        """The fields Diffy would report."""
        return {path for path, raw in self.raw.items() if _reports(raw, self.noise[path], self.total)}


def _reports(raw: int, noise: int, total: int) -> bool:
    if raw <= noise:
        return False
    apart = raw - noise
    return apart / (raw + noise) > 0.20 and apart / total > 0.0003


def _lifted(answer: Recorded) -> Any:
    body = decoded(answer)
    try:
        document = json.loads(body)
    except ValueError:
        document = body.decode("utf-8", "replace")
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        plain = name.decode().lower()
        if plain in COMPARED:
            headers[plain] = value.decode()
    return {"status": answer.status, "headers": headers, "body": document}


def _differing(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """The fields that differ, as Diffy names them: lists of other length and reordered lists are one field."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            if key in left and key in right:
                yield from _differing(left[key], right[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}.presence"
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            yield f"{path}.size"
        elif left != right and sorted(map(repr, left)) == sorted(map(repr, right)):
            yield f"{path}.order"
        else:
            for one, other in zip(left, right, strict=True):
                yield from _differing(one, other, f"{path}[]")
    elif type(left) is not type(right) or left != right:
        yield path


def _seen(found: Triple) -> tuple[set[str], set[str]]:
    control = _lifted(found.control)
    raw = set(_differing(control, _lifted(found.candidate)))
    return raw, set(_differing(control, _lifted(found.again)))


def diffy(seed: int, requests: int) -> dict[str, Any]:
    """What Diffy's rule reports in runs of `requests` requests to each endpoint."""
    clean: dict[str, Fields] = defaultdict(Fields)
    sound: dict[str, list[tuple[set[str], set[str]]]] = {}
    shop = Shop(seed)
    for endpoint in ENDPOINTS:
        sound[endpoint] = [_seen(triple(shop, shop.ask_for(endpoint))) for _ in range(requests)]
        for raw, noise in sound[endpoint]:
            clean[endpoint].add(raw, noise)
    false = {f"{endpoint} {path}" for endpoint, fields in clean.items() for path in fields.reported()}
    always, rarely = [], []
    for number, (name, (endpoint, _)) in enumerate(MUTATIONS.items()):
        shop = Shop(seed * 1000 + number)
        faulty = [_seen(_faulty(shop, endpoint, name)) for _ in range(requests)]
        known = clean[endpoint].reported()
        for share, reported in ((1, always), (RARE, rarely)):
            fields = Fields()
            for index in range(requests):
                fields.add(*(faulty if index % share == 0 else sound[endpoint])[index])
            # What it reports of a sound candidate too is no discovery.
            if fields.reported() - known:
                reported.append(name)
    differing = sum(bool(raw) for runs in sound.values() for raw, _ in runs)
    return {
        "requests_per_run": requests,
        "fields_reported_of_a_sound_candidate": sorted(false),
        "sound_pairs_with_a_difference": differing / (requests * len(ENDPOINTS)),
        "faults_reported_when_every_request_is_faulty": len(always) / len(MUTATIONS),
        "faults_reported_when_one_in_fifty_is": len(rarely) / len(MUTATIONS),
        "not_reported_when_every_request_is_faulty": sorted(MUTATIONS.keys() - set(always)),
    }


def measure(*, seed: int, pairs: int, faults: int, requests: int) -> dict[str, Any]:
    """All figures."""
    return {
        "false_alarms": false_alarms(seed, pairs),
        "recall": recall(seed, faults),
        "diffy": diffy(seed, requests),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, default=12_000, help="pairs of a sound candidate")
    parser.add_argument("--faults", type=int, default=80, help="faulty pairs for each kind of fault")
    parser.add_argument("--requests", type=int, default=500, help="requests in each run of Diffy's rule")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write the result here, as JSON")
    given = parser.parse_args()
    result = measure(seed=given.seed, pairs=given.pairs, faults=given.faults, requests=given.requests)
    command = (
        f"python -m benchmarks.parity --pairs {given.pairs} --faults {given.faults} "
        f"--requests {given.requests} --seed {given.seed}"
    )
    text = json.dumps({"command": command, **result}, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
