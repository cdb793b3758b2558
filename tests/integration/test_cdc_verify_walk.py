"""The comparison walks tables in stretches and rounds: awkward keys and values, load, kills, brakes."""

import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.status import read_status
from cdc.verify import Kind, Limits, VerifyError, VerifyProgress, verify
from tests.cdc_shop import Shop, admin, until
from tests.verify_lab import MAPPING, LabWriter, make_lab, start_verifier

SMALL = Limits(chunk=(7, 50))
"""Stretches of a few rows, so that small tables have many."""


@pytest.fixture
def lab(make_database: Callable[[], str]) -> Shop:
    return make_lab(make_database(), make_database(), f"walk_{secrets.token_hex(4)}")


@pytest.fixture
def streaming(lab: Shop) -> Iterator[Shop]:
    with lab.running():
        until(lambda: stored(lab))
        yield lab


def stored(shop: Shop) -> bool:
    status = read_status(shop.config.target_dsn, stream=shop.config.slot)
    return status is not None and status.position is not None


def test_every_kind_of_key_is_walked_and_equal(streaming: Shop) -> None:
    seen: list[VerifyProgress] = []
    report = verify(streaming.config, limits=SMALL, on_progress=seen.append)
    assert report.equal, report
    assert {name: table.rows for name, table in report.tables.items()} == {
        "measurement": 600,
        "coded": 90,
        "skewed": 402,
        "nothing": 0,
    }
    stretches = {name: sum(each.table == name for each in seen) for name in report.tables}
    assert stretches["measurement"] >= 12
    assert stretches["skewed"] >= 8
    assert stretches["coded"] == 1, "two collations: compared whole"
    assert seen[-1].rows == report.rows == 1092


def test_one_altered_value_is_found_and_named_wherever_it_is(streaming: Shop) -> None:
    dice = random.Random(11)
    columns = {
        "value": "'7.25'",
        "exact": "'0.10'",
        "span": "'31 days'",
        "raw": "'\\x01'",
        "note": "'n'",
        "body": "'b'",
    }
    with admin(streaming.config.target_dsn) as target:
        target.execute("SET timezone = 'UTC'")
        target.execute("SET datestyle = 'ISO'")
        keys = target.execute("SELECT place, taken::text FROM measurement ORDER BY place, taken").fetchall()
        chosen = {keys[0], keys[-1], *dice.sample(keys, 4)}
        wrong: set[tuple[Any, ...]] = set()
        for place, taken in chosen:
            column, value = dice.choice(sorted(columns.items()))
            changed = target.execute(
                f"UPDATE measurement SET {column} = {value} WHERE place = %s AND taken = %s::timestamptz"
                f" AND {column} IS DISTINCT FROM {value}",
                [place, taken],
            ).rowcount
            if changed:
                wrong.add((place, taken, column))
        target.execute("INSERT INTO skewed VALUES (2147483640, 'extra')")
        target.execute("DELETE FROM skewed WHERE id = -2147483648")
        target.execute("INSERT INTO nothing VALUES (gen_random_uuid(), 'extra')")
    assert len(wrong) >= 4
    report = verify(streaming.config, limits=SMALL)
    found = {
        (each.key["place"], each.key["taken"], each.column)
        for each in report.tables["measurement"].differences
    }
    assert found == wrong
    assert {(each.key["id"], each.kind) for each in report.tables["skewed"].differences} == {
        ("-2147483648", Kind.MISSING),
        ("2147483640", Kind.EXTRA),
    }
    assert report.tables["nothing"].differing == 1
    assert report.differing == len(wrong) + 3


def test_no_false_alarm_over_many_rounds_under_load(streaming: Shop) -> None:
    stop = threading.Event()
    raised: list[BaseException] = []

    def write(seed: int) -> None:
        writer = LabWriter(streaming.config.source_dsn, seed)
        try:
            while not stop.wait(0.002):
                writer.step()
        except BaseException as error:
            raised.append(error)
        finally:
            writer.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        reports = [
            verify(streaming.config, limits=Limits(rate=400, chunk=(7, 50)), round_seconds=0.3)
            for _ in range(2)
        ]
        with admin(streaming.config.target_dsn) as target:
            target.execute("UPDATE skewed SET label = 'wrong' WHERE id = -2147483648")  # nobody writes it
        spoilt = verify(streaming.config, limits=SMALL, round_seconds=0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert raised == []
    assert all(report.equal for report in reports), reports
    assert all(report.rounds >= 5 for report in reports), reports
    assert [(each.key["id"], each.column) for each in spoilt.tables["skewed"].differences] == [
        ("-2147483648", "label")
    ]
    assert spoilt.differing == 1


def test_what_is_equal_at_a_later_position_is_not_called_a_difference(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("UPDATE skewed SET label = 'late' WHERE id = 4")

        def repair(seen: VerifyProgress) -> None:
            if seen.table == "nothing":  # all tables were looked at once
                target.execute("UPDATE skewed SET label = 'l4' WHERE id = 4")

        report = verify(streaming.config, limits=SMALL, on_progress=repair)
    assert report.equal
    assert report.tables["skewed"].passed == 1
    assert report.rounds == 2


def test_a_wholly_wrong_table_is_counted_from_below(streaming: Shop) -> None:
    with admin(streaming.config.target_dsn) as target:
        target.execute("UPDATE measurement SET note = 'wrong' || note")
        held = target.execute("SELECT count(*) FROM measurement WHERE note IS NOT NULL").fetchone()
    report = verify(streaming.config, limits=SMALL, max_differences=10).tables["measurement"]
    assert held is not None
    assert len({tuple(each.key.items()) for each in report.differences}) == 10
    assert 10 <= report.differing <= held[0]


def test_a_killed_comparison_goes_on_and_keeps_what_it_suspected(streaming: Shop, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    with admin(streaming.config.target_dsn) as target:
        target.execute(
            "UPDATE measurement SET body = 'wrong' WHERE place = '' AND body IS DISTINCT FROM 'wrong'"
        )
        process = start_verifier(streaming, mapping, rate=100)

        def remembered() -> int:
            row = target.execute(
                "SELECT (state->'measurement'->>'rows')::int FROM strangler_cdc.verification"
            ).fetchone()
            return row[0] if row else 0

        until(lambda: remembered() >= 100)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        seen: list[VerifyProgress] = []
        until(
            lambda: (
                not target.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'strangler_cdc verify control'"
                ).fetchall()
            )
        )
        report = verify(streaming.config, limits=SMALL, on_progress=seen.append)
        assert 100 <= report.resumed < 600
        assert report.tables["measurement"].rows == 600
        assert report.tables["measurement"].differing > 0, "what was found before the kill is not forgotten"
        assert {each.key["place"] for each in report.tables["measurement"].differences} == {""}
        assert target.execute("SELECT count(*) FROM strangler_cdc.verification").fetchone() == (0,)
        assert verify(streaming.config, limits=SMALL).resumed == 0


def test_fresh_forgets_and_stop_keeps(streaming: Shop) -> None:
    stop = threading.Event()

    def enough(seen: VerifyProgress) -> None:
        if seen.rows > 200:
            stop.set()

    with pytest.raises(VerifyError, match="stopped"):
        verify(streaming.config, limits=Limits(rate=1000, chunk=(7, 50)), on_progress=enough, stop=stop)
    with admin(streaming.config.target_dsn) as target:
        assert target.execute("SELECT count(*) FROM strangler_cdc.verification").fetchone() == (1,)
        assert verify(streaming.config, limits=SMALL, tables=["skewed"]).resumed == 0, "another question"
        assert verify(streaming.config, limits=SMALL, resume=False).resumed == 0
        assert target.execute("SELECT count(*) FROM strangler_cdc.verification").fetchone() == (0,)


def test_a_verifier_killed_while_it_holds_the_applier_lets_go(streaming: Shop, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    with (
        admin(streaming.config.target_dsn) as target,
        psycopg.connect(streaming.config.source_dsn) as long,
        admin(streaming.config.source_dsn) as source,
    ):
        long.execute("UPDATE skewed SET label = 'long' WHERE id = 2")  # the slot waits for this transaction
        process = start_verifier(streaming, mapping, rate=1_000_000)
        try:
            until(
                lambda: target.execute("SELECT count(held_at) FROM strangler_cdc.control").fetchone() == (1,)
            )
        finally:
            process.kill()
            process.wait(10)
        source.execute("UPDATE skewed SET label = 'after' WHERE id = 4")
        streaming.settle(timeout=5)
        assert target.execute("SELECT label FROM skewed WHERE id = 4").fetchone() == ("after",)
        long.rollback()
    assert verify(streaming.config, limits=SMALL).equal


def test_a_lagging_stream_is_waited_for_then_said(streaming: Shop) -> None:
    waiting: list[str] = []
    patient = Limits(max_lag=0.5, chunk=(7, 50))

    def behind() -> bool:
        status = read_status(streaming.config.target_dsn, stream=streaming.config.slot)
        return status is not None and (status.lag_seconds or 0) > 1.0

    with (
        psycopg.connect(streaming.config.target_dsn) as blocking,
        admin(streaming.config.source_dsn) as source,
    ):
        blocking.execute("LOCK TABLE skewed IN EXCLUSIVE MODE")
        source.execute("UPDATE skewed SET label = 'later' WHERE id = 4")
        until(behind)
        with pytest.raises(VerifyError, match="behind"):
            verify(streaming.config, limits=patient, timeout=1.0)
        blocking.rollback()
    until(lambda: not behind())
    report = verify(
        streaming.config, limits=patient, on_progress=lambda seen: waiting.append(seen.waiting), timeout=10.0
    )
    assert report.equal


def test_an_unknown_table_is_refused_with_the_names_there_are(streaming: Shop) -> None:
    with pytest.raises(VerifyError, match=r"no table 'radings' is mapped; there are: .*measurement.*reading"):
        verify(streaming.config, tables=["radings"])
