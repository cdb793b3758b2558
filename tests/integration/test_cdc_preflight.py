"""The check before anything moves: each fault is found, placed, and has a remedy."""

import secrets
from collections.abc import Callable

import pytest

from cdc.findings import Finding, Severity
from cdc.mapping import parse_mapping
from cdc.preflight import check
from cdc.prepare import PrepareError, prepare
from chassis.yamlfile import parse
from tests.cdc_shop import SOURCE, TARGET, admin, fill, shop_mapping
from workshop.postgres import EmbeddedPostgres


@pytest.fixture
def dsns(make_database: Callable[[], str]) -> tuple[str, str]:
    source, target = make_database(), make_database()
    with admin(source) as connection:
        connection.execute(SOURCE)
    with admin(target) as connection:
        connection.execute(TARGET)
    fill(source, 50)
    return source, target


def errors(findings: list[Finding]) -> list[str]:
    return [
        f"{'.'.join(map(str, each.path))}: {each.message}"
        for each in findings
        if each.severity == Severity.ERROR
    ]


def test_a_good_mapping_has_no_errors(dsns: tuple[str, str]) -> None:
    found = check(shop_mapping(), *dsns)
    assert not errors(found)
    assert not [each for each in found if each.severity == Severity.UNKNOWN]


@pytest.mark.parametrize(
    ("side", "change", "path", "part"),
    [
        (
            "target",
            "ALTER TABLE product ADD COLUMN tax integer NOT NULL",
            "columns",
            "tax is NOT NULL, has no default",
        ),
        ("target", "ALTER TABLE product DROP COLUMN listed", "listed", "no column 'listed'"),
        ("target", "DROP TABLE stock", "target", "stock does not exist"),
        ("target", "ALTER TABLE stock DROP CONSTRAINT stock_pkey", "key", "no unique index"),
        ("target", "ALTER TABLE product ALTER body TYPE integer USING 1", "body", "integer"),
        (
            "source",
            "ALTER TABLE catalog_product ADD COLUMN weight integer",
            "columns",
            "weight is neither carried",
        ),
        ("source", "ALTER TABLE catalog_product DROP COLUMN price", "price", "no column 'price'"),
        ("source", "DROP TABLE catalog_stock", "catalog_stock", "does not exist"),
        (
            "source",
            "ALTER TABLE catalog_stock DROP CONSTRAINT catalog_stock_pkey",
            "key",
            "no replica identity",
        ),
        ("source", "ALTER TABLE catalog_stock REPLICA IDENTITY NOTHING", "key", "no replica identity"),
        (
            "source",
            "ALTER TABLE catalog_product DROP is_active, ADD is_active bool GENERATED ALWAYS AS (true) STORED",
            "columns",
            "generated column",
        ),
        (
            "source",
            "ALTER TABLE catalog_stock RENAME TO held; CREATE VIEW catalog_stock AS SELECT * FROM held",
            "catalog_stock",
            "is a view",
        ),
        (
            "source",
            "CREATE TABLE catalog_stock_old () INHERITS (catalog_stock)",
            "catalog_stock",
            "inherit from it",
        ),
        (
            "source",
            """ALTER TABLE catalog_stock DROP CONSTRAINT catalog_stock_pkey, ALTER warehouse DROP NOT NULL,
               ADD UNIQUE (warehouse, product_id), REPLICA IDENTITY FULL""",
            "key",
            "'warehouse' may be NULL",
        ),
        (
            "source",
            "ALTER TABLE catalog_product ALTER price TYPE numeric(12,4); UPDATE catalog_product SET price = 1.2345",
            "price",
            ": price is '1.2345'",
        ),
    ],
)
def test_each_fault_is_found(dsns: tuple[str, str], side: str, change: str, path: str, part: str) -> None:
    with admin(dsns[0] if side == "source" else dsns[1]) as connection:
        connection.execute(change.encode())
    found = check(shop_mapping(), *dsns)
    matching = [line for line in errors(found) if path in line and part in line]
    assert matching, errors(found)
    assert all(each.remedy for each in found)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("now()", "immutable"),
        ("created_at::date", "immutable"),
        ("count(*)", "aggregate"),
        ("nonsense(name)", "does not exist"),
        ("catalog_product::text", "whole-row"),
        ("no_such_column + 1", "does not exist"),
    ],
)
def test_expressions_that_are_not_one_rows_own_are_refused(
    dsns: tuple[str, str], expression: str, part: str
) -> None:
    with admin(dsns[1]) as target:
        target.execute("ALTER TABLE product ADD COLUMN probe text")
    text = f"""
tables:
  catalog_product:
    target: product
    key: {{product_id: id}}
    columns:
      probe: {{sql: "{expression}", derived: true}}
"""
    data, places = parse(text, "plan.yaml")
    found = check(parse_mapping(data["tables"], places), *dsns)
    (refused,) = [each for each in found if each.path[-1] == "probe" and each.severity == Severity.ERROR]
    assert part in refused.message
    assert places.problem(refused.path, refused.message).line == 7


TRIGGER = """
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER notes BEFORE INSERT ON stock FOR EACH ROW EXECUTE FUNCTION noted();
"""


def test_triggers_that_would_fire_are_named(postgres: EmbeddedPostgres, dsns: tuple[str, str]) -> None:
    source, target = dsns
    role = f"plain_{secrets.token_hex(4)}"

    def warnings(dsn: str) -> list[str]:
        found = check(shop_mapping(), source, dsn)
        return [str(each) for each in found if "trigger" in each.message]

    with admin(target) as connection:
        connection.execute(TRIGGER.encode())
        assert warnings(target) == []  # a superuser switches them off
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'".encode())
        try:
            (warning,) = warnings(postgres.dsn(dbname=connection.info.dbname, user=role, password="p"))
        finally:
            connection.execute(f"DROP ROLE {role}".encode())
        assert "warning: tables.catalog_stock" in warning
        assert "notes" in warning
        assert "GRANT SET ON PARAMETER session_replication_role" in warning
        connection.execute("ALTER TABLE stock ENABLE ALWAYS TRIGGER notes")
        assert len(warnings(target)) == 1


def test_a_database_out_of_reach_is_not_a_clean_bill(dsns: tuple[str, str]) -> None:
    found = check(shop_mapping(), "postgresql://nobody@127.0.0.1:1/none", dsns[1])
    (unknown,) = [each for each in found if each.severity == Severity.UNKNOWN]
    assert "source database cannot be reached" in unknown.message


def test_a_table_without_identity_is_not_published(dsns: tuple[str, str]) -> None:
    source, target = dsns
    with admin(source) as connection:
        connection.execute("ALTER TABLE catalog_stock DROP CONSTRAINT catalog_stock_pkey")
        with pytest.raises(PrepareError, match="would make its updates and deletes fail"):
            prepare(
                shop_mapping(),
                source_owner_dsn=source,
                target_owner_dsn=target,
                cdc_role="postgres",
                publication="p",
            )
        assert connection.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
