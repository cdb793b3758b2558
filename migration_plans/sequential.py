"""The statistics of the rollback rule: tests that may be looked at after every single request.

One request is one Bernoulli trial (good or failed). Against the tolerated failure rate p0 stands a mixture of
alternatives p1 > p0, so that nobody has to guess how badly a broken service fails.

* `since_start`: the mixture likelihood ratio e = Σ_j w_j Π p1j/p0 · Π (1-p1j)/(1-p0). It is a non-negative
  supermartingale whenever the true rate is at most p0, so by Ville's inequality the chance that it *ever*
  reaches 1/alpha is at most alpha, however often one looks (Robbins 1970; Johari et al., "Peeking at A/B
  tests", 2017).
* `since_change`: each alternative's ratio restarted at one whenever it falls below (Page's CUSUM),
  mixed alike. It is an e-detector (Shin, Ramdas, Rinaldo 2022): at a rate of p0 it needs on average at least H
  requests to reach H. It is what notices a service that breaks after ten thousand good requests, where the
  first test has become deaf.
* `upper_bound`: the exact (Clopper-Pearson) upper confidence bound of a failure rate, for the monolith's arm.
* `spend`: how much alpha the n-th test of a migration may use so that all of them together stay below a
budget.

Everything here is arithmetic on immutable values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# How far each alternative lies between p0 and certain failure. The last one makes an outage plain after
# two or three requests, the first ones catch a service that fails only now and then.
SPREAD = (0.01, 0.04, 0.1, 0.25, 0.5, 0.9)
# What each is worth in the mixture; any weights that sum to one keep the bounds. More than half stands on the second
# (a service that fails 5 % when 1 % is tolerated), the hardest to see of what the plans promise to see. The last
# weighs just enough for two certain failures to speak from the start (90² x 0.13 > 1000).
WEIGHTS = (0.05, 0.56, 0.10, 0.09, 0.07, 0.13)
_LOG_WEIGHTS = tuple(math.log(weight) for weight in WEIGHTS)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What one failure and one success add to the log likelihood ratio of each alternative."""

    p0: float
    on_failure: tuple[float, ...]
    on_success: tuple[float, ...]

    @classmethod
    def against(cls, p0: float) -> "Alternatives":
        """Alternatives to a tolerated failure rate `p0` (0 < p0 < 1). Raises ValueError outside of that."""
        if not 0 < p0 < 1:
            raise ValueError(f"the tolerated failure rate must lie between 0 and 1, not at {p0}")
        rates = [p0 + (1 - p0) * part for part in SPREAD]
        return cls(
            p0=p0,
            on_failure=tuple(math.log(p1 / p0) for p1 in rates),
            on_success=tuple(math.log((1 - p1) / (1 - p0)) for p1 in rates),
        )

    def since_start(self, trials: int, failures: int) -> float:
        """Natural logarithm of the mixture likelihood ratio after `failures` among `trials`."""
        good = trials - failures
        return _log_mixture(
            [failures * bad + good * fine for bad, fine in zip(self.on_failure, self.on_success, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class ChangeDetector:
    """Page's CUSUM for every alternative; all zero means: nothing suspicious is remembered."""

    sums: tuple[float, ...] = (0.0,) * len(SPREAD)

    def after_success(self, alternatives: Alternatives, count: int = 1) -> "ChangeDetector":
        """The detector after `count` good requests in a row."""
        return ChangeDetector(
            tuple(
                max(0.0, total + count * gain)
                for total, gain in zip(self.sums, alternatives.on_success, strict=True)
            )
        )

    def after_failure(self, alternatives: Alternatives) -> "ChangeDetector":
        """The detector after one failed request."""
        return ChangeDetector(
            tuple(
                max(0.0, total) + gain for total, gain in zip(self.sums, alternatives.on_failure, strict=True)
            )
        )

    @property
    def log_value(self) -> float:
        """Natural logarithm of the averaged detector; 0.0 when nothing is remembered."""
        return _log_mixture(self.sums)

    @property
    def sharp(self) -> bool:
        """Whether the alternative of almost certain failure remembers anything: it forgets within a few successes."""
        return self.sums[-1] > 0

    @property
    def quiet(self) -> bool:
        """Whether every sum has returned to zero."""
        return not any(self.sums)


def upper_bound(trials: int, failures: int, confidence: float = 0.99) -> float:
    """Clopper-Pearson upper bound of a failure rate: the p at which `failures` or fewer would be rare."""
    if trials <= 0 or failures >= trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _log_binomial_cdf(trials, failures, middle) > math.log1p(-confidence):
            low = middle
        else:
            high = middle
    return high


def spend(alpha: float, family: float, test: int) -> float:
    """The alpha of the `test`-th test (from 1) of a migration.

    Each test gets `alpha` while the budget lasts and half of what is left after that, so that the sum over
    any number of tests stays below `family`. Halving costs little: ten times stricter is about one failed
    request.
    """
    left = family
    share = min(alpha, left / 2)
    for _ in range(test - 1):
        left -= share
        share = min(alpha, left / 2)
    return share


def _log_mixture(logs: Sequence[float]) -> float:
    return _log_sum([value + weight for value, weight in zip(logs, _LOG_WEIGHTS, strict=True)])


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs))


def _log_binomial_cdf(trials: int, failures: int, p: float) -> float:
    terms = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(p)
        + (trials - k) * math.log1p(-p)
        for k in range(failures + 1)
        if 0 < p < 1
    ]
    return _log_sum(terms) if terms else 0.0
