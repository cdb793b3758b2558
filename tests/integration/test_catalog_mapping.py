"""The catalogue's mapping on real rows: accepted, checked, reversible, and kept by the stream."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cdc import pipeline, preflight, prepare
from cdc.findings import Severity
from cdc.mapping import Mapping, reverse
from cdc.statements import snapshot_select
from tests.integration.catalog_requests import ODD_ROWS
from tests.integration.catalog_servers import Databases, copy_through, seeded
from workshop.postgres import EmbeddedPostgres

# what a day at the shop does to the catalogue, and what a mapping is most easily wrong about
_A_DAY = [
    "UPDATE catalog_product SET price = price + 0.01 WHERE id % 4 = 0",
    "UPDATE catalog_product SET is_active = NOT is_active WHERE id % 10 = 1",
    "UPDATE catalog_product SET attributes = jsonb_set(attributes, '{material}', '7') WHERE sku = 'ODD-4'",
    """UPDATE catalog_product SET attributes = '{"material": "oak", "a": {"b": null}}' WHERE sku = 'ODD-1'""",
    "UPDATE catalog_product SET description = repeat('a long text ', 2000) || id WHERE id % 25 = 0",
    "UPDATE catalog_product SET weight_kg = 0.001, released_on = NULL WHERE id % 25 = 0",
    "UPDATE catalog_review SET is_approved = NOT is_approved WHERE id % 3 = 0",
    "DELETE FROM catalog_review WHERE id % 7 = 0",
    "DELETE FROM catalog_productimage WHERE id % 5 = 0",
    "UPDATE catalog_category SET name = upper(name), position = position + 1",
    """INSERT INTO catalog_category (parent_id, slug, name, position)
       SELECT max(id), 'brand-new', 'Brand new', 0 FROM catalog_category""",
    """UPDATE catalog_product SET category_id = (SELECT id FROM catalog_category WHERE slug = 'brand-new')
       WHERE id % 30 = 0""",
]


@pytest.fixture(scope="module")
def databases(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    directory = tmp_path_factory.mktemp("mapping")
    with seeded(postgres, directory, products=200, odd_rows=ODD_ROWS) as both:
        yield both


def test_preflight_finds_nothing_wrong(databases: Databases) -> None:
    found = preflight.check(databases.mapping, databases.source_dsn, databases.target_dsn)
    bad = [str(finding) for finding in found if finding.severity is not Severity.WARNING]
    assert bad == []


def test_every_source_row_can_be_restored(databases: Databases) -> None:
    copy_through(databases.mapping, databases.source_dsn, databases.target_dsn)
    back = reverse(databases.mapping)
    for forth, way_back in zip(databases.mapping.tables, back.tables, strict=True):
        names = ", ".join(f'"{column.name}"' for column in way_back.columns)
        with psycopg.connect(databases.source_dsn) as source:
            original = _rows(source, f"SELECT {names} FROM {forth.source.sql}")
        with psycopg.connect(databases.target_dsn) as target:
            restored = _rows(target, snapshot_select(way_back))
        assert len(original) > 20
        assert restored == original


def test_the_stream_keeps_both_sides_equal(databases: Databases) -> None:
    with psycopg.connect(databases.target_dsn) as target:
        for table in reversed(databases.mapping.tables):
            target.execute(f"DELETE FROM {table.target.sql}".encode())
    prepare.prepare(
        databases.mapping,
        source_owner_dsn=databases.source_dsn,
        target_owner_dsn=databases.target_dsn,
        cdc_role="postgres",
        publication="catalog_test",
    )
    config = pipeline.StreamConfig(
        slot="catalog_mapping_test",
        publication="catalog_test",
        mapping=databases.mapping,
        source_dsn=databases.source_dsn,
        target_dsn=databases.target_dsn,
    )
    with _streaming(config):
        _wait_until_equal(databases)
        with psycopg.connect(databases.source_dsn) as source:
            for statement in _A_DAY:
                source.execute(statement.encode())
                source.commit()
            _swap_slugs(source)
        _wait_until_equal(databases)
    prepare.teardown(
        databases.mapping,
        slot=config.slot,
        publication=config.publication,
        source_dsn=databases.source_dsn,
        source_owner_dsn=databases.source_dsn,
        target_owner_dsn=databases.target_dsn,
    )


def _swap_slugs(source: psycopg.Connection[Any]) -> None:
    (one, first), (other, second) = source.execute(
        "SELECT id, slug FROM catalog_product ORDER BY id LIMIT 2"
    ).fetchall()
    for product, slug in ((one, "on-its-way"), (other, first), (one, second)):
        source.execute("UPDATE catalog_product SET slug = %s WHERE id = %s", [slug, product])
    source.commit()


class _streaming:  # noqa: N801  (reads as a verb in a with statement)
    """The stream in a thread; its failure is raised at the end."""

    def __init__(self, config: pipeline.StreamConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            pipeline.run(self._config, self._stop)
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the stream did not stop"
        if self._failure is not None:
            raise self._failure


def _wait_until_equal(databases: Databases, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        found = _differing(databases.mapping, databases.source_dsn, databases.target_dsn)
        if not found:
            return
        assert time.monotonic() < deadline, f"still different after {seconds:g} s: {found}"
        time.sleep(0.1)


def _differing(mapping: Mapping, source_dsn: str, target_dsn: str) -> list[str]:
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn) as target:
        found = []
        for table in mapping.tables:
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            expected = _rows(source, snapshot_select(table))
            actual = _rows(target, f"SELECT {names} FROM {table.target.sql}")
            if expected != actual:
                found.append(f"{table.target}: {len(expected)} rows expected, {len(actual)} there")
        return found


def _rows(connection: psycopg.Connection[Any], query: str) -> list[str]:
    """Rows as PostgreSQL writes them, so that scale and zone count."""
    found = connection.execute(f"SELECT row_text::text FROM ({query}) AS row_text ORDER BY 1".encode())
    return [text for (text,) in found]
