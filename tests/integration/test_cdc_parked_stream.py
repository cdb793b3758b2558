"""A real stream that parks, killed and started again under a busy shop, while somebody retries."""

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.release import read_parked, retry
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, Writer, admin, make_shop, until

ODD = "ALTER TABLE product ADD CONSTRAINT odd CHECK (price_cents % 10 NOT IN (1, 2)) NOT VALID"


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), f"parks_{secrets.token_hex(4)}", products=150)


@contextmanager
def process(shop: Shop, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = shop.config
    (directory / "mapping.yaml").write_text(MAPPING)
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "cdc", str(directory / "mapping.yaml"), "--park", "10000"),
            *("--slot", config.slot, "--publication", config.publication),
        ],
        env={**os.environ, "CDC_SOURCE_DSN": config.source_dsn, "CDC_TARGET_DSN": config.target_dsn},
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def copied(target: psycopg.Connection[Any]) -> bool:
    if target.execute("SELECT to_regclass('strangler_cdc.position') IS NULL").fetchone() == (True,):
        return False
    return target.execute("SELECT count(*) FROM strangler_cdc.position").fetchone() == (1,)


def test_killed_and_retried_in_the_middle_all_is_equal_in_the_end(shop: Shop, tmp_path: Path) -> None:
    config = shop.config
    ended = threading.Event()
    writer = Writer(config.source_dsn, seed=7)
    retried: list[int] = []

    def write() -> None:
        while not ended.wait(0.005):  # a busy shop, not a flood
            writer.step()

    def release() -> None:
        while not ended.wait(0.2):
            with admin(config.target_dsn) as owner:
                owner.execute("ALTER TABLE product DROP CONSTRAINT odd")
                done = retry(config.target_dsn, stream=config.slot, mapping=config.mapping)
                owner.execute(ODD)
            retried.append(sum(not each.error for each in done))

    threads = [threading.Thread(target=work) for work in (write, release)]
    with admin(config.target_dsn) as target:
        with process(shop, tmp_path):
            until(lambda: copied(target))
        # what comes now is refused in part: new prices that end in 1 or 2, and large descriptions
        target.execute(ODD)
        target.execute("ALTER TABLE product ADD CONSTRAINT short CHECK (length(body) < 6000) NOT VALID")
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                enough = writer.committed + 60
                with process(shop, tmp_path) as running:
                    until(lambda: writer.committed >= enough and bool(keys(shop)), timeout=40)  # noqa: B023  (called here)
                    assert running.poll() is None, "the stream stopped by itself"
            ended.set()
        finally:
            ended.set()
            for thread in threads:
                thread.join(30)
            writer.close()
        with process(shop, tmp_path):
            shop.settle()
            left = keys(shop)
            report = verify(config, max_differences=100_000)
            wrong = {
                f"catalog_product/{each.key['product_id']}" for each in report.tables["product"].differences
            }
            assert wrong, "nothing was refused"
            assert wrong <= left, "a key that is not parked is wrong"
            assert report.differing == report.tables["product"].differing
            target.execute("ALTER TABLE product DROP CONSTRAINT odd, DROP CONSTRAINT short")
            assert all(
                not each.error
                for each in retry(config.target_dsn, stream=config.slot, mapping=config.mapping)
            )
            assert keys(shop) == set()
            assert verify(config).equal
    assert sum(retried) > 0, "no key was mended while the stream ran"


def keys(shop: Shop) -> set[str]:
    parked = read_parked(shop.config.target_dsn, stream=shop.config.slot)
    return {address for lot in parked for address in lot.addresses}
