"""SIGTERM does not wait for a comparison: neither for one that waits for its turn, nor for one that compares."""

import secrets
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from cdc.sinks.session import lock_stream
from cdc.verify import VerifyError, VerifyProgress, verify
from tests.cdc_shop import Shop, admin, make_shop, until

SOON = 2.0


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), f"stops_{secrets.token_hex(4)}", products=200)


def stopped_while(
    shop: Shop, busy: Callable[[], bool], *, after_a_table: Callable[[], object] | None = None
) -> float:
    """Seconds from `stop` to the end of a comparison that was stopped once it was `busy`."""
    stop = threading.Event()
    ended: list[BaseException] = []

    def progress(seen: VerifyProgress) -> None:
        if after_a_table is not None and seen.tables_done == 1:
            after_a_table()

    def compare() -> None:
        try:
            verify(shop.config, timeout=60.0, stop=stop, on_progress=progress)
        except BaseException as error:  # kept for the test: a thread has nobody to raise to
            ended.append(error)

    thread = threading.Thread(target=compare, name="comparison")
    thread.start()
    until(lambda: bool(ended) or busy())
    began = time.monotonic()
    stop.set()
    thread.join(30)
    seconds = time.monotonic() - began
    (error,) = ended
    assert isinstance(error, VerifyError)
    assert "stopped" in str(error)
    return seconds


def waiting(target: psycopg.Connection[object], condition: str) -> bool:
    row = target.execute(f"SELECT EXISTS ({condition})".encode()).fetchone()
    assert isinstance(row, tuple)
    return bool(row[0])


def test_a_comparison_that_waits_for_the_applier_ends_soon(shop: Shop) -> None:
    with shop.running():
        shop.settle()
    with admin(shop.config.target_dsn) as target:
        lock_stream(target, shop.config.slot)  # an applier that runs, but does not answer
        asked = f"SELECT FROM strangler_cdc.control WHERE stream = '{shop.config.slot}'"
        assert stopped_while(shop, lambda: waiting(target, asked)) < SOON
        assert not waiting(target, asked), "the applier is let go"


def test_a_comparison_that_compares_ends_soon(shop: Shop) -> None:
    with shop.running():
        shop.settle()
        with psycopg.connect(shop.config.target_dsn) as locker, admin(shop.config.target_dsn) as other:
            blocked = (
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
                "AND application_name = 'strangler_cdc verify'"
            )
            seconds = stopped_while(
                shop,
                lambda: waiting(other, blocked),
                after_a_table=lambda: locker.execute("LOCK TABLE product, stock IN ACCESS EXCLUSIVE MODE"),
            )
            locker.rollback()
    assert seconds < SOON


def test_without_a_stop_it_compares_as_before(shop: Shop) -> None:
    with shop.running():
        shop.settle()
        assert verify(shop.config, stop=threading.Event()).equal
