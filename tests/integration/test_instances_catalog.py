"""Two real catalogue services behind the proxy's command line: one is killed under load, and no shopper sees it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.integration.catalog_servers import CATALOG, ROOT, catalog_environment, new_database, run_python
from tests.proxy_lab import SECRET, Backend, reply, until_true
from workshop.postgres import EmbeddedPostgres, free_port


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


def start(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output)


def test_an_instance_killed_under_load_costs_no_safe_request(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async def main(environment: dict[str, str], processes: list[subprocess.Popen[bytes]]) -> None:
        ports = [free_port(), free_port()]
        for port in ports:
            command = [sys.executable, "-m", "uvicorn", *CATALOG, "--port", str(port), "--no-access-log"]
            processes.append(start(command, environment, tmp_path / f"{port}.log"))
        for port in ports:
            await until_true(lambda port=port: answers(f"http://127.0.0.1:{port}/ready"), 30)
        monolith = Backend(reply(b"monolith"))
        await monolith.start()
        port, admin = free_port(), free_port()
        routes = tmp_path / "routes.yaml"
        routes.write_text(f"""\
version: 1
backends:
  monolith: {{url: "http://127.0.0.1:{monolith.port}"}}
  catalog:
    instances: ["http://127.0.0.1:{ports[0]}", "http://127.0.0.1:{ports[1]}"]
    health: {{path: /health, every: 100, timeout: 500}}
default: monolith
groups:
  catalog: {{backend: catalog, paths: [/api/products/*], percent: 100, fallback: false}}
""")
        command = [sys.executable, "-m", "strangler_proxy", "--routes", str(routes), "--port", str(port)]
        command += ["--admin-port", str(admin), "--workers", "2"]
        secret = {"STRANGLER_COOKIE_SECRET": SECRET.decode()}
        processes.append(start(command, os.environ | secret, tmp_path / "proxy.log"))
        await until_true(lambda: answers(f"http://127.0.0.1:{admin}/ready"), 15)
        statuses: Counter[int] = Counter()
        over = asyncio.Event()

        async def shopper() -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                while not over.is_set():
                    statuses[(await client.get("/api/products/?page_size=1")).status_code] += 1

        async def served(number: int) -> None:
            wanted = sum(statuses.values()) + number
            async with asyncio.timeout(20):
                while sum(statuses.values()) < wanted:  # noqa: ASYNC110  # real requests of real processes
                    await asyncio.sleep(0.01)

        shoppers = [asyncio.create_task(shopper()) for _ in range(12)]
        await served(150)
        processes[0].kill()
        await served(300)
        over.set()
        await asyncio.gather(*shoppers)
        assert set(statuses) == {200}, statuses
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}") as client:

            async def down() -> bool:
                instances = (await client.get("/admin/status")).json()["backends"]["catalog"]["instances"]
                return [each["up"] for each in instances] == [False, True]

            await until_true(down)
        await monolith.stop()

    with new_database(postgres, "catalog") as dsn:
        environment = catalog_environment(dsn)
        run_python(["-m", "extracted.catalog", "migrate"], environment)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with asyncio.Runner() as runner:
                runner.run(asyncio.wait_for(main(environment, processes), 90))
        finally:
            deadline = time.monotonic() + 15
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(max(0.1, deadline - time.monotonic()))
