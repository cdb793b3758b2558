"""Contenders take turns: each fills an empty target, then catches up with each load.

A load is written while nobody reads, then the time runs from the word *go* (connection, start of the stream and all)
until its last change stands in the target. How much of that is the start is shown on a line of its own: the same with
one row to catch up. So a slow writer or its share of the cores is in no figure. The order of the
contenders changes from round to round.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.cdc import latency
from benchmarks.cdc.figures import NATIVE, OURS, PIPE, Measurement
from benchmarks.cdc.loads import LOADS, Amount
from benchmarks.cdc.process import Stream, read_alone, until
from benchmarks.cdc.site import PEER_SLOT, Site
from cdc.changes import Lsn
from cdc.sources.slot import drop_slot
from cdc.verify import verify

Tell = Callable[[str], None]


def measure(site: Site, amount: Amount, rows: int, tell: Tell) -> list[Measurement]:
    """Every round of one shape. `rows` are in the source."""
    found = []
    contenders = (_ours, _native)
    for number in range(amount.rounds):
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            tell(f"{site.shape.table}, round {number + 1}: {contender.__name__.strip('_')}")
            site.clean()
            for name, work, value in contender(site, amount, rows):
                found.append(
                    Measurement(
                        work=work + site.shape.suffix, contender=name, round=number, value=round(value, 3)
                    )
                )
    return found


def _ours(site: Site, amount: Amount, rows: int) -> Iterator[tuple[str, str, float]]:
    config, shape = site.config, site.shape
    try:
        with Stream(config) as stream:
            began = time.perf_counter()
            stream.go()
            until(site.position, what="the snapshot is there", alive=stream.alive)
            yield OURS, "snapshot", rows / (time.perf_counter() - began)
            site.settle(config.slot, stream.alive)
        if not shape.suffix:
            mark = site.mark()
            with Stream(config) as stream:
                began = time.perf_counter()
                stream.go()
                site.arrived(mark, table=shape.table, column=shape.note, alive=stream.alive)
                yield OURS, "start", 1_000 * (time.perf_counter() - began)
        for name, load in LOADS.items():
            row = site.position()
            assert row is not None
            count = load(site, amount)
            end = site.end_of_log()
            mark = site.mark()
            if name == "ten" and not shape.suffix:
                yield OURS, "source", read_alone(config, after=Lsn.parse(row[0]), upto=Lsn.parse(end))
            with Stream(config) as stream:
                began = time.perf_counter()
                stream.go()
                site.arrived(mark, table=shape.table, column=shape.note, alive=stream.alive)
                yield OURS, name, count / (time.perf_counter() - began)
                site.settle(config.slot, stream.alive)
        if not shape.suffix:
            with Stream(config) as stream:
                stream.go()
                site.arrived(site.mark(), table=shape.table, column=shape.note, alive=stream.alive)
                for name, value in latency.measure(site, amount, table=shape.table, alive=stream.alive):
                    yield OURS, name, value
                report = verify(config)
                if not report.equal:
                    raise RuntimeError(f"the target differs, no figure counts: {report}")
                yield OURS, "verification", rows / report.seconds
    finally:
        drop_slot(site.source, config.slot)


def _native(site: Site, amount: Amount, rows: int) -> Iterator[tuple[str, str, float]]:
    shape = site.shape
    began = time.perf_counter()
    site.pipe(shape.select, shape.table)
    yield PIPE, "snapshot", rows / (time.perf_counter() - began)
    if shape.peer_table != shape.table:
        site.pipe(f"SELECT * FROM {shape.peer_table}", shape.peer_table)  # noqa: S608  (our own names)
    with site.subscription() as subscription:
        if not shape.suffix:
            mark = site.mark()
            began = time.perf_counter()
            subscription.enable()
            site.arrived(mark, table=shape.peer_table, column="note", alive=_yes)
            yield NATIVE, "start", 1_000 * (time.perf_counter() - began)
            subscription.disable()
        for name, load in LOADS.items():
            count = load(site, amount)
            mark = site.mark()
            began = time.perf_counter()
            subscription.enable()
            site.arrived(mark, table=shape.peer_table, column="note", alive=_yes)
            yield NATIVE, name, count / (time.perf_counter() - began)
            site.settle(PEER_SLOT, _yes)
            subscription.disable()
        if not shape.suffix:
            subscription.enable()
            site.arrived(site.mark(), table=shape.peer_table, column="note", alive=_yes)
            for name, value in latency.measure(site, amount, table=shape.peer_table, alive=_yes):
                yield NATIVE, name, value


def _yes() -> bool:
    return True


__all__: Sequence[str] = ("measure",)
