"""Every rule of the doctor: a real database is broken, the rule and no other names it, the repair it gives is
run as it stands, and nothing is found any more.
"""

# ruff: noqa: ISC004  (statements over several lines)

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.doctor.check import Subject
from cdc.doctor.examine import Addresses, UnknownRuleError, examine
from cdc.findings import Finding, Severity
from cdc.prepare import prepare
from tests.cdc_shop import MAPPING, SOURCE, TARGET, admin, shop_mapping
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
    running = EmbeddedPostgres(tmp_path_factory.mktemp("doctor"), settings=settings, durable=False)
    del running.settings["max_slot_wal_keep_size"]  # a command line could not be altered
    with running:
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
    (
        "target-deferrable-unchecked",
        "target",
        "ALTER TABLE product DROP CONSTRAINT product_sku_key, ADD CONSTRAINT product_sku_key UNIQUE (sku) "
        "DEFERRABLE INITIALLY DEFERRED",
    ),
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
    ("rows-too-long", "target", "ALTER TABLE product ALTER sku TYPE varchar(5)"),
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
    ("target-not-null", "source", "ALTER TABLE catalog_stock ALTER quantity DROP NOT NULL"),
    ("target-column-required", "target", "ALTER TABLE stock ADD shelf text NOT NULL"),
    (
        "target-trigger-always",
        "target",
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW;END'; "
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
    "rows-null": {"target-not-null"},
    "rows-too-long": {"mapping-not-invertible"},
    "source-generated-column": {"expression-refused"},
    "rows-out-of-range": {"mapping-not-invertible"},
    "rows-infinite": {"target-not-null"},
    "key-nullable": {"target-not-null"},
}
# what its repair leaves to look at
LEAVES = {"target-column-required": {"target-column-unwritten"}}
# what its repair brings up, and that one's repair takes away
BRINGS = {"rows-infinite": {"rows-null"}}
# without these rights other checks cannot run, and must say so
BLIND = {"source-owner", "target-owner", "target-temporary"}


def _named(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings if each.severity is not Severity.UNKNOWN}


def _examined(pair: Pair, expected: set[str]) -> list[Finding]:
    """What is found once the server has taken a reloaded setting over, or after ten seconds."""
    deadline = time.monotonic() + 10
    while _named(found := pair.examine()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(("rule", "side", "broken"), BREAKS, ids=lambda value: value.replace(" ", "_")[:60])
def test_each_break_is_named_and_its_repair_repairs(pair: Pair, rule: str, side: str, broken: str) -> None:
    _run(pair, side, broken)
    expected = {rule} | ALSO.get(rule, set())
    found = _examined(pair, expected) if "reload" in broken else pair.examine()
    assert _named(found) == expected, [str(each) for each in found]
    unknown = {each.rule for each in found if each.severity is Severity.UNKNOWN}
    assert bool(unknown) == (rule in BLIND), unknown
    for each in found:
        if each.rule == rule:
            assert each.why
            assert each.remedy
            assert each.place.side is not None
            assert each.repair
            _run(pair, each.place.side, each.repair)
    left = LEAVES.get(rule, set())
    found = _examined(pair, left) if "reload" in broken else pair.examine()
    for each in found:  # what was wrong because of the same thing
        assert each.rule in ALSO.get(rule, set()) | BRINGS.get(rule, set()) | left, str(each)
        if each.repair and each.place.side is not None:
            _run(pair, each.place.side, each.repair)
    if _named(found) != left:
        assert _named(pair.examine()) == left


# a statement cannot repair these: the plan, the name of a database or a server has to change
TOLD: list[tuple[str, str, str]] = [
    ("source-table-missing", "source", "DROP TABLE catalog_stock"),
    (
        "source-partitioned",
        "source",
        "DROP TABLE catalog_stock; CREATE TABLE catalog_stock (warehouse varchar(10), "
        "product_id bigint, quantity integer NOT NULL, PRIMARY KEY (warehouse, product_id)) "
        "PARTITION BY HASH (product_id)",
    ),
    ("source-inherited", "source", "CREATE TABLE catalog_stock_old () INHERITS (catalog_stock)"),
    (
        "source-view",
        "source",
        "ALTER TABLE catalog_stock RENAME TO held; CREATE VIEW catalog_stock AS SELECT * FROM held",
    ),
    (
        "source-materialized-view",
        "source",
        "ALTER TABLE catalog_stock RENAME TO held; CREATE MATERIALIZED VIEW catalog_stock AS SELECT * FROM held",
    ),
    (
        "source-foreign-table",
        "source",
        "DROP TABLE catalog_stock; CREATE FOREIGN DATA WRAPPER far; "
        "CREATE SERVER far FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE catalog_stock (warehouse varchar(10), "
        "product_id bigint, quantity integer) SERVER far",
    ),
    ("source-not-a-table", "source", "DROP TABLE catalog_stock; CREATE SEQUENCE catalog_stock"),
    ("key-column-missing", "source", "ALTER TABLE catalog_stock RENAME warehouse TO place"),
    ("source-column-unaccounted", "source", "ALTER TABLE catalog_product ADD weight integer"),
    ("ignored-column-missing", "source", "ALTER TABLE catalog_product DROP search_vector"),
    ("source-column-missing", "source", "ALTER TABLE catalog_product DROP price"),
    ("target-table-missing", "target", "DROP TABLE stock"),
    ("target-column-missing", "target", "ALTER TABLE product DROP listed"),
    ("target-generated-unfit", "target", "ALTER TABLE product DROP search"),
    ("target-column-unwritten", "target", "ALTER TABLE product ADD extra text"),
    ("expression-refused", "target", "ALTER TABLE product ALTER body TYPE integer USING 1"),
    (
        "mapping-not-invertible",
        "source",
        "ALTER TABLE catalog_product ALTER price TYPE numeric(12,4); UPDATE catalog_product SET price = 1.2345",
    ),
]


@pytest.mark.parametrize(("rule", "side", "broken"), TOLD, ids=lambda value: value.replace(" ", "_")[:60])
def test_what_no_statement_repairs_is_told_with_its_place(
    pair: Pair, rule: str, side: str, broken: str
) -> None:
    _run(pair, side, broken)
    found = pair.examine(only=[rule])
    assert {each.rule for each in found} == {rule}, [str(each) for each in found]
    for each in found:
        assert each.place.side == side
        assert each.place.database == getattr(pair, side)
        assert each.place.table
        assert each.path[0] == "tables"
        assert each.why
        assert each.remedy


def _one(pair: Pair, rule: str, subject: Subject | None = None) -> Finding:
    (finding,) = pair.examine(subject, only=[rule])
    assert finding.rule == rule
    return finding


def _gone_after_repair(pair: Pair, finding: Finding, subject: Subject | None = None) -> None:
    assert finding.place.side is not None
    _run(pair, finding.place.side, finding.repair)
    assert pair.examine(subject, only=[finding.rule]) == []


def test_a_role_that_is_not_there_or_not_the_one_that_connects(pair: Pair) -> None:
    role = f"absent_{secrets.token_hex(4)}"
    subject = replace(_subject(), role=role)
    found = pair.examine(subject, only=["role-missing", "role-other"])
    assert [each.rule for each in found] == ["role-missing"] * 2 + ["role-other"] * 2
    try:
        _run(pair, "source", found[0].repair)
        assert pair.examine(subject, only=["role-missing"]) == []
    finally:
        _run(pair, "source", f"DROP ROLE IF EXISTS {role}")


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_owner_that_may_not_create(pair: Pair, side: str) -> None:
    rule = f"{side}-create"
    gone = "DROP PUBLICATION doctor" if side == "source" else "DROP SCHEMA strangler_cdc CASCADE"
    _run(pair, side, f"{gone}; ALTER DATABASE {{{side}}} OWNER TO postgres")
    finding = _one(pair, rule)
    assert finding.severity is Severity.ERROR
    _gone_after_repair(pair, finding)


def test_a_write_transaction_that_is_open_for_long(pair: Pair) -> None:
    impatient = replace(_subject(), long_transaction=0.0)
    with psycopg.connect(pair.dsn("source", SHOP)) as writer:
        writer.execute("UPDATE catalog_stock SET quantity = 2")
        assert pair.examine(only=["long-write-transaction"]) == []
        finding = _one(pair, "long-write-transaction", impatient)
        assert str(writer.info.backend_pid) in finding.message
        _run(pair, "source", f"SELECT pg_terminate_backend({writer.info.backend_pid}, 5000)")
        assert finding.repair.endswith(f"pg_terminate_backend({writer.info.backend_pid})")
        assert pair.examine(impatient, only=["long-write-transaction"]) == []
        writer.close()


def test_a_transaction_whose_age_cannot_be_seen_is_not_passed(pair: Pair) -> None:
    with admin(pair.dsn("source")) as writer, writer.transaction():
        writer.execute("SELECT pg_current_xact_id()")
        _run(pair, "source", f"REVOKE pg_read_all_stats FROM {SHOP}")
        try:
            finding = _one(pair, "long-write-transaction")
        finally:
            _run(pair, "source", f"GRANT pg_read_all_stats TO {SHOP}")
    assert finding.severity is Severity.UNKNOWN
    assert "GRANT pg_read_all_stats" in finding.remedy


TRIGGER = (
    "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW;END'; "
    "CREATE TRIGGER notes BEFORE INSERT ON stock FOR EACH ROW EXECUTE FUNCTION noted()"
)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("target-trigger-fires", TRIGGER),
        (
            "target-foreign-key-order",
            "ALTER TABLE category DROP CONSTRAINT category_parent_id_fkey; "
            "ALTER TABLE category ADD FOREIGN KEY (parent_id) REFERENCES category",
        ),
    ],
)
def test_what_matters_only_when_triggers_cannot_be_switched_off(pair: Pair, rule: str, broken: str) -> None:
    _run(pair, "target", broken)
    assert pair.examine() == []
    _run(pair, "target", f"REVOKE SET ON PARAMETER session_replication_role FROM {STREAM}")
    try:
        _gone_after_repair(pair, _one(pair, rule))
    finally:
        _run(pair, "target", f"GRANT SET ON PARAMETER session_replication_role TO {STREAM}")


def _with_columns(text: str) -> Subject:
    """The subject, with more columns of catalog_stock."""
    mapping = shop_mapping(
        MAPPING.replace("columns: {quantity: quantity}", f"columns: {{quantity: quantity, {text}}}")
    )
    return replace(_subject(), mapping=mapping)


def test_large_objects_and_large_values(pair: Pair) -> None:
    _run(
        pair,
        "source",
        "ALTER TABLE catalog_stock ADD file oid, ADD note text; UPDATE catalog_stock SET file = "
        "lo_from_bytea(0, 'scan')",
    )
    _run(pair, "target", "ALTER TABLE stock ADD file oid, ADD both_of text")
    subject = _with_columns('file: file, both_of: {sql: "note || warehouse", derived: true}')
    mixed = _one(pair, "large-value-mixed", subject)
    assert mixed.place.column == "note"
    _gone_after_repair(pair, mixed, subject)
    finding = _one(pair, "large-object", subject)
    assert (finding.place.table, finding.place.column) == ("catalog_stock", "file")
    _gone_after_repair(pair, finding, subject)
    with admin(pair.dsn("source")) as connection:
        assert connection.execute("SELECT DISTINCT file FROM catalog_stock").fetchall() == [(b"scan",)]


DEBEZIUM = replace(_subject(), debezium=True)
# a column of catalog_stock that the mapping carries: its type, a value, whether the type or the value is refused
DAMAGED = [
    ("timetz", "'13:00+05'", "debezium-loses-type"),
    ("interval[]", "'{1 mon}'", "debezium-loses-type"),
    ("numeric[]", "'{NaN}'", "debezium-loses-type"),
    ("bit varying(8)", "B'101'", "debezium-loses-type"),
    ("integer[]", "'{{1,2},{3,4}}'", "debezium-damages-values"),
    ("text[]", "'[0:1]={a,b}'", "debezium-damages-values"),
    ("time[]", "'{10:00:00.123456}'", "debezium-loses-type"),
    ("timestamptz[]", "'{0044-03-15 BC}'", "debezium-damages-values"),
    ("timestamp[]", "'{1500-01-01}'", "debezium-damages-values"),
    ("date[]", "'{infinity}'", "debezium-damages-values"),
    ("time(3)[]", "'{24:00:00}'", "debezium-damages-values"),
    ("timestamp", "'294276-01-01'", "debezium-damages-values"),
]


@pytest.mark.parametrize(("type_", "value", "rule"), DAMAGED, ids=str)
def test_what_debezium_damages_is_a_blocker_only_where_debezium_reads(
    pair: Pair, type_: str, value: str, rule: str
) -> None:
    _run(pair, "source", f"ALTER TABLE catalog_stock ADD odd {type_}; UPDATE catalog_stock SET odd = {value}")
    _run(pair, "target", "ALTER TABLE stock ADD odd text")
    subject = _with_columns("odd: {sql: odd::text, inverse: {odd: odd}}")
    rules = ["debezium-loses-type", "debezium-damages-values"]
    assert pair.examine(subject, only=rules) == []
    found = pair.examine(replace(subject, debezium=True), only=rules)
    assert [(each.rule, each.severity, each.place.column) for each in found] == [
        (rule, Severity.ERROR, "odd")
    ]
    assert "stream.source: slot" in found[0].remedy
    assert found[0].path[0] == "tables"
    _run(
        pair, "source", "UPDATE catalog_stock SET odd = NULL; ALTER TABLE catalog_stock REPLICA IDENTITY FULL"
    )
    left = pair.examine(replace(subject, debezium=True), only=rules)
    assert [each.rule for each in left] == ([rule] if rule == "debezium-loses-type" else [])
    # a mapping that ignores it has nothing to lose
    ignoring = _subject()
    tables = [
        replace(table, ignored=(*table.ignored, ("odd", "not needed"))) for table in ignoring.mapping.tables
    ]
    ignoring = replace(ignoring, mapping=replace(ignoring.mapping, tables=tuple(tables)), debezium=True)
    assert pair.examine(ignoring, only=rules) == []


MIGHT = [
    ("integer[]", "'{{1,2}}'"),
    ("date[]", "'{infinity}'"),
    ("timestamptz[]", "'{-infinity}'"),
    ("timestamp[]", "'{1500-01-01}'"),
    ("time(3)[]", "'{24:00:00}'"),
]


@pytest.mark.parametrize(("type_", "value"), MIGHT, ids=str)
def test_what_debezium_might_damage_is_a_warning_until_a_check_forbids_it(
    pair: Pair, type_: str, value: str
) -> None:
    _run(pair, "source", f'ALTER TABLE catalog_stock ADD "Odd one" {type_}')
    subject = replace(_with_columns("odd: {sql: '\"Odd one\"::text', derived: true}"), debezium=True)
    found = pair.examine(subject, only=["debezium-may-damage"])
    assert [(each.severity, each.place.column) for each in found] == [
        (Severity.WARNING, "tags"),
        (Severity.WARNING, "Odd one"),
    ]
    for each in found:
        _run(pair, "source", each.repair)
    with admin(pair.dsn("source")) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f'UPDATE catalog_stock SET "Odd one" = {value}'.encode())
    # of some types Debezium also writes NULL and unchanged large values alike: no CHECK helps there
    for each in pair.examine(subject, only=["debezium-may-damage"]):
        assert each.message.endswith(
            "may hold NULL or large values that an update leaves alone: Debezium writes both alike"
        )
        assert not each.repair


def test_null_that_debezium_writes_like_a_large_value_asks_for_the_whole_old_row(pair: Pair) -> None:
    _run(pair, "source", "ALTER TABLE catalog_stock ADD odd float8[]")
    _run(pair, "target", "ALTER TABLE stock ADD odd float8[]")
    subject = replace(_with_columns("odd: odd"), debezium=True)
    finding = _one(pair, "debezium-damages-values", subject)
    assert "20 of the first" in finding.message
    _gone_after_repair(pair, finding, subject)


def test_sequences_that_stand_behind_their_keys(pair: Pair) -> None:
    _run(
        pair,
        "target",
        "ALTER TABLE stock ALTER product_id ADD GENERATED BY DEFAULT AS IDENTITY; "
        "INSERT INTO stock VALUES ('north', 41, 1)",
    )
    finding = _one(pair, "target-sequence-behind")
    assert "41" in finding.message
    _gone_after_repair(pair, finding)
    with admin(pair.dsn("target")) as connection:
        row = connection.execute(
            "INSERT INTO stock (place, quantity) VALUES ('n', 1) RETURNING product_id"
        ).fetchone()
        assert row == (42,)


def test_databases_with_other_texts(pair: Pair) -> None:
    other = f"latin_{secrets.token_hex(4)}"
    with admin(pair.server.dsn()) as connection:
        connection.execute(
            f"CREATE DATABASE {other} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'POSIX' LC_CTYPE 'POSIX'".encode()
        )
        try:
            elsewhere = replace(pair, target=other)
            found = elsewhere.examine(only=["encoding-differs", "collation-differs"])
        finally:
            connection.execute(f"DROP DATABASE {other}".encode())
    assert [each.rule for each in found] == ["encoding-differs", "collation-differs"]
    assert "LATIN1" in found[0].message


def test_a_slot_that_lost_its_log(pair: Pair) -> None:
    _run(pair, "source", "SELECT pg_create_logical_replication_slot('doctor_slot', 'pgoutput')")
    _run(pair, "source", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf()")
    with admin(pair.dsn("source")) as connection:
        for _ in range(5):  # whole segments of the log go by
            connection.execute("SELECT pg_logical_emit_message(false, 'noise', 'x'), pg_switch_wal()")
        deadline = time.monotonic() + 20
        while not (found := pair.examine(only=["slot-lost"])) and time.monotonic() < deadline:
            connection.execute("CHECKPOINT")
    (finding,) = found
    _gone_after_repair(pair, finding)


@contextmanager
def _small_server(directory: Path, **settings: str) -> Iterator[EmbeddedPostgres]:
    """A server of its own with the databases `shop` and `service`. Settings are in its file, not on its command
    line, so that ALTER SYSTEM can change them.
    """
    server = EmbeddedPostgres(directory, durable=False)
    for name in settings:
        del server.settings[name]
    server.start()
    try:
        with admin(server.dsn()) as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("CREATE DATABASE shop")
            connection.execute("CREATE DATABASE service")
        server.stop()
        yield server.start()
    finally:
        server.stop()


def test_a_server_without_logical_log_slots_and_senders(tmp_path: Path) -> None:
    subject = replace(_subject(), role="postgres")
    rules = ["wal-level", "slots-exhausted", "slots-scarce", "senders-exhausted", "senders-scarce"]

    def found(server: EmbeddedPostgres) -> list[Finding]:
        return examine(
            subject, Addresses(server.dsn(dbname="shop"), server.dsn(dbname="service")), only=rules
        )

    with _small_server(
        tmp_path / "small", wal_level="replica", max_replication_slots="0", max_wal_senders="0"
    ) as server:
        first = found(server)
        assert [each.rule for each in first] == ["wal-level", "slots-exhausted", "senders-exhausted"]
        with admin(server.dsn()) as connection:
            for each in first:
                connection.execute(each.repair.encode())
        server.stop()
        server.start()
        assert found(server) == []
        with admin(server.dsn()) as connection:
            connection.execute("ALTER SYSTEM SET max_replication_slots = 1")
            connection.execute("ALTER SYSTEM SET max_wal_senders = 1")
        server.stop()
        server.start()
        scarce = found(server)
        assert [each.rule for each in scarce] == ["slots-scarce", "senders-scarce"]
        with admin(server.dsn()) as connection:
            for each in scarce:
                connection.execute(each.repair.encode())
        server.stop()
        server.start()
        assert found(server) == []


def test_standby_servers(tmp_path: Path) -> None:
    with _small_server(tmp_path / "standby") as server:
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        addresses = Addresses(server.dsn(dbname="shop"), server.dsn(dbname="service"))
        subject = replace(_subject(), role="postgres")
        found = examine(subject, addresses, only=["source-standby", "target-standby"])
        assert [each.rule for each in found] == ["source-standby", "target-standby"]
        with admin(server.dsn()) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        assert examine(subject, addresses, only=["source-standby", "target-standby"]) == []


def test_a_database_out_of_reach_is_said_once_and_the_other_is_examined(pair: Pair) -> None:
    _run(pair, "target", "ALTER TABLE stock SET UNLOGGED")
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    found = examine(_subject(), replace(pair.addresses, source=nowhere, source_owner=nowhere))
    assert [(each.rule, each.severity) for each in found] == [
        ("database-unreachable", Severity.UNKNOWN),
        ("target-unlogged", Severity.ERROR),
    ]


def test_a_check_that_times_out_is_not_a_pass(pair: Pair) -> None:
    with admin(pair.dsn("target")) as holder, holder.transaction():
        holder.execute("LOCK TABLE stock IN ACCESS EXCLUSIVE MODE")
        found = pair.examine(only=["target-not-empty"])
    assert [(each.rule, each.severity, each.place.table) for each in found] == [
        ("target-not-empty", Severity.UNKNOWN, "stock")
    ]
    assert "lock timeout" in found[0].message


def test_without_the_owners_address_his_rights_are_unknown(pair: Pair) -> None:
    found = examine(_subject(), replace(pair.addresses, source_owner=None, target_owner=None))
    assert {each.severity for each in found} == {Severity.UNKNOWN}
    assert {each.rule for each in found} >= {"source-owner", "source-create", "target-owner", "target-create"}


def test_a_schema_that_the_streams_role_owns_is_read_as_that_role(pair: Pair) -> None:
    _run(
        pair,
        "target",
        f"ALTER SCHEMA strangler_cdc OWNER TO {STREAM}; REVOKE USAGE ON SCHEMA strangler_cdc FROM PUBLIC",
    )
    _run(pair, "target", f"REVOKE ALL ON SCHEMA strangler_cdc FROM {SERVICE}")
    assert pair.examine() == []
    _run(pair, "target", "INSERT INTO stock VALUES ('x', 1, 1)")
    assert _one(pair, "target-not-empty").severity is Severity.ERROR


def test_prepare_is_not_held_up_by_what_it_mends(pair: Pair) -> None:
    _run(pair, "source", "ALTER PUBLICATION doctor SET (publish = 'insert')")
    _run(pair, "source", "REVOKE SELECT ON catalog_stock FROM doctor_cdc")
    assert len(pair.examine()) == 2
    assert pair.examine(before_prepare=True) == []


def test_an_unknown_rule_is_refused(pair: Pair) -> None:
    with pytest.raises(UnknownRuleError, match="no-such-rule"):
        pair.examine(only=["no-such-rule"])
