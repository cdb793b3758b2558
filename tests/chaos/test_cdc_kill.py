"""`kill -9` of a real change-stream process, again and again, while the shop writes; then row for row."""

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.verify import verify
from tests.cdc_shop import MAPPING, Writer, admin, make_shop, until

KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_twenty_kills_lose_and_double_nothing(make_database: Callable[[], str], tmp_path: Path) -> None:
    source, target = make_database(), make_database()
    shop = make_shop(source, target, f"kill_{secrets.token_hex(4)}", products=2000)
    plan = tmp_path / "mapping.yaml"
    plan.write_text(MAPPING)
    dice = random.Random(7)
    stop = threading.Event()
    writers = [Writer(source, seed) for seed in (1, 2)]

    def write(writer: Writer) -> None:
        while not stop.wait(0.002):
            writer.step()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cdc",
                str(plan),
                "--slot",
                shop.config.slot,
                "--publication",
                shop.config.publication,
            ],
            env={**os.environ, "CDC_SOURCE_DSN": source, "CDC_TARGET_DSN": target},
            stderr=log.fileno(),
        )

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    applied: list[int] = []
    with (tmp_path / "cdc.log").open("wb") as log, admin(target) as looker:

        def transactions() -> int:
            row = looker.execute("SELECT sum(transactions)::int FROM strangler_cdc.position").fetchone()
            return row[0] if row and row[0] is not None else -1

        def wait_for_progress(process: subprocess.Popen[bytes]) -> None:
            before = transactions()
            until(lambda: transactions() > before or process.poll() is not None)

        process = start()
        try:
            for kill in range(KILLS):
                # some die while starting or in the snapshot, the others at any moment of the stream
                if kill % 4:
                    wait_for_progress(process)
                stop.wait(dice.uniform(0.0, 0.3))
                assert process.poll() is None, (tmp_path / "cdc.log").read_text()[-3000:]
                process.send_signal(signal.SIGKILL)
                process.wait()
                applied.append(transactions())
                process = start()
            stop.set()
            for thread in threads:
                thread.join()
            shop.settle(timeout=60)
            report = verify(shop.config)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, (tmp_path / "cdc.log").read_text()[-3000:]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            if process.poll() is None:
                process.kill()
                process.wait()
            for writer in writers:
                writer.close()
    assert report.equal, report
    assert report.rows > 2000
    assert sum(writer.committed for writer in writers) > 500
    assert sum(writer.key_changes for writer in writers) > 50
    assert sum(writer.rolled_back for writer in writers) > 50
    assert len(set(applied)) > KILLS // 2, "the stream must have come forward between the kills"
