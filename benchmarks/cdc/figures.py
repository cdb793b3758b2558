"""What was measured, and what a ratio is. Pure.

A ratio is the median of the rounds' ratios, not the ratio of medians: both contenders of a round met the machine in
the same state.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

OURS = "change stream"
PIPE = "psql COPY | COPY"
NATIVE = "CREATE SUBSCRIPTION"
SINK = "Debezium JDBC sink"
ENGINE = "Debezium engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of work. `peers` do the same one; `higher` says which way is better."""

    name: str
    title: str
    unit: str
    peers: tuple[str, ...] = ()
    higher: bool = True


_STREAMED = (
    ("ten", "transactions of ten updates", "rows/s"),
    ("single", "single-row transactions", "tx/s"),
    ("large", "one large transaction", "rows/s"),
)
WORKS: tuple[Work, ...] = (
    Work(name="snapshot", title="snapshot, straight mapping", unit="rows/s", peers=(PIPE,)),
    *(
        Work(name=name, title=f"{title}, straight mapping", unit=unit, peers=(NATIVE,))
        for name, title, unit in _STREAMED
    ),
    Work(
        name="start",
        title="start, one row to catch up (within the rates above)",
        unit="ms",
        peers=(NATIVE,),
        higher=False,
    ),
    Work(name="p50", title="commit to visible at 2,000 tx/s, p50", unit="ms", peers=(NATIVE,), higher=False),
    Work(name="p99", title="commit to visible at 2,000 tx/s, p99", unit="ms", peers=(NATIVE,), higher=False),
    Work(name="offered", title="rate at which those were committed", unit="tx/s", peers=(NATIVE,)),
    Work(name="source", title="slot read and decoded, not applied", unit="rows/s"),
    Work(name="decode", title="the same history decoded, not applied", unit="rows/s", peers=(ENGINE,)),
    Work(name="verification", title="verification of both sides", unit="rows/s"),
    Work(name="snapshot_mapped", title="snapshot, mapped, two indexes", unit="rows/s", peers=(PIPE,)),
    *(
        Work(name=f"{name}_mapped", title=f"{title}, mapped, two indexes", unit=unit, peers=(NATIVE,))
        for name, title, unit in _STREAMED
    ),
    Work(name="kafka", title="records in the topic to applied", unit="rows/s", peers=(SINK,)),
    Work(name="memory_snapshot", title="peak memory, large snapshot", unit="MB", higher=False),
    Work(name="memory_transaction", title="peak memory, large transaction", unit="MB", higher=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What `contender` did in one round, in the unit of its work."""

    work: str
    contender: str
    round: int
    value: float


def median(measured: Sequence[Measurement], work: str, contender: str) -> float | None:
    """Over the rounds; None when it was not measured."""
    values = [each.value for each in measured if (each.work, each.contender) == (work, contender)]
    return statistics.median(values) if values else None


def ratio(measured: Sequence[Measurement], work: str, peer: str) -> float | None:
    """Ours to `peer`, over the rounds in which both were measured; None without one."""
    by_round = {
        contender: {
            each.round: each.value for each in measured if (each.work, each.contender) == (work, contender)
        }
        for contender in (OURS, peer)
    }
    both = by_round[OURS].keys() & by_round[peer].keys()
    ratios = [by_round[OURS][number] / by_round[peer][number] for number in both if by_round[peer][number]]
    return statistics.median(ratios) if ratios else None
