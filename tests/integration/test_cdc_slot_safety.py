"""What the source keeps for a slot: next to nothing while the stream lives, and an alarm when it is dead."""

import secrets
from collections.abc import Callable

import pytest

from cdc.retention import Retention, read_retention
from tests.cdc_shop import Shop, admin, make_shop, until

_AT_MOST = 1_000_000  # bytes


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), f"kept_{secrets.token_hex(4)}", products=20)


def write_elsewhere(dsn: str, megabytes: int) -> None:
    """Rows of a table that no publication has, in single transactions of a megabyte."""
    with admin(dsn) as connection:
        connection.execute("CREATE TABLE unrelated (body text)")
        connection.execute("ALTER TABLE unrelated ALTER body SET STORAGE EXTERNAL")
        for _ in range(megabytes):
            connection.execute(
                "INSERT INTO unrelated SELECT repeat('x', 7000) || g FROM generate_series(1, 143) g"
            )


def kept(dsn: str, slot: str) -> Retention:
    with admin(dsn) as connection:
        return read_retention(connection, slot)


def test_an_idle_migration_does_not_hold_back_the_log_of_a_busy_server(
    shop: Shop, make_database: Callable[[], str]
) -> None:
    source, slot = shop.config.source_dsn, shop.config.slot
    elsewhere = make_database()
    with shop.running():
        shop.settle()
        before = written(source)
        write_elsewhere(source, 60)
        write_elsewhere(elsewhere, 60)
        assert written(source) - before > 100_000_000
        with admin(source) as connection:
            connection.execute("CHECKPOINT")  # servers make one every few minutes; a restart begins there
        until(lambda: kept(source, slot).retained < _AT_MOST)
        seen = kept(source, slot)
        assert seen.active
        assert seen.status == "reserved"


def written(dsn: str) -> int:
    with admin(dsn) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        assert row is not None
        return int(row[0])


def test_what_a_dead_reader_keeps_is_seen(shop: Shop) -> None:
    source, slot = shop.config.source_dsn, shop.config.slot
    assert kept(source, slot) == Retention(exists=False)
    with shop.running():
        shop.settle()
        until(lambda: kept(source, slot).active)
    until(lambda: not kept(source, slot).active)
    write_elsewhere(source, 5)
    seen = kept(source, slot)
    assert seen.retained > 5_000_000
    assert seen.status == "reserved"
    assert seen.keep_at_most == 2 * 1024**3  # the setting of this server
    assert seen.disk_free is not None  # the server is on this machine, and we are its superuser
    assert seen.disk_free > 0
    assert seen.safe is not None
    assert seen.keep_at_most - 100_000_000 < seen.safe + seen.retained < seen.keep_at_most + 100_000_000
