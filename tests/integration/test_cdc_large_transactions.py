"""Transactions larger than what we hold in memory: in pieces, all or nothing, whatever stops us in between."""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.changes import Event, TableName, Transaction
from cdc.sources.slot import SlotSource, created_slot
from cdc.verify import verify
from tests.cdc_shop import MAPPING, Shop, admin, make_shop, until

ROWS = 60_000


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    source, target = make_database(), make_database()
    return make_shop(source, target, f"large_{secrets.token_hex(4)}", products=20)


def write_many(source: psycopg.Connection[Any], rows: int = ROWS) -> None:
    """One transaction of `rows` inserts into a table of a small unit."""
    source.execute(
        "INSERT INTO catalog_stock SELECT 'L', g, g FROM generate_series(1000, 999 + %s) g", [rows]
    )


def stored(target: psycopg.Connection[Any]) -> int:
    row = target.execute("SELECT count(*) FROM stock WHERE place = 'L'").fetchone()
    assert row is not None
    return int(row[0])


def test_the_source_gives_a_large_transaction_away_in_pieces(database: str) -> None:
    with admin(database) as connection:
        connection.execute("CREATE TABLE item (id integer PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION items FOR TABLE item")
        slot = f"pieces_{secrets.token_hex(4)}"
        with created_slot(database, slot) as created:
            begin = created.consistent_point
        source = SlotSource(database, slot=slot, publication="items", tables=[TableName("public", "item")])
        source.start(begin)
        connection.execute("INSERT INTO item SELECT generate_series(1, 12000)")
        connection.execute("INSERT INTO item VALUES (0)")
        found: list[Event] = []

        def both() -> bool:
            found.extend(event for event in source.read(0.1) if isinstance(event, Transaction))
            return any(each.changes and not each.more for each in found[-1:] if isinstance(each, Transaction))

        until(both)
        source.close()
    pieces = [each for each in found if isinstance(each, Transaction)]
    assert [(len(each.changes), each.more) for each in pieces] == [
        (5000, True), (5000, True), (2000, False), (1, False),
    ]  # fmt: skip
    assert len({each.xid for each in pieces[:3]}) == 1
    # every stored position gives the same verdict on all of them
    assert begin < pieces[0].position == pieces[1].position < pieces[2].position < pieces[3].position


def test_readers_see_all_of_it_or_nothing(shop: Shop) -> None:
    with shop.running(), admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        shop.settle()
        write_many(source)
        seen: set[int] = set()

        def all_there() -> bool:
            seen.add(stored(target))
            return ROWS in seen

        until(all_there)
        assert seen <= {0, ROWS}
        source.execute("UPDATE catalog_stock SET quantity = 0 WHERE warehouse = 'L' AND product_id % 2 = 0")
        source.execute("DELETE FROM catalog_stock WHERE warehouse = 'L' AND product_id % 3 = 0")
        report = verify(shop.config)
        assert report.equal, report


class Stream:
    """The stream as a process of its own."""

    def __init__(self, shop: Shop, directory: Path) -> None:
        self._shop = shop
        self._mapping = directory / "mapping.yaml"
        self._mapping.write_text(MAPPING)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until the snapshot is stored."""
        config = self._shop.config
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cdc", str(self._mapping)),
                *("--slot", config.slot, "--publication", config.publication),
            ],
            env={**os.environ, "CDC_SOURCE_DSN": config.source_dsn, "CDC_TARGET_DSN": config.target_dsn},
        )

    def send(self, how: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(how)

    def wait(self) -> int:
        """The exit code."""
        assert self._process is not None
        return self._process.wait(20)

    def most_memory(self) -> int:
        """The largest resident size so far, in bytes."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]  # Linux has it

    def kill(self) -> None:
        """Whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def stream(shop: Shop, tmp_path: Path) -> Iterator[Stream]:
    stream = Stream(shop, tmp_path)
    yield stream
    stream.kill()


def position(target: psycopg.Connection[Any], stream: str) -> str | None:
    if target.execute("SELECT to_regclass('strangler_cdc.position') IS NULL").fetchone() == (True,):
        return None
    row = target.execute(
        "SELECT lsn::text FROM strangler_cdc.position WHERE stream = %s", [stream]
    ).fetchone()
    return None if row is None else str(row[0])


def waits(target: psycopg.Connection[Any], stream: str) -> bool:
    """Whether the applier waits for a lock, with something written that is not committed."""
    return target.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND backend_xid IS NOT NULL"
        " AND wait_event_type = 'Lock'",
        [f"strangler_cdc apply {stream}"],
    ).fetchone() == (1,)


def appliers(target: psycopg.Connection[Any], stream: str) -> bool:
    return target.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [f"strangler_cdc apply {stream}"]
    ).fetchone() != (0,)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_stopped_in_the_middle_nothing_is_half_stored(
    shop: Shop, stream: Stream, how: signal.Signals
) -> None:
    slot = shop.config.slot
    with admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        stream.start()
        until(lambda: position(target, slot) is not None)
        with psycopg.connect(shop.config.target_dsn) as blocker:
            # somebody inserts one of the rows in the middle and does not commit: the stream has to wait
            blocker.execute("INSERT INTO stock VALUES ('L', %s, 1)", [1000 + ROWS // 2])
            before = position(target, slot)
            write_many(source)
            until(lambda: waits(target, slot))
            stream.send(how)
            if how == signal.SIGKILL:
                assert stream.wait() == -signal.SIGKILL
            blocker.rollback()
        if how == signal.SIGTERM:
            assert stream.wait() == 0
        until(lambda: not appliers(target, slot))
        assert stored(target) == 0
        assert position(target, slot) == before
        stream.start()
        until(lambda: stored(target) == ROWS)
        stream.send(signal.SIGTERM)
        assert stream.wait() == 0


def test_memory_does_not_grow_with_the_transaction(shop: Shop, stream: Stream) -> None:
    with admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        stream.start()
        write_many(source, 30_000)
        until(lambda: stored(target) == 30_000)
        before = stream.most_memory()
        source.execute("DELETE FROM catalog_stock WHERE warehouse = 'L'")
        write_many(source, 300_000)
        until(lambda: stored(target) == 300_000, timeout=60)
        grown = stream.most_memory() - before
        # 300,000 changes held whole take more than 100 MB
        assert grown < 40_000_000, f"grew by {grown / 1e6:.0f} MB"
