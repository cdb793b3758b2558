"""The change stream through Debezium's engine without a broker: a busy shop through restarts and a killed engine."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.changes import Lsn
from cdc.meter import Phase
from cdc.pipeline import StreamError
from cdc.sources.slot import slot_state
from cdc.status import CdcStatus, read_status
from tests.cdc_shop import Shop, Writer, admin, make_shop, until
from tests.debezium_lab import QUICK_JAVA, engine_role, over_tcp
from tests.integration.test_cdc_stream import assert_equal, wait_for_stream
from workshop.postgres import EmbeddedPostgres


@pytest.fixture(autouse=True)
def quick_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Java spends less on compiling what runs for seconds only."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)


@pytest.fixture
def shop(make_database: Callable[[], str], postgres: EmbeddedPostgres) -> Iterator[Shop]:
    source, target = make_database(), make_database()
    made = make_shop(source, target, f"stream_{secrets.token_hex(4)}")
    with engine_role(postgres) as role:
        dsn = over_tcp(postgres, source, role)
        yield Shop(replace(made.config, source_dsn=dsn, embedded=True))


def status(shop: Shop) -> CdcStatus:
    found = read_status(shop.config.target_dsn, stream=shop.config.slot)
    assert found is not None
    return found


def engines() -> list[int]:
    """Process ids of engines below this process."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command = (directory / "cmdline").read_bytes()
                parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue  # it has ended
            if b"cdc.sources.debezium_engine" in command and int(parent) == os.getpid():
                found.append(int(directory.name))
    return found


def test_a_busy_shop_arrives_equal_through_a_killed_engine_and_a_restart(shop: Shop) -> None:
    writer = Writer(shop.config.source_dsn, seed=7)
    with shop.running():
        wait_for_stream(shop)
        for _ in range(60):
            writer.step()
        until(lambda: bool(engines()))
        (engine,) = engines()
        os.kill(engine, signal.SIGKILL)
        for _ in range(60):
            writer.step()
        until(lambda: engines() not in ([], [engine]))
    for _ in range(30):
        writer.step()
    with shop.running():
        wait_for_stream(shop)
        for _ in range(30):
            writer.step()
        writer.close()
        shop.settle(timeout=60)
        assert_equal(shop)
    assert engines() == []
    with admin(shop.config.source_dsn) as source, admin(shop.config.target_dsn) as target:
        confirmed = slot_state(source, shop.config.slot)
        stored = target.execute(
            "SELECT lsn::text, snapshot_lsn::text FROM strangler_cdc.position WHERE stream = %s",
            [shop.config.slot],
        ).fetchone()
    assert confirmed is not None
    assert confirmed.confirmed is not None
    assert stored is not None
    assert Lsn.parse(stored[1]) < confirmed.confirmed <= Lsn.parse(stored[0])


def test_a_publication_that_is_dropped_ends_the_stream_and_is_named(shop: Shop) -> None:
    with admin(shop.config.source_dsn) as source:

        def stream_without_publication() -> None:
            with shop.running():
                wait_for_stream(shop)
                shop.settle(timeout=60)
                source.execute(f"DROP PUBLICATION {shop.config.publication}".encode())
                source.execute("UPDATE catalog_product SET price = price + 1")
                until(lambda: status(shop).phase is Phase.FAILED, timeout=60)

        with pytest.raises(StreamError, match=f"publication {shop.config.publication} .* CREATE PUBLICATION"):
            stream_without_publication()
    assert engines() == []
