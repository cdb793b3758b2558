"""Many runs, spread over processes with servers of their own; tells how it goes while it goes."""

import multiprocessing
import queue
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path

from tests.chaos.pair import Pair
from tests.chaos.run_seed import Outcome, run_seed
from tests.chaos.scenario import scenario

Report = Outcome | tuple[int, str]
"""How a run ended, or the seed and what went wrong."""


def work(seeds: list[int], reports: "Queue[Report]") -> None:
    """Run `seeds` one after the other on servers of this process."""
    with tempfile.TemporaryDirectory(prefix="chaos-servers-") as directory:
        remaining = list(seeds)
        while remaining:
            with Pair(Path(directory) / str(len(remaining))) as pair:
                while remaining:
                    seed = remaining.pop(0)
                    try:
                        reports.put(run_seed(scenario(seed), pair))
                    except Exception:
                        reports.put((seed, traceback.format_exc()))
                        break  # with servers that nobody has touched


def survey(seeds: list[int], *, workers: int) -> int:
    """Run them all and tell how it goes; the exit code."""
    context = multiprocessing.get_context("spawn")
    reports: Queue[Report] = context.Queue()
    shares = [seeds[each::workers] for each in range(workers)]
    processes = [context.Process(target=work, args=(share, reports)) for share in shares if share]
    for process in processes:
        process.start()
    began, failed = time.monotonic(), list[int]()
    endings: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for done in range(1, len(seeds) + 1):
        report = _next(reports, processes)
        if isinstance(report, Outcome):
            endings[str(report.ending)] += 1
            faults[str(report.scenario.fault)] += 1
            said = f"{report.scenario}: {report.ending}, {report.rows} rows, {report.seconds:.1f} s"
        else:
            seed, trace = report
            failed.append(seed)
            said = f"{scenario(seed)}: FAILED; repeat it: python -m tests.chaos --seed {seed}\n{trace}"
        rate = done / (time.monotonic() - began)
        left = (len(seeds) - done) / rate
        print(
            f"[{done}/{len(seeds)}, {rate * 60:.0f} a minute, {left / 60:.0f} min left, {len(failed)} failed] {said}",
            flush=True,
        )
    for process in processes:
        process.join()
    print(f"{len(seeds)} runs in {(time.monotonic() - began) / 60:.1f} min:", dict(sorted(endings.items())))
    print("faults:", dict(sorted(faults.items())))
    if failed:
        print("failed:", *(f"python -m tests.chaos --seed {seed}" for seed in sorted(failed)), sep="\n  ")
    return 1 if failed else 0


def _next(reports: "Queue[Report]", processes: list[SpawnProcess]) -> Report:
    while True:
        try:
            return reports.get(timeout=1.0)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                raise RuntimeError("the workers have ended before their runs; see above why") from None
