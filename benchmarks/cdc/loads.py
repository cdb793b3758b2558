"""What is done to the source before a contender catches up with it."""

# ruff: noqa: S608  (all the SQL is our own)

from dataclasses import dataclass

from benchmarks.cdc.shapes import SOURCE
from benchmarks.cdc.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much of everything. `ten`: transactions of ten rows. `latency_seconds` at 2,000 tx/s."""

    rounds: int
    rows: int
    mapped_rows: int
    ten: int
    single: int
    large: int
    latency_seconds: int
    kafka: int
    memory_rows: int
    memory_transaction: int


FULL = Amount(
    rounds=3,
    rows=1_000_000,
    mapped_rows=300_000,
    ten=20_000,
    single=100_000,
    large=200_000,
    latency_seconds=8,
    kafka=100_000,
    memory_rows=10_000_000,
    memory_transaction=1_000_000,
)
QUICK = Amount(
    rounds=1,
    rows=100_000,
    mapped_rows=50_000,
    ten=2_000,
    single=10_000,
    large=20_000,
    latency_seconds=2,
    kafka=10_000,
    memory_rows=200_000,
    memory_transaction=100_000,
)


def ten(site: Site, amount: Amount) -> int:
    """Transactions of ten updates each; the rows they change."""
    _loop(site, amount.ten, "id BETWEEN n * 10 - 9 AND n * 10")
    return amount.ten * 10


def single(site: Site, amount: Amount) -> int:
    """Transactions of one update; their number."""
    _loop(site, amount.single, "id = n")
    return amount.single


def large(site: Site, amount: Amount) -> int:
    """One transaction; the rows it changes."""
    site.source.execute(f"UPDATE {SOURCE} SET amount = amount + 1 WHERE id <= %s".encode(), [amount.large])
    return amount.large


LOADS = {"ten": ten, "single": single, "large": large}


def _loop(site: Site, count: int, where: str) -> None:
    # a writer that waits for each commit would take longer than those who catch up with it
    site.source.execute("SET synchronous_commit = off")
    site.source.execute(
        f"DO $$ BEGIN FOR n IN 1..{count} LOOP UPDATE {SOURCE} SET amount = amount + 1 WHERE {where};"
        " COMMIT; END LOOP; END $$".encode()
    )
    site.source.execute("RESET synchronous_commit")
