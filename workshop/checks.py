"""What a demo run must show. Pure: facts in, one `Check` for each promise out.

A check without evidence fails: a run in which no fault was noticed, or nothing was compared, proves nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from workshop.facts import Facts

DETECT_WITHIN_REQUESTS = 3
ACTUATE_WITHIN_MS = 250.0
LAG_P99_MS = 2_000.0
# Chance of a false alarm in one comparison of shares: 1 in 16,000.
SHARE_SIGMAS = 4.0
# One bucket is a hundredth of a point; the bound for 10,000 users is a test of the proxy's.
SHARE_POINTS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it held, the numbers, and where to look when it did not."""

    name: str
    passed: bool
    text: str
    where: str


def run_checks(facts: Facts) -> tuple[Check, ...]:
    """Every check, in the order of the story."""
    return tuple(check(facts) for check in _CHECKS)


def share_bound(percent: float, users: int) -> float:
    """How far, in points, the share of `users` may be from `percent` by chance (and one point beside it)."""
    if users <= 0:
        return 100.0
    share = percent / 100
    return SHARE_POINTS + 100 * SHARE_SIGMAS * sqrt(share * (1 - share) / users)


def _stages(facts: Facts) -> Check:
    reached = [stage.name for stage in facts.stages]
    missing = [name for name in facts.planned_stages if name not in reached]
    passed = facts.finished and not missing and bool(facts.planned_stages)
    if passed:
        text = f"{' → '.join(facts.planned_stages)}: done"
    else:
        text = facts.trouble or f"ended at {reached[-1] if reached else 'the start'}"
        text += f"; not reached: {', '.join(missing)}" if missing else ""
    return Check("all stages reached", passed, text, "log/controller.log and `strangler history`")


def _rollback(facts: Facts) -> Check:
    name = f"rolled back after at most {DETECT_WITHIN_REQUESTS} canary requests"
    where = "log/controller.log: the verdict of the rollback"
    if facts.rollback is None:
        text = "no rollback happened" if facts.fault_at else "no fault was injected"
        return Check(name, passed=False, text=text, where=where)
    count = facts.rollback.requests_to_detect
    text = f"{count} canary requests from the first failure to the verdict, at stage {facts.rollback.stage}"
    return Check(name, 0 < count <= DETECT_WITHIN_REQUESTS, text, where)


def _actuation(facts: Facts) -> Check:
    name = f"0 % in every worker within {ACTUATE_WITHIN_MS:.0f} ms of the deciding response"
    where = "log/controller.log and log/proxy.log around the rollback"
    if facts.rollback is None:
        return Check(name, passed=False, text="no rollback happened", where=where)
    took = facts.rollback.actuation_ms
    return Check(name, 0 <= took <= ACTUATE_WITHIN_MS, f"{took:.0f} ms", where)


def _retried(facts: Facts) -> Check:
    name = "carried on by itself after the fault was gone"
    rollback = facts.rollback
    later = [
        stage.name
        for stage in facts.stages
        if rollback is not None and facts.healed_at is not None and stage.started > facts.healed_at
    ]
    text = f"entered {', '.join(later)} after the fault was healed" if later else "no stage was entered later"
    return Check(name, bool(later), text, "log/controller.log: probes and retries")


def _shoppers(facts: Facts) -> Check:
    safe = sum(seen.safe for seen in facts.faults)
    text = (
        f"{safe} of the safe and {len(facts.faults) - safe} of the unsafe requests failed, of {facts.total}"
    )
    if facts.faults:
        first = facts.faults[0]
        text += f"; the first: {first.step} ({first.arm}): {first.fault} [request {first.request_id}]"
    passed = facts.total > 0 and not facts.faults
    return Check(
        "no shopper saw an error", passed, text, "log/monolith.log and log/catalogue.log by request id"
    )


def _fallback(facts: Facts) -> Check:
    count = facts.by_arm.get("fallback", 0)
    text = f"{count} requests that the service failed were answered by the monolith"
    return Check("failed safe requests were answered by the monolith", count > 0, text, "log/proxy.log")


def _sticky(facts: Facts) -> Check:
    found = facts.stickiness
    text = f"{found.flipped_back} flipped back, {found.jumped_ahead} jumped ahead, of {found.users} users"
    if found.examples:
        text += f"; {found.examples[0]}"
    passed = found.users > 0 and not found.flipped_back and not found.jumped_ahead
    return Check("no user changed sides without cause", passed, text, "report.json: stickiness.examples")


def _shares(facts: Facts) -> Check:
    name = "share of users follows the percentage"
    texts: list[str] = []
    passed = bool(facts.shares)
    for share in facts.shares:
        actual = 100 * share.canary / share.users if share.users else 0.0
        bound = share_bound(share.percent, share.users)
        fits = share.users > 0 and abs(actual - share.percent) <= bound
        passed = passed and fits
        texts.append(
            f"{share.percent:g} %: {actual:.1f} % of {share.users} (±{bound:.1f}){'' if fits else ' ✗'}"
        )
    return Check(name, passed, "; ".join(texts) or "no users were seen", "report.json: shares")


def _verified(facts: Facts) -> Check:
    name = "both databases are equal, row by row, at one position"
    where = "`strangler verify` names key and column of every difference"
    if facts.verify is None:
        return Check(name, passed=False, text="they were not compared", where=where)
    rows = sum(table.rows for table in facts.verify.tables.values())
    differing = sum(table.differing for table in facts.verify.tables.values())
    text = (
        f"{differing} of {rows} rows in {len(facts.verify.tables)} tables differ at {facts.verify.position} "
        f"({facts.verify.runs} comparisons, {facts.verify.writes_meanwhile} writes by shoppers meanwhile)"
    )
    return Check(name, rows > 0 and differing == 0 and facts.verify.writes_meanwhile > 0, text, where)


def _lag(facts: Facts) -> Check:
    name = f"the change stream kept up (p99 at most {LAG_P99_MS:.0f} ms)"
    p99 = facts.cdc.lag_ms_p99
    if p99 is None or not facts.cdc.changes_applied:
        return Check(name, passed=False, text="no change was applied", where="log/change-stream.log")
    p50 = f"{facts.cdc.lag_ms_p50:.0f}" if facts.cdc.lag_ms_p50 is not None else "?"
    text = f"p50 {p50} ms, p99 {p99:.0f} ms over {facts.cdc.changes_applied} changes"
    return Check(name, p99 <= LAG_P99_MS, text, "log/change-stream.log")


def _observed(facts: Facts) -> Check:
    text = f"the outcome stream broke {facts.stream_breaks} times"
    return Check("the demo saw every outcome", facts.stream_breaks == 0, text, "log/proxy.log")


def _gone(facts: Facts) -> Check:
    text = ", ".join(facts.left_running) or "every process has ended"
    return Check("nothing is left running", not facts.left_running, text, "log/supervisor.log")


_CHECKS: Sequence[Callable[[Facts], Check]] = (
    _stages,
    _rollback,
    _actuation,
    _retried,
    _shoppers,
    _fallback,
    _sticky,
    _shares,
    _verified,
    _lag,
    _observed,
    _gone,
)
