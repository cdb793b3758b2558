"""Seeded runs of the change stream under faults: `python -m tests.chaos [--seeds N] [--from SEED] [--workers N]`.

`python -m tests.chaos --seed N` repeats one. Every worker has servers of its own. Every fifth seed goes
through Kafka. Exit codes: 0 every run ended as it
must, 1 at least one did not, 2 wrong usage. `make chaos` is this with 500 seeds.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.chaos.kafka_scenario import KafkaScenario
from tests.chaos.pair import can_mount
from tests.chaos.plan import plan
from tests.chaos.scenario import Fault
from tests.chaos.survey import survey
from tests.kafka_lab import JARS
from workshop.kafka import KafkaError, jars


def without_kafka() -> str:
    """Why Kafka cannot be had here, empty when it can; its jars are there then, once for all workers."""
    try:
        jars(JARS)
    except KafkaError as error:
        return str(error)
    return ""


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="The change stream under faults."
    )
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--seeds", type=int, default=500, help="how many (default: 500)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed (default: 0)")
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes beside each other"
    )
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        chosen.first, chosen.seeds, chosen.workers = chosen.seed, 1, 1
    seeds = list(range(chosen.first, chosen.first + chosen.seeds))
    with tempfile.TemporaryDirectory(prefix="chaos-probe-") as directory:
        if not can_mount(Path(directory)):
            left_out = [seed for seed in seeds if plan(seed).fault is Fault.FULL_DISK]
            seeds = [seed for seed in seeds if seed not in left_out]
            print(
                f"left out: {len(left_out)} seeds with a full disk, which need the right to mount a small one"
            )
    if chosen.seed is None and (missing := without_kafka()):
        left_out = [seed for seed in seeds if isinstance(plan(seed), KafkaScenario)]
        seeds = [seed for seed in seeds if seed not in left_out]
        print(f"left out: {len(left_out)} seeds through Kafka: {missing}")
    return survey(seeds, workers=chosen.workers)


if __name__ == "__main__":
    sys.exit(main())
