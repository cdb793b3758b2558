"""The cache in front of the real shop and the real catalogue service, emptied by the real change stream.

The guarantee: after a price edit was committed in the shop's database, by whomever, the cached list is served
with the old price for as long as the stream needs to apply it and 50 ms more (the pace of notices), and no
longer; here at most `LONGEST` seconds on a busy machine. Without notices it would be as old as `fresh` allows,
and the second half of the test shows that.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg

from cdc.announce import Announce
from cdc.pipeline import StreamConfig, run
from cdc.prepare import prepare
from migration_plans.drivers.cache_notices import cache_notices
from migration_plans.proxy_admin import ProxyAdmin
from tests.cdc_shop import until
from tests.integration.catalog_servers import CATALOG, ROOT, Databases, seeded, serve
from tests.proxy_lab import SECRET, anonymous
from workshop.postgres import EmbeddedPostgres, free_port

LONGEST = 1.0
TOKEN = "a token for tests, 32 bytes long"
ROUTES = """\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:{monolith}"}}
  catalog: {{url: "http://127.0.0.1:{catalog}"}}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: ["/api/products", "/api/products/*"]
    percent: 50
    expose: true
    cache: {{fresh: 600000, tables: [catalog_product, catalog_category, catalog_review]}}
"""


@contextmanager
def proxy(routes: Path) -> Iterator[tuple[str, str]]:
    """A proxy with two workers: its URL and its admin port's."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "strangler_proxy", "--routes", str(routes), "--port", str(port)]
    environ = os.environ | {"STRANGLER_COOKIE_SECRET": SECRET.decode(), "STRANGLER_ADMIN_TOKEN": TOKEN}
    with (routes.parent / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--admin-port", str(admin), "--workers", "2"], cwd=ROOT, env=environ, stderr=log
        )
    try:
        until(lambda: ready(f"http://127.0.0.1:{admin}/ready"), timeout=20)
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def ready(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.ConnectError:
        return False


@contextmanager
def stream(config: StreamConfig, on_applied: Announce | None) -> Iterator[None]:
    """The change stream in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(config, stop), kwargs={"on_applied": on_applied})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def prices(databases: Databases) -> tuple[int, Decimal, Decimal | None]:
    """The first product of the list, its price in the shop, and in the service's database."""
    with psycopg.connect(databases.source_dsn) as shop:
        row = shop.execute(
            "SELECT id, price FROM catalog_product WHERE is_active ORDER BY id LIMIT 1"
        ).fetchone()
    assert row is not None
    with psycopg.connect(databases.target_dsn) as service:
        copied = service.execute("SELECT price_cents FROM product WHERE product_id = %s", [row[0]]).fetchone()
    return row[0], row[1], Decimal(copied[0]) / 100 if copied is not None else None


def edit(databases: Databases, product: int) -> Decimal:
    """A committed price edit that the proxy sees nothing of."""
    with psycopg.connect(databases.source_dsn) as shop:
        row = shop.execute(
            "UPDATE catalog_product SET price = price + 1 WHERE id = %s RETURNING price", [product]
        ).fetchone()
    assert row is not None
    price: Decimal = row[0]
    return price


def client(url: str, who: str) -> httpx.Client:
    """A connection of its own to one of the workers, with the cookie of `who`."""
    name, _, cookie = anonymous(who).partition(": ")
    return httpx.Client(base_url=url, headers={name: cookie})


def listed(asking: httpx.Client, product: int) -> tuple[Decimal, str, str]:
    """The price in the list; the arm; hit or miss."""
    answer = asking.get("/api/products/?page_size=100&ordering=id")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = [item for item in answer.json()["results"] if item["id"] == product]
    return Decimal(found[0]["price"]), answer.headers["x-strangler-arm"], answer.headers["x-cache"]


def test_a_committed_price_edit_is_seen_in_the_cached_list_on_both_arms(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    shop = ["monolith.config.asgi:application"]
    with (
        seeded(postgres, tmp_path, products=60, odd_rows="SELECT 1") as databases,
        serve("monolith", shop, databases.shop_environment, tmp_path / "monolith.log") as monolith,
        serve("service", CATALOG, databases.catalog_environment, tmp_path / "service.log") as service,
    ):
        prepare(
            databases.mapping, source_owner_dsn=databases.source_dsn, target_owner_dsn=databases.target_dsn,
            cdc_role="postgres", publication="cached_tables",
        )  # fmt: skip
        config = StreamConfig(
            slot="cached", publication="cached_tables", mapping=databases.mapping,
            source_dsn=databases.source_dsn, target_dsn=databases.target_dsn,
        )  # fmt: skip
        routes = tmp_path / "routes.yaml"
        routes.write_text(ROUTES.format(monolith=monolith.port, catalog=service.port))
        try:
            with proxy(routes) as (url, admin_url):
                with ProxyAdmin(admin_url, token=TOKEN) as admin, cache_notices(admin) as changed:
                    with stream(config, changed):
                        check_edits_are_seen(databases, url)
                    outcomes = admin.outcomes()["groups"]["catalog"]
                    assert outcomes["control"]["cached"] > 20
                    assert outcomes["canary"]["cached"] > 20
                with stream(config, None):
                    check_that_without_notices_they_are_not(databases, url)
        finally:
            with psycopg.connect(databases.source_dsn, autocommit=True) as owner:
                owner.execute("SELECT pg_drop_replication_slot('cached')")


def check_edits_are_seen(databases: Databases, url: str) -> None:
    until(lambda: prices(databases)[1] == prices(databases)[2])
    product = prices(databases)[0]
    with ExitStack() as stack:
        # Users of both arms, each on connections enough that both workers have some.
        everybody = [stack.enter_context(client(url, f"client {number}")) for number in range(16)]
        assert {listed(one, product)[1] for one in everybody} == {"control", "canary"}
        for _ in range(6):
            for one in everybody:
                listed(one, product)
            assert all(listed(one, product)[2] == "hit" for one in everybody)
            new = edit(databases, product)
            committed = last_old = time.monotonic()
            while time.monotonic() - last_old < 0.4:
                for one in everybody:
                    asked = time.monotonic()
                    if listed(one, product)[0] != new:
                        last_old = asked
                assert last_old - committed < LONGEST
            print(f"old price served for at most {1000 * (last_old - committed):.0f} ms")  # shown by -s


def check_that_without_notices_they_are_not(databases: Databases, url: str) -> None:
    product = prices(databases)[0]
    with ExitStack() as stack:
        everybody = [stack.enter_context(client(url, f"client {number}")) for number in range(16)]
        for one in everybody:
            listed(one, product)
        new = edit(databases, product)
        until(lambda: prices(databases)[2] == new)
        seen = [listed(one, product) for one in everybody]
    assert {(price, state) for price, _, state in seen} == {(new - 1, "hit")}
