"""Shadow comparison with everything real: shop, catalogue service, change stream, proxy with two workers."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from cdc.pipeline import StreamConfig
from cdc.prepare import prepare
from migration_plans.cli.comparisons import comparisons
from tests.cdc_shop import until
from tests.integration import catalog_requests
from tests.integration.catalog_servers import CATALOG, Databases, Server, seeded, serve
from tests.integration.test_gateway_cache_shop import proxy, stream
from tests.proxy_lab import anonymous
from workshop.postgres import EmbeddedPostgres

FAULTY = ["--factory", "tests.integration.faulty_catalog:create_app"]
LAG = 2.0  # seconds
ROUTES = """\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:{monolith}"}}
  catalog: {{url: "http://127.0.0.1:{catalog}"}}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: ["/api/products/*", "/api/categories/*"]
    percent: {percent}
    shadow:
      percent: 100
      patience: {patience}
      concurrency: 100
      timeout: 10000
      rules:
        /api/products/: {{types: {{"$.results[].price": money}}}}
        /api/products/{{slug}}/: {{types: {{$.price: money}}}}
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """Two databases with a change stream between them, and the monolith."""

    databases: Databases
    monolith: Server
    directory: Path
    targets: tuple[str, ...]


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shadow")
    with (
        seeded(postgres, directory, products=80, odd_rows=catalog_requests.ODD_ROWS) as databases,
        serve(
            "monolith",
            ["monolith.config.asgi:application"],
            databases.shop_environment,
            directory / "monolith.log",
        ) as monolith,
    ):
        prepare(
            databases.mapping, source_owner_dsn=databases.source_dsn, target_owner_dsn=databases.target_dsn,
            cdc_role="postgres", publication="shadowed_tables",
        )  # fmt: skip
        config = StreamConfig(
            slot="shadowed", publication="shadowed_tables", mapping=databases.mapping,
            source_dsn=databases.source_dsn, target_dsn=databases.target_dsn,
        )  # fmt: skip
        try:
            with stream(config, None):
                until(lambda: count(databases.target_dsn, "product") > 80)
                yield Shop(databases, monolith, directory, targets(databases))
        finally:
            with psycopg.connect(databases.source_dsn, autocommit=True) as owner:
                owner.execute("SELECT pg_drop_replication_slot('shadowed')")


def count(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


def targets(databases: Databases) -> tuple[str, ...]:
    with psycopg.connect(databases.source_dsn) as connection:
        slugs = [row[0] for row in connection.execute("SELECT slug FROM catalog_product WHERE is_active")]
    lists = ["", "?page=2", "?ordering=price", "?ordering=-rating&page=2", "?page_size=7&page=3", "?page=99"]
    return (
        *(f"/api/products/{query}" for query in lists),
        *(f"/api/products/{slug}/" for slug in slugs[:25]),
        *(f"/api/products/{slug}/reviews/" for slug in slugs[:10]),
        "/api/categories/",
        "/api/products/nothing-here/",
    )


@contextmanager
def compared(shop: Shop, service: Server, *, percent: int, patience: int) -> Iterator[tuple[str, str]]:
    """A proxy that compares: its URL, and its admin port's."""
    routes = shop.directory / f"routes-{time.monotonic_ns()}.yaml"
    text = ROUTES.format(
        monolith=shop.monolith.port, catalog=service.port, percent=percent, patience=patience
    )
    routes.write_text(text)
    with proxy(routes) as addresses:
        yield addresses


def browse(url: str, paths: tuple[str, ...]) -> int:
    """Several people ask for `paths`; how many answers there were."""
    with ExitStack() as stack:
        people = []
        for number in range(8):
            name, _, cookie = anonymous(f"shopper {number}").partition(": ")
            people.append(stack.enter_context(httpx.Client(base_url=url, headers={name: cookie})))
        for person, path in zip(itertools.cycle(people), paths, strict=False):
            assert person.get(path).status_code in (200, 404), path
    return len(paths)


def settled(admin: str, asked: int) -> Any:
    """The sums, once every request was judged or left out."""
    found: Any = None

    def done() -> bool:
        nonlocal found
        found = httpx.get(f"{admin}/admin/comparisons").json()["groups"]["catalog"]
        return sum(found["verdicts"].values()) + sum(found["dropped"].values()) >= asked

    until(done)
    return found


@contextmanager
def catalogue(shop: Shop, fault: str = "", shadow: str = "") -> Iterator[Server]:
    application = FAULTY if fault else CATALOG
    environment = {
        **shop.databases.catalog_environment,
        "CATALOG_FAULT": fault,
        "CATALOG_SHADOW_DATABASE_URL": shadow,
    }
    with serve("service", application, environment, shop.directory / f"service-{fault}.log") as service:
        yield service


def test_equal_sides_are_found_equal(shop: Shop) -> None:
    """Whoever answers the user: half of them are on the service and compared with the shop."""
    with catalogue(shop) as service, compared(shop, service, percent=50, patience=1500) as (url, admin):
        found = settled(admin, browse(url, shop.targets * 2))
    verdicts = found["verdicts"]
    assert verdicts["real"] == verdicts["representation"] == verdicts["candidate_error"] == 0, found
    assert found["not_compared"] == {}
    assert verdicts["equal"] > 40, found
    assert set(found["templates"]) >= {"/api/products/", "/api/products/{slug}/", "/api/categories/*"}


def test_a_lag_of_two_seconds_is_stale_and_not_a_fault(shop: Shop) -> None:
    with catalogue(shop) as service, compared(shop, service, percent=50, patience=100) as (url, admin):
        asked = browse(url, shop.targets)
        over = threading.Event()
        editor = threading.Thread(target=edit_prices, args=(shop.databases.source_dsn, over))
        # Readers pass this lock, the change stream's applier waits for it.
        with psycopg.connect(shop.databases.target_dsn) as holder:
            holder.execute("LOCK TABLE product IN EXCLUSIVE MODE")
            editor.start()
            try:
                released = time.monotonic() + LAG
                while time.monotonic() < released:
                    asked += browse(url, shop.targets[:12])
                holder.rollback()
                for _ in range(3):  # while it catches up, and while prices still change
                    asked += browse(url, shop.targets[:12])
            finally:
                over.set()
                editor.join()
        found = settled(admin, asked)
    assert found["verdicts"]["stale"] > 0, found
    assert found["verdicts"]["real"] == found["verdicts"]["representation"] == 0, found
    assert found["verdicts"]["candidate_error"] == 0, found


def edit_prices(dsn: str, over: threading.Event) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not over.wait(0.02):
            connection.execute(
                "UPDATE catalog_product SET price = price + 0.01, updated_at = now() WHERE id % 4 = 1 AND price < 1000"
            )


def test_a_fault_of_the_service_is_named(shop: Shop) -> None:
    with (
        catalogue(shop, "price") as service,
        compared(shop, service, percent=0, patience=1500) as (url, admin),
    ):
        found = settled(admin, browse(url, shop.targets))
        shown = CliRunner().invoke(comparisons, ["catalog", "--proxy-admin", admin])
        metrics = httpx.get(f"{admin}/metrics").text
    assert shown.exit_code == 0, shown.output
    assert "real in /api/products/ $.results[].price: value, string of" in shown.output
    line = 'strangler_comparisons_total{group="catalog",template="/api/products/{slug}/",verdict="real"}'
    assert any(metric.startswith(line) for metric in metrics.splitlines())
    real = {(item["template"], item["path"]) for item in found["examples"] if item["verdict"] == "real"}
    assert real == {("/api/products/", "$.results[].price"), ("/api/products/{slug}/", "$.price")}, found
    assert found["templates"]["/api/categories/*"]["verdicts"]["real"] == 0
    assert found["verdicts"]["real"] > 5


@contextmanager
def reader(dsn: str) -> Iterator[str]:
    """The DSN of a role that was granted SELECT alone."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        name = f"reader_{owner.info.dbname}"
        role = sql.Identifier(name)
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reader'").format(role))
        try:
            owner.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
            yield psycopg.conninfo.make_conninfo(dsn, user=name, password="reader")
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {}").format(role))
            owner.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("own_role", [False, True])
def test_a_get_that_writes_is_refused_in_shadow_and_told(shop: Shop, own_role: bool) -> None:
    with psycopg.connect(shop.databases.target_dsn) as connection:
        connection.execute("DROP TABLE IF EXISTS visit")
        connection.execute("CREATE TABLE visit (slug text)")
    details = tuple(path for path in shop.targets if path.count("/") == 4 and "nothing" not in path)
    with ExitStack() as stack:
        role = stack.enter_context(reader(shop.databases.target_dsn)) if own_role else ""
        service = stack.enter_context(catalogue(shop, "writes", role))
        with compared(shop, service, percent=0, patience=1500) as (url, admin):
            found = settled(admin, browse(url, details))
        assert found["candidate_errors"] == {"wrote in shadow": found["verdicts"]["candidate_error"]}, found
        assert found["verdicts"]["candidate_error"] > 5
        assert found["verdicts"]["equal"] == 0
        assert count(shop.databases.target_dsn, "visit") == 0
        if own_role:
            return
        # The same code may write for a real user: nothing but the marker makes the difference.
        with compared(shop, service, percent=100, patience=1500) as (url, admin):
            found = settled(admin, browse(url, details))
        assert count(shop.databases.target_dsn, "visit") == len(details)
        assert found["verdicts"]["candidate_error"] == 0
