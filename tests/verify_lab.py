"""A pair of databases with awkward keys and values for tests of the comparison, and a verifier to kill."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from cdc.pipeline import StreamConfig
from cdc.prepare import prepare
from tests.cdc_shop import Shop, admin, shop_mapping

SOURCE = """
CREATE TABLE reading (
    sensor text NOT NULL, taken timestamptz NOT NULL, value float8, exact numeric, span interval, raw bytea,
    note varchar(20), body text, PRIMARY KEY (sensor, taken));
ALTER TABLE reading ALTER body SET STORAGE EXTERNAL;
CREATE TABLE coded (code text COLLATE "C" PRIMARY KEY, amount real, day date);
CREATE TABLE skewed (id bigint PRIMARY KEY, label text);
CREATE TABLE nothing (id uuid PRIMARY KEY, label text);
"""
TARGET = """
CREATE TABLE measurement (
    place text NOT NULL, taken timestamptz NOT NULL, value float8, exact numeric, span interval, raw bytea,
    note text, body text, PRIMARY KEY (place, taken));
CREATE TABLE coded (code text PRIMARY KEY, amount real, day date);
CREATE TABLE skewed (id integer PRIMARY KEY, label text);
CREATE TABLE nothing (id uuid PRIMARY KEY, label text);
"""
MAPPING = """\
tables:
  reading:
    target: measurement
    key: {place: sensor, taken: taken}
    columns: {value: value, exact: exact, span: span, raw: raw, note: note, body: body}
  coded: {key: {code: code}, columns: {amount: amount, day: day}}
  skewed: {key: {id: id}, columns: {label: label}}
  nothing: {key: {id: id}, columns: {label: label}}
"""
SENSORS = (
    "a",
    "A",
    "ä",
    "a ",
    "Z",
    "",
    "ß",
    "ss",
    "e\u0301",
    "é",
    "a\\b",
    "it's",
    '"q"',
    "10",
    "9",
    "%s",
    "\u4e2d",
)
VALUES: tuple[dict[str, Any], ...] = (
    {"value": float("nan"), "exact": "NaN", "span": "1 mon", "raw": b"\x00\\x", "note": "", "body": None},
    {"value": -0.0, "exact": "-0.00", "span": "30 days", "raw": b"", "note": None, "body": "x" * 9000},
    {"value": float("inf"), "exact": "1e300", "span": "-1 day +02:03", "raw": None, "note": " ", "body": ""},
    {
        "value": 5e-324,
        "exact": "0.1",
        "span": None,
        "raw": bytes(range(256)),
        "note": "tab\t\\N\n",
        "body": "ü",
    },
    {"value": None, "exact": None, "span": "0", "raw": b"\\", "note": "NULL", "body": "NULL"},
)


def make_lab(source_dsn: str, target_dsn: str, slot: str, *, readings: int = 600, skewed: int = 400) -> Shop:
    """Both databases, filled, with session settings that differ; the stream prepared but not running."""
    with admin(source_dsn) as source, admin(target_dsn) as target:
        source.execute(SOURCE)
        target.execute(TARGET)
        # what a database prefers must not be seen in the comparison
        _prefer(
            source,
            timezone="Asia/Kolkata",
            datestyle="German",
            intervalstyle="iso_8601",
            extra_float_digits="0",
        )
        _prefer(
            target,
            timezone="America/Lima",
            datestyle="SQL, DMY",
            bytea_output="escape",
            statement_timeout="20s",
        )
        with source.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO reading VALUES"
                " (%(sensor)s, '2024-03-10 00:30+00'::timestamptz + %(n)s * interval '17 min',"
                " %(value)s, %(exact)s, %(span)s, %(raw)s, %(note)s, %(body)s)",
                [
                    {"sensor": SENSORS[n % len(SENSORS)], "n": n, **VALUES[n % len(VALUES)]}
                    for n in range(readings)
                ],
            )
        source.execute(
            "INSERT INTO coded SELECT chr(33 + g) || g, g / 7.0, '0044-03-15 BC'::date + g"
            " FROM generate_series(1, 90) g"
        )
        source.execute(
            "INSERT INTO skewed SELECT CASE WHEN g %% 2 = 0 THEN g ELSE 2000000000 + g END, 'l' || g"
            " FROM generate_series(1, %s) g",
            [skewed],
        )
        source.execute("INSERT INTO skewed VALUES (-2147483648, 'least'), (2147483647, 'most')")
    mapping = shop_mapping(MAPPING)
    config = StreamConfig(
        slot=slot, publication=f"{slot}_tables", mapping=mapping, source_dsn=source_dsn, target_dsn=target_dsn
    )
    prepare(
        mapping,
        source_owner_dsn=source_dsn,
        target_owner_dsn=target_dsn,
        cdc_role="postgres",
        publication=config.publication,
    )
    return Shop(config)


def _prefer(connection: psycopg.Connection[Any], **settings: str) -> None:
    for name, value in settings.items():
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {name} = '{value}'".encode())


class LabWriter:
    """Seeded work on the source, one transaction a step: every operation on every kind of key."""

    def __init__(self, dsn: str, seed: int) -> None:
        self._dice = random.Random(seed)
        self._connection = psycopg.connect(dsn)
        self._next = 10_000_000 * (seed + 1)

    def step(self) -> None:
        """One transaction of one to three changes. What meets another writer's changes crosswise is rolled back."""
        try:
            for _ in range(self._dice.randint(1, 3)):
                self._change()
            self._connection.commit()
        except psycopg.errors.DeadlockDetected:
            self._connection.rollback()

    def close(self) -> None:
        """Close the session."""
        self._connection.close()

    def _change(self) -> None:
        dice, execute = self._dice, self._connection.execute
        self._next += 1
        one = "WHERE ctid = (SELECT ctid FROM reading OFFSET floor(random() * 300) LIMIT 1)"
        values = dice.choice(VALUES)
        match dice.randrange(8):
            case 0:
                execute(
                    "INSERT INTO reading VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)",
                    [dice.choice(SENSORS), self._next, *values.values()],
                )
            case 1:
                execute(f"UPDATE reading SET value = %s, body = %s {one}", [values["value"], values["body"]])
            case 2:
                execute(f"UPDATE reading SET taken = to_timestamp(%s) {one}", [self._next])
            case 3:
                execute(f"DELETE FROM reading {one}")
            case 4:
                execute("UPDATE skewed SET label = label || '.' WHERE id = %s", [2 * dice.randint(1, 200)])
            case 5:
                execute(
                    "UPDATE skewed SET id = %s WHERE id = (SELECT min(id) FROM skewed WHERE id > %s)",
                    [self._next, dice.randint(0, 10**9)],
                )
            case 6:
                execute("UPDATE coded SET amount = random() WHERE code = (SELECT max(code) FROM coded)")
            case _:
                execute("DELETE FROM coded WHERE code = %s", [f"n{self._next - 40}"])
                execute("INSERT INTO coded VALUES (%s, 'NaN', 'infinity')", [f"n{self._next}"])


_VERIFIER = """
import os, sys
from pathlib import Path
from cdc.pipeline import StreamConfig
from cdc.verify import Limits, verify
from tests.cdc_shop import shop_mapping
slot, rate = sys.argv[1], sys.argv[2]
config = StreamConfig(
    slot=slot, publication=f"{slot}_tables", mapping=shop_mapping(Path(os.environ["LAB_MAPPING"]).read_text()),
    source_dsn=os.environ["LAB_SOURCE"], target_dsn=os.environ["LAB_TARGET"])
verify(config, limits=Limits(rate=float(rate), chunk=(7, 20)))
"""


def start_verifier(shop: Shop, mapping: Path, *, rate: float) -> "subprocess.Popen[bytes]":
    """A process of its own that compares `shop` at `rate` rows a second."""
    return subprocess.Popen(
        [sys.executable, "-c", _VERIFIER, shop.config.slot, str(rate)],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "LAB_SOURCE": shop.config.source_dsn,
            "LAB_TARGET": shop.config.target_dsn,
            "LAB_MAPPING": str(mapping),
        },
    )
