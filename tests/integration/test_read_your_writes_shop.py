"""Nobody misses the review they have just written: the real shop with its seam, the real catalogue, the real change
stream held for five seconds, the real proxy with two workers, of which one is killed, and which is restarted.

Every shopper has a session of the shop; half of them give the proxy's cookies back and half never do.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from cdc.pipeline import StreamConfig
from cdc.prepare import prepare
from tests.cdc_shop import until
from tests.integration.catalog_servers import CATALOG, Databases, run_python, seeded, serve
from tests.integration.test_gateway_cache_shop import proxy, stream
from workshop.postgres import EmbeddedPostgres

LAG = 5.0  # seconds
SHOPPERS = 16
CSRF = "x" * 32
ROUTES = """\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:{monolith}"}}
  catalog: {{url: "http://127.0.0.1:{catalog}", position: {{}}}}
default: monolith
groups:
  catalog: {{backend: catalog, paths: ["/api/products", "/api/products/*"], percent: 100, expose: true}}
read_your_writes: {{enabled: {guard}}}
"""
SESSIONS = f"""
import json
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
found = []
for user in get_user_model().objects.filter(is_staff=False, is_active=True).order_by("pk")[:{SHOPPERS}]:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    found.append(session.session_key)
print("sessions:" + json.dumps(found))
"""


@dataclass(slots=True)
class Shopper:
    """`keeps`: gives the proxy's cookies back. `stale` counts reads that missed the last review."""

    session: str
    keeps: bool
    jar: dict[str, str] = field(default_factory=dict)
    last: tuple[str, str] = ("", "")  # product, title
    arms: dict[str, int] = field(default_factory=dict)
    stale: int = 0

    def write(self, url: str, slug: str, title: str) -> None:
        """Publish a review."""
        answer = self._ask(url, "POST", slug, {"rating": 4, "title": title, "body": "As described."})
        assert answer.status_code == 201, answer.text
        self.last = (slug, title)

    def read(self, url: str) -> None:
        """Look for it."""
        slug, title = self.last
        answer = self._ask(url, "GET", slug, None)
        assert answer.status_code == 200, answer.text
        arm = answer.headers["x-strangler-arm"]
        self.arms[arm] = self.arms.get(arm, 0) + 1
        self.stale += title not in {review["title"] for review in answer.json()["results"]}

    def _ask(self, url: str, method: str, slug: str, body: dict[str, object] | None) -> httpx.Response:
        cookies = {"sessionid": self.session, "csrftoken": CSRF, **self.jar}
        told = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
            "X-CSRFToken": CSRF,
        }
        # a connection for each request: whichever worker
        answer = httpx.request(
            method, f"{url}/api/products/{slug}/reviews/", json=body, headers=told, timeout=20
        )
        if self.keeps:
            self.jar |= {
                name: value for name, value in answer.cookies.items() if name.startswith("strangler")
            }
        return answer


@dataclass(frozen=True, slots=True)
class Shop:
    """What runs: the routes file to be, and who comes."""

    databases: Databases
    directory: Path
    ports: tuple[int, int]
    slugs: tuple[str, ...]
    sessions: tuple[str, ...]

    def routes(self, guard: str) -> Path:
        """A routes file with the guard on (`true`) or off."""
        path = self.directory / f"routes-{guard}.yaml"
        path.write_text(ROUTES.format(monolith=self.ports[0], catalog=self.ports[1], guard=guard))
        return path


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("wrote")
    with ExitStack() as stack:
        databases = stack.enter_context(
            seeded(postgres, directory, products=30, odd_rows="DELETE FROM catalog_review")
        )
        environ = {**databases.shop_environment, "SHOP_THROTTLE_REVIEW": "100000/min"}
        asgi = ["monolith.config.asgi:application"]
        left = stack.enter_context(serve("monolith", asgi, environ, directory / "monolith.log"))
        right = stack.enter_context(
            serve("service", CATALOG, databases.catalog_environment, directory / "service.log")
        )
        prepare(
            databases.mapping, source_owner_dsn=databases.source_dsn, target_owner_dsn=databases.target_dsn,
            cdc_role="postgres", publication="wrote_tables",
        )  # fmt: skip
        config = StreamConfig(
            slot="wrote", publication="wrote_tables", mapping=databases.mapping,
            source_dsn=databases.source_dsn, target_dsn=databases.target_dsn,
        )  # fmt: skip
        output = run_python(["-m", "monolith.manage", "shell", "--verbosity", "0", "-c", SESSIONS], environ)
        told = next(line for line in output.splitlines() if line.startswith("sessions:"))
        with psycopg.connect(databases.source_dsn) as connection:
            rows = connection.execute(
                "SELECT slug FROM catalog_product WHERE is_active ORDER BY id"
            ).fetchall()
        sessions = tuple(json.loads(told.removeprefix("sessions:")))
        try:
            with stream(config, None):
                yield Shop(
                    databases, directory, (left.port, right.port), tuple(row[0] for row in rows), sessions
                )
        finally:
            with psycopg.connect(databases.source_dsn, autocommit=True) as owner:
                owner.execute("SELECT pg_drop_replication_slot('wrote')")


@contextmanager
def behind(shop: Shop) -> Iterator[None]:
    """The stream cannot apply reviews until the block ends, `LAG` seconds at least: readers pass this lock, the
    applier waits for it."""
    with psycopg.connect(shop.databases.target_dsn) as holder:
        holder.execute("LOCK TABLE review IN EXCLUSIVE MODE")
        end = time.monotonic() + LAG
        yield
        time.sleep(max(0.0, end - time.monotonic()))


def everybody(shoppers: list[Shopper], do: Callable[[Shopper], None]) -> None:
    """All at once."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(do, shopper) for shopper in shoppers]:
            done.result()


def shoppers_of(shop: Shop) -> list[Shopper]:
    return [Shopper(session, keeps=number % 2 == 0) for number, session in enumerate(shop.sessions)]


def served_by_the_service(url: str, slug: str) -> bool:
    """Does somebody who wrote nothing read from the service?"""
    answer = httpx.get(f"{url}/api/products/{slug}/reviews/", headers={"Authorization": "Nobody"})
    return bool(answer.headers.get("x-strangler-arm") == "canary")


def write_and_read(shop: Shop, url: str, shoppers: list[Shopper], turn: int, *, seconds: float) -> int:
    """Everybody writes and reads, for about so long; how many times."""
    end = time.monotonic() + seconds
    for _ in range(6):  # a shopper reviews a product once
        if time.monotonic() > end:
            break
        slug, title = shop.slugs[turn], f"turn {turn}"

        def pair(shopper: Shopper, slug: str = slug, title: str = title) -> None:
            shopper.write(url, slug, title)
            shopper.read(url)

        everybody(shoppers, pair)
        turn += 1
    return turn


def test_everybody_finds_their_review_whatever_is_killed(shop: Shop) -> None:
    shoppers = shoppers_of(shop)
    with ExitStack() as stack:
        url, admin = stack.enter_context(proxy(shop.routes("true")))
        until(lambda: served_by_the_service(url, shop.slugs[0]), timeout=20)
        with behind(shop):
            turn = write_and_read(shop, url, shoppers, 0, seconds=LAG / 3)
            everybody(shoppers, lambda each: each.write(url, shop.slugs[turn], "before the worker dies"))
            for worker in httpx.get(f"{admin}/admin/status").json()["workers"]:
                os.kill(worker["pid"], signal.SIGKILL)
            until(lambda: httpx.get(f"{admin}/ready").status_code == 200, timeout=20)
            everybody(shoppers, lambda each: each.read(url))
            everybody(shoppers, lambda each: each.write(url, shop.slugs[turn + 1], "before the proxy ends"))
            stack.close()
            url, _ = stack.enter_context(proxy(shop.routes("true")))
            everybody(shoppers, lambda each: each.read(url))

        def by_the_service() -> bool:
            everybody(shoppers, lambda each: each.read(url))
            return all(shopper.arms.get("canary") for shopper in shoppers)

        until(by_the_service, timeout=20)
    assert [shopper.stale for shopper in shoppers] == [0] * SHOPPERS
    assert all(shopper.arms["guarded"] >= 3 for shopper in shoppers), shoppers


def test_without_the_guard_many_miss_theirs(shop: Shop) -> None:
    shoppers = shoppers_of(shop)
    with proxy(shop.routes("false")) as (url, _), behind(shop):
        write_and_read(shop, url, shoppers, 20, seconds=LAG / 3)
    assert sum(shopper.stale for shopper in shoppers) >= SHOPPERS
