"""Where a position is from, noted in the target and asked of the source; failovers and restores are in tests/chaos."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.changes import Lsn
from cdc.origin import check_origin, identify, timeline_history
from cdc.pipeline import run
from cdc.seams import AwayError, StreamError
from cdc.sessions import connect_for_replication
from cdc.sources.slot import SlotSource, created_slot
from tests.cdc_shop import Shop, admin, make_shop
from tests.integration.test_cdc_stream import assert_equal, wait_for_stream

Noted = tuple[str, int, int]


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), f"origin_{secrets.token_hex(4)}", products=20)


def run_once(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
        shop.settle()


def noted(shop: Shop) -> list[Noted]:
    with admin(shop.config.target_dsn) as target:
        return target.execute(
            "SELECT system, timeline, database::bigint FROM strangler_cdc.origin"
        ).fetchall()


def truth(shop: Shop) -> Noted:
    with admin(shop.config.source_dsn) as source:
        row = source.execute(
            "SELECT system_identifier::text, timeline_id, (SELECT oid::bigint FROM pg_database WHERE datname ="
            " current_database()) FROM pg_control_system(), pg_control_checkpoint()"
        ).fetchone()
    assert row is not None
    return (str(row[0]), int(row[1]), int(row[2]))


def test_the_snapshot_notes_its_origin_and_a_restart_goes_on(shop: Shop) -> None:
    run_once(shop)
    assert noted(shop) == [truth(shop)]
    run_once(shop)
    assert_running_equal(shop)


def assert_running_equal(shop: Shop) -> None:
    with shop.running():
        wait_for_stream(shop)
        assert_equal(shop)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("system = '1'", "came from the cluster with system identifier 1, the source is another one"),
        ("database = 1", "came from the database with OID 1, "),
        ("timeline = 7", "is of timeline 7, of which the source's timeline 1 is no descendant"),
    ],
)
def test_a_position_of_another_log_is_refused_and_stays(shop: Shop, change: str, part: str) -> None:
    run_once(shop)
    with admin(shop.config.target_dsn) as target:
        target.execute(f"UPDATE strangler_cdc.origin SET {change}")
    before = noted(shop)
    with pytest.raises(StreamError, match=part):
        run(shop.config, threading.Event())
    assert noted(shop) == before


def test_a_target_that_an_earlier_version_filled_notes_it_at_the_first_contact(shop: Shop) -> None:
    run_once(shop)
    with admin(shop.config.target_dsn) as target:
        target.execute("DROP TABLE strangler_cdc.origin")
    run_once(shop)
    assert noted(shop) == [truth(shop)]
    assert_running_equal(shop)


def test_a_role_that_may_not_make_what_is_missing_says_what_to_do(shop: Shop) -> None:
    run_once(shop)
    role = f"origin_{secrets.token_hex(4)}"
    dsn = make_conninfo(shop.config.target_dsn, user=role)
    with admin(shop.config.target_dsn) as target:
        target.execute("DROP TABLE strangler_cdc.origin")
        target.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        try:
            with pytest.raises(StreamError, match=r"lacks origin and .*prepare the stream again"):
                run(replace(shop.config, target_dsn=dsn), threading.Event())
        finally:
            target.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            target.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_role_with_replication_alone_may_ask(shop: Shop) -> None:
    role = f"asks_{secrets.token_hex(4)}"
    with admin(shop.config.source_dsn) as source:
        source.execute(sql.SQL("CREATE ROLE {} LOGIN REPLICATION").format(sql.Identifier(role)))
        try:
            dsn = make_conninfo(shop.config.source_dsn, user=role)
            found = check_origin(dsn, stream="s", position=Lsn(1), stored=None)
        finally:
            source.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert (found.system, found.timeline, found.database) == truth(shop)


def test_a_position_beyond_the_end_of_the_log_is_refused(shop: Shop) -> None:
    with pytest.raises(StreamError, match="an older copy of the source runs"):
        check_origin(shop.config.source_dsn, stream="s", position=Lsn(2**62), stored=None)


def test_a_source_that_was_exchanged_after_it_was_asked_is_not_read(
    shop: Shop, make_database: Callable[[], str]
) -> None:
    with connect_for_replication(make_database(), name="strangler_cdc test") as connection:
        another = identify(connection).origin
    with created_slot(shop.config.source_dsn, shop.config.slot) as created:
        assert created.origin != another
    source = SlotSource(
        shop.config.source_dsn,
        slot=shop.config.slot,
        publication=shop.config.publication,
        tables=shop.config.mapping.sources(),
        origin=another,
    )
    with pytest.raises(AwayError, match="looked at anew"):
        source.start(created.consistent_point)
    with admin(shop.config.source_dsn) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [shop.config.slot])


def test_a_new_timeline_has_a_history_and_the_first_has_none(shop: Shop) -> None:
    with connect_for_replication(shop.config.source_dsn, name="strangler_cdc test") as connection:
        assert timeline_history(connection, 1) == ()
        with pytest.raises(psycopg.errors.UndefinedFile):
            timeline_history(connection, 2)
