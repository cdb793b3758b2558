"""Many runs, spread over processes with servers of their own; tells how it goes while it goes."""

import multiprocessing
import queue
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path

from tests.chaos.kafka_scenario import KafkaScenario
from tests.chaos.kafka_side import KafkaSide
from tests.chaos.one_stream import Outcome
from tests.chaos.pair import Pair
from tests.chaos.plan import plan
from tests.chaos.run_kafka_seed import run_kafka_seed
from tests.chaos.run_seed import run_seed

Report = tuple[int, Outcome | str]
"""The seed, and how it ended or what went wrong."""


def work(seeds: list[int], reports: "Queue[Report]") -> None:
    """Run `seeds` one after the other on servers of this process."""
    with tempfile.TemporaryDirectory(prefix="chaos-servers-") as directory:
        remaining = list(seeds)
        while remaining:
            home = Path(directory) / str(len(remaining))
            with ExitStack() as exits:
                pair = exits.enter_context(Pair(home))
                side: KafkaSide | None = None
                while remaining:
                    seed = remaining.pop(0)
                    try:
                        planned = plan(seed)
                        if isinstance(planned, KafkaScenario):
                            side = side or exits.enter_context(KafkaSide(home))
                            outcome = run_kafka_seed(planned, pair, side)
                        else:
                            outcome = run_seed(planned, pair)
                        reports.put((seed, outcome))
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
        seed, report = _next(reports, processes)
        planned = plan(seed)
        if isinstance(report, Outcome):
            endings[str(report.ending)] += 1
            faults[f"{planned.fault}{' through kafka' * isinstance(planned, KafkaScenario)}"] += 1
            said = f"{planned}: {report.ending}, {report.rows} rows, {report.seconds:.1f} s"
        else:
            failed.append(seed)
            said = f"{planned}: FAILED; repeat it: python -m tests.chaos --seed {seed}\n{report}"
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
