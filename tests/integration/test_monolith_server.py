"""The shop as a process: uvicorn, the connection pool, a database that goes away, and its end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from workshop.postgres import free_port


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Product pictures are drawn once."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture
def environment(tmp_path: Path, media: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
    return {
        **clean,
        "SHOP_SECRET_KEY": "x" * 60,
        "SHOP_MEDIA_ROOT": str(media),
        "SHOP_EMAIL_DIR": str(tmp_path / "mail"),
        "SHOP_PASSWORD_ITERATIONS": "1000",
        "SHOP_DATABASE_POOL": "4",
        "STRANGLER_SEAM": "1",
    }


@pytest.fixture
def shop_database(database: str, environment: dict[str, str]) -> str:
    environment["SHOP_DATABASE_URL"] = database
    commands = (
        ["migrate", "--verbosity", "0"],
        ["seed_shop", "--products", "40", "--users", "5", "--orders", "5", "--password", "pw"],
    )
    for command in commands:
        subprocess.run(
            [sys.executable, "-m", "monolith.manage", *command], env=environment, check=True, timeout=60
        )
    return database


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "monolith.config.asgi:application", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--no-access-log"], env=environment, stderr=out, stdout=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield client, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def test_many_readers_share_few_connections_and_the_end_is_clean(
    shop_database: str, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "shop.log"
    with running(environment, log) as (client, process):
        assert client.get("/ready").status_code == 200
        with ThreadPoolExecutor(16) as pool:
            paths = ["/api/products/", "/api/categories/", "/api/docs/", "/api/schema/"] * 20
            assert {answer.status_code for answer in pool.map(client.get, paths)} == {200}
        with psycopg.connect(shop_database) as connection:
            used = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert used is not None
        assert used[0] <= 4
        process.send_signal(signal.SIGTERM)
        # uvicorn stops cleanly and then lets the signal take its course
        assert process.wait(20) in {0, -signal.SIGTERM}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert any(line["event"] == f"Finished server process [{process.pid}]" for line in lines)
    assert not [line for line in lines if line["level"] in {"warning", "error", "critical"}]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) >= 80
    assert all(line["request_id"] and line["service"] == "monolith" for line in requests)


def test_a_session_buys_over_http(shop_database: str, environment: dict[str, str], tmp_path: Path) -> None:
    with running(environment, tmp_path / "shop.log") as (client, _):
        sku = client.get("/api/products/").json()["results"][0]["sku"]

        def post(path: str, body: dict[str, object], **headers: str) -> httpx.Response:
            token = client.get("/api/auth/csrf/").json()["csrf_token"]
            return client.post(path, json=body, headers={"X-CSRFToken": token, **headers})

        assert post("/api/cart/items/", {"sku": sku}).status_code in {201, 409}
        login = post("/api/auth/login/", {"email": "shopper0001@shop.test", "password": "pw"})
        assert login.headers["X-Strangler-User"] == "2"
        address = client.get("/api/me/addresses/").json()[0]["id"]
        bought = post(
            "/api/checkout/", {"address_id": address, "payment_token": "tok_visa"}, **{"Idempotency-Key": "k"}
        )
        assert bought.status_code == 201, bought.text
        assert "X-Strangler-LSN" in bought.headers
        assert bought.json()["lines"][0]["sku"] == sku
    assert len(list((tmp_path / "mail").iterdir())) == 1


def test_it_recovers_from_a_lost_database(
    shop_database: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with running(environment, tmp_path / "shop.log") as (client, _):
        assert client.get("/api/products/").status_code == 200
        with psycopg.connect(shop_database, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert ended is not None
        assert ended[0] > 0
        assert client.get("/api/products/").status_code == 200


def test_without_a_database_it_lives_and_says_that_it_is_not_ready(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["SHOP_DATABASE_URL"] = f"postgresql://shop:x@127.0.0.1:{free_port()}/shop"
    with running(environment, tmp_path / "shop.log") as (client, _):
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
