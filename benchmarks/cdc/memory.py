"""The most memory our process takes: for a large snapshot, then for one large transaction."""

from collections.abc import Callable, Iterator

from benchmarks.cdc.figures import OURS, Measurement
from benchmarks.cdc.loads import Amount
from benchmarks.cdc.process import Stream, until
from benchmarks.cdc.shapes import SOURCE
from benchmarks.cdc.site import Site
from cdc.sources.slot import drop_slot


def measure(site: Site, amount: Amount, rows: int, tell: Callable[[str], None]) -> Iterator[Measurement]:
    """MB (10**6 bytes) of resident memory. `rows` are already in the source."""
    tell(f"memory: {amount.memory_rows:,} rows, then a transaction of {amount.memory_transaction:,}")
    site.clean()
    site.fill(rows + 1, amount.memory_rows)
    try:
        with Stream(site.config) as stream:
            stream.go()
            until(site.position, what="the snapshot is there", alive=stream.alive)
            yield _one("memory_snapshot", stream.peak_mb())
            stream.forget_peak()
            site.source.execute(
                f"UPDATE {SOURCE} SET amount = amount + 1 WHERE id <= %s".encode(),  # noqa: S608  (our own name)
                [amount.memory_transaction],
            )
            site.ours.await_mark(site.mark(), stream.alive)
            yield _one("memory_transaction", stream.peak_mb())
    finally:
        drop_slot(site.source, site.config.slot)


def _one(work: str, value: float) -> Measurement:
    return Measurement(work=work, contender=OURS, round=0, value=round(value, 1))
