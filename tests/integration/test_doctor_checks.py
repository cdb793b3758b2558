"""Every rule of the doctor: a real database is broken, the rule and no other names it, the repair it gives is
run as it stands, and nothing is found any more.
"""

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.doctor.check import Subject
from cdc.doctor.examine import Addresses, UnknownRuleError, examine
from cdc.doctor.registry import CHECKS, RULES
from cdc.findings import Finding, Severity
from cdc.prepare import prepare
from cdc.sources.slot import created_slot
from tests.cdc_shop import SOURCE, TARGET, admin, shop_mapping
from workshop.postgres import EmbeddedPostgres

STREAM, SHOP, SERVICE = "doctor_cdc", "doctor_shop", "doctor_service"
SLOT = "doctor_slot"
_ROWS = """
INSERT INTO catalog_category VALUES (1, NULL, 'Chairs');
INSERT INTO catalog_product (sku, name, price) SELECT 'SKU-' || g, 'Chair ' || g, g FROM generate_series(1, 20) g;
INSERT INTO catalog_stock SELECT 'north', g, g FROM generate_series(1, 20) g;
"""
# the shop's own tables and mapping are sound but for what a careful plan says about them
_SOUND = """
ALTER TABLE product DROP COLUMN summary;
"""
# what a test may have set for the whole server
_AS_IT_WAS = f"""
ALTER ROLE {STREAM} REPLICATION NOBYPASSRLS CONNECTION LIMIT -1;
ALTER ROLE {SHOP} NOSUPERUSER;
ALTER ROLE {STREAM} RESET ALL;
ALTER SYSTEM RESET synchronous_standby_names;
ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';
SELECT pg_reload_conf()
"""


@dataclass(frozen=True)
class Pair:
    """A source and a target, prepared for the stream, and the session of an administrator on each."""

    server: EmbeddedPostgres
    source: str
    target: str

    def dsn(self, side: str, user: str = "postgres") -> str:
        return self.server.dsn(dbname=getattr(self, side), user=user)

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            self.dsn("source", STREAM),
            self.dsn("target", STREAM),
            self.dsn("source", SHOP),
            self.dsn("target", SERVICE),
        )

    def run(self, side: str, *statements: str) -> None:
        with admin(self.dsn(side)) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def examine(self, subject: Subject | None = None, **options: Any) -> list[Finding]:
        return examine(subject or _subject(), self.addresses, **options)


def _subject() -> Subject:
    mapping = shop_mapping()
    tables = [
        replace(table, columns=tuple(column for column in table.columns if column.name != "summary"))
        for table in mapping.tables
    ]
    return Subject(replace(mapping, tables=tuple(tables)), SLOT, "doctor", STREAM)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    settings = {"max_prepared_transactions": "4"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("doctor"), settings=settings, durable=False) as running:
        with admin(running.dsn()) as connection:
            connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE ROLE {STREAM} LOGIN REPLICATION".encode())
            connection.execute(f"CREATE ROLE {SHOP} LOGIN".encode())
            connection.execute(f"CREATE ROLE {SERVICE} LOGIN".encode())
            connection.execute(f"GRANT SET ON PARAMETER session_replication_role TO {STREAM}".encode())
            connection.execute(f"GRANT pg_read_all_stats TO {SHOP}".encode())
            connection.execute(f"CREATE DATABASE doctor_source OWNER {SHOP}".encode())
            connection.execute(f"CREATE DATABASE doctor_target OWNER {SERVICE}".encode())
        for name, owner, ddl in (("source", SHOP, SOURCE + _ROWS), ("target", SERVICE, TARGET + _SOUND)):
            with admin(running.dsn(dbname=f"doctor_{name}", user=owner)) as connection:
                connection.execute(ddl.encode())
        yield running


@pytest.fixture
def pair(server: EmbeddedPostgres) -> Iterator[Pair]:
    mark = secrets.token_hex(4)
    with admin(server.dsn()) as connection:
        for name, owner in (("source", SHOP), ("target", SERVICE)):
            connection.execute(f"CREATE DATABASE {name}_{mark} TEMPLATE doctor_{name} OWNER {owner}".encode())
    pair = Pair(server, f"source_{mark}", f"target_{mark}")
    prepare(
        _subject().mapping,
        source_owner_dsn=pair.addresses.source_owner or "",
        target_owner_dsn=pair.addresses.target_owner or "",
        cdc_role=STREAM,
        publication="doctor",
    )
    yield pair
    with admin(server.dsn()) as connection:
        for statement in _AS_IT_WAS.split(";"):
            connection.execute(statement.encode())
        slots = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
        for (slot,) in slots:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        for name in (pair.source, pair.target):
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_sound_pair_has_nothing_wrong(pair: Pair) -> None:
    assert [str(each) for each in pair.examine()] == []


# rule, side that is broken, how; {source}, {target} are the databases' names
BREAKS: list[tuple[str, str, str]] = [
    ("wal-keep-unbounded", "source", "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()"),
    ("wal-keep-small", "source", "ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'; SELECT pg_reload_conf()"),
    (
        "target-synchronous-standby",
        "target",
        "ALTER SYSTEM SET synchronous_standby_names = 'far'; SELECT pg_reload_conf()",
    ),
    ("prepared-transaction", "source", "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s'"),
    ("slot-foreign", "source", "SELECT pg_create_physical_replication_slot('doctor_slot')"),
    ("slot-foreign", "target", "SELECT pg_create_logical_replication_slot('doctor_slot', 'pgoutput')"),
    ("slot-unused", "source", "SELECT pg_create_logical_replication_slot('doctor_slot', 'pgoutput')"),
    (
        "slot-gone",
        "target",
        "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES ('doctor_slot', '0/1', '0/1')",
    ),
    ("publication-all-tables", "source", "DROP PUBLICATION doctor; CREATE PUBLICATION doctor FOR ALL TABLES"),
    (
        "publication-all-tables",
        "source",
        "DROP PUBLICATION doctor; CREATE PUBLICATION doctor FOR TABLES IN SCHEMA public",
    ),
    ("publication-leaves-out", "source", "ALTER PUBLICATION doctor SET (publish = 'insert, update')"),
    (
        "publication-leaves-out",
        "source",
        "ALTER PUBLICATION doctor SET TABLE catalog_category WHERE (id > 1), catalog_product, catalog_stock",
    ),
    ("publication-tables", "source", "ALTER PUBLICATION doctor DROP TABLE catalog_stock"),
    ("publication-tables", "source", "CREATE TABLE more (); ALTER PUBLICATION doctor ADD TABLE more"),
    ("publication-via-root", "source", "ALTER PUBLICATION doctor SET (publish_via_partition_root)"),
    ("role-replication", "source", "ALTER ROLE doctor_cdc NOREPLICATION"),
    ("role-read-only", "target", "ALTER ROLE doctor_cdc SET default_transaction_read_only = on"),
    (
        "role-read-only",
        "target",
        "ALTER ROLE doctor_cdc IN DATABASE {target} SET default_transaction_read_only = on",
    ),
    ("role-timeouts", "source", "ALTER DATABASE {source} SET lock_timeout = '1s'"),
    ("role-timeouts", "target", "ALTER DATABASE {target} SET idle_session_timeout = '1min'"),
    ("role-connection-limit", "source", "ALTER DATABASE {source} CONNECTION LIMIT 3"),
    ("source-owner", "source", "ALTER TABLE catalog_stock OWNER TO doctor_service"),
    ("source-select", "source", "REVOKE SELECT ON catalog_stock FROM doctor_cdc"),
    ("target-owner", "target", "ALTER TABLE stock OWNER TO doctor_shop"),
    ("target-write", "target", "REVOKE DELETE ON stock FROM doctor_cdc"),
    (
        "target-temporary",
        "target",
        "REVOKE TEMPORARY ON DATABASE {target} FROM doctor_cdc, PUBLIC",
    ),
    ("application-superuser", "source", "ALTER ROLE doctor_shop SUPERUSER"),
    (
        "source-unlogged",
        "source",
        "ALTER PUBLICATION doctor DROP TABLE catalog_stock; ALTER TABLE catalog_stock SET UNLOGGED",
    ),
    ("target-unlogged", "target", "ALTER TABLE stock SET UNLOGGED"),
    ("source-row-security", "source", "ALTER TABLE catalog_stock ENABLE ROW LEVEL SECURITY"),
    ("target-row-security", "target", "ALTER TABLE stock ENABLE ROW LEVEL SECURITY"),
    ("target-rules", "target", "CREATE RULE quiet AS ON DELETE TO stock DO INSTEAD NOTHING"),
    (
        "target-identity-always",
        "target",
        "ALTER TABLE stock ALTER quantity ADD GENERATED ALWAYS AS IDENTITY",
    ),
    (
        "source-referenced-from-outside",
        "source",
        "CREATE TABLE cart (product_id bigint REFERENCES catalog_product)",
    ),
    (
        "source-references-outside",
        "source",
        "CREATE TABLE place (name varchar(10) PRIMARY KEY); INSERT INTO place VALUES ('north'); "
        "ALTER TABLE catalog_stock ADD FOREIGN KEY (warehouse) REFERENCES place",
    ),
    (
        "target-references-outside",
        "target",
        "CREATE TABLE place (name text PRIMARY KEY); ALTER TABLE stock ADD FOREIGN KEY (place) REFERENCES place",
    ),
    ("target-unique-more", "target", "CREATE UNIQUE INDEX once ON product (lower(title))"),
    ("target-unique-more", "target", "ALTER TABLE product ADD CONSTRAINT once UNIQUE (title)"),
    ("target-not-empty", "target", "INSERT INTO stock VALUES ('x', 1, 1)"),
    ("rows-null", "target", "ALTER TABLE product ALTER category_id SET NOT NULL"),
    ("rows-too-long", "target", "ALTER TABLE product ALTER title TYPE varchar(7)"),
    ("rows-out-of-range", "target", "ALTER TABLE stock ALTER quantity TYPE numeric(1)"),
    ("rows-break-check", "target", "ALTER TABLE stock ADD CONSTRAINT few CHECK (quantity < 10)"),
    (
        "rows-infinite",
        "source",
        "ALTER TABLE catalog_product ALTER created_at DROP NOT NULL; "
        "UPDATE catalog_product SET created_at = '-infinity' WHERE id = 3",
    ),
    # what the mapping and the shapes of the tables say
    ("source-no-identity", "source", "ALTER TABLE catalog_stock REPLICA IDENTITY NOTHING"),
    (
        "key-not-identity",
        "source",
        "CREATE UNIQUE INDEX other ON catalog_category (name); ALTER TABLE catalog_category ALTER name SET "
        "NOT NULL, REPLICA IDENTITY USING INDEX other",
    ),
    (
        "key-nullable",
        "source",
        "ALTER TABLE catalog_stock DROP CONSTRAINT catalog_stock_pkey, ALTER warehouse DROP NOT NULL, "
        "ADD UNIQUE (warehouse, product_id), REPLICA IDENTITY FULL",
    ),
    (
        "key-not-unique",
        "source",
        "ALTER TABLE catalog_stock DROP CONSTRAINT catalog_stock_pkey, REPLICA IDENTITY FULL",
    ),
    (
        "source-generated-column",
        "source",
        "ALTER TABLE catalog_product DROP is_active, ADD is_active bool NOT NULL GENERATED ALWAYS AS (true) STORED",
    ),
    ("target-key-not-unique", "target", "ALTER TABLE stock DROP CONSTRAINT stock_pkey"),
    (
        "target-generated-column",
        "target",
        "ALTER TABLE stock DROP quantity, ADD quantity bigint GENERATED ALWAYS AS (1) STORED",
    ),
    ("target-not-null", "target", "ALTER TABLE category ALTER parent_id SET NOT NULL"),
    ("target-column-required", "target", "ALTER TABLE stock ADD shelf text NOT NULL"),
    (
        "target-trigger-always",
        "target",
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE TRIGGER notes BEFORE INSERT ON stock FOR EACH ROW EXECUTE FUNCTION noted(); "
        "ALTER TABLE stock ENABLE ALWAYS TRIGGER notes",
    ),
]


def _run(pair: Pair, side: str, sql: str) -> None:
    """Each statement by itself, as psql runs a script."""
    names = {"source": pair.source, "target": pair.target}
    for name, database in names.items():
        sql = sql.replace("{" + name + "}", database)
    with admin(pair.dsn(side)) as connection:
        for statement in sql.split("; "):
            connection.execute(statement.encode())


# what else such a database has wrong, because of the same thing
ALSO = {
    "source-unlogged": {"publication-tables"},
}


@pytest.mark.parametrize(("rule", "side", "broken"), BREAKS, ids=lambda value: value.replace(" ", "_")[:60])
def test_each_break_is_named_and_its_repair_repairs(pair: Pair, rule: str, side: str, broken: str) -> None:
    _run(pair, side, broken)
    found = pair.examine()
    assert {each.rule for each in found} == {rule} | ALSO.get(rule, set()), [str(each) for each in found]
    assert [each.rule for each in pair.examine(only=[rule])] == [
        each.rule for each in found if each.rule == rule
    ]
    for each in found:
        assert each.why
        assert each.remedy
        assert each.repair
        assert each.place.side is not None
        _run(pair, each.place.side, each.repair)
    assert [str(each) for each in pair.examine()] == []
