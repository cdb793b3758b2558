"""`strangler export envoy`: Envoy validates the file, and serves by it as the proxy does, with nothing beside it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from strangler_proxy.buckets import digest_of, in_canary
from strangler_proxy.envoy.process import find_envoy
from strangler_proxy.identity import ANONYMOUS_COOKIE, CookieSigner, cookie_value
from tests.proxy_lab import SECRET, Backend, Client, anonymous, raw, reply, routes_text, run
from workshop.postgres import free_port

ENVIRONMENT = os.environ | {"STRANGLER_COOKIE_SECRET": SECRET.decode()}


def exported(routes: Path, *options: str, to: str = "envoy") -> subprocess.CompletedProcess[str]:
    """The command, as it is run."""
    call = [
        sys.executable,
        "-c",
        "from migration_plans.cli import main; main()",
        "export",
        to,
        str(routes),
    ]
    return subprocess.run([*call, *options], capture_output=True, text=True, timeout=60, check=False)


def validated(config: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Envoy says of the file."""
    call = [str(find_envoy()), "--mode", "validate", "-l", "error", "-c", str(config)]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, env=environment, check=False)


@asynccontextmanager
async def envoy(config: Path, port: int) -> AsyncIterator[None]:
    """Envoy with that file alone."""
    process = await asyncio.create_subprocess_exec(
        str(find_envoy()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error",
        stdout=asyncio.subprocess.DEVNULL, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.returncode is None, "Envoy does not run the file"
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def ask(port: int, path: str, *headers: str, method: str = "GET") -> tuple[bytes, bytes]:
    """Body and Set-Cookie of the answer."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        answer = await client.get(path, *headers, method=method)
    finally:
        client.close()
    return answer.body, answer.get(b"set-cookie") if answer.all(b"set-cookie") else b""


def test_same_users_get_the_same_side_and_failures_are_answered_by_the_default(tmp_path: Path) -> None:
    async def main() -> None:
        monolith, catalog = Backend(reply(b"monolith")), Backend(reply(b"catalog"))
        await monolith.start()
        await catalog.start()
        routes, config, port = tmp_path / "routes.yaml", tmp_path / "envoy.yaml", free_port()
        routes.write_bytes(routes_text(monolith.port, catalog.port, percent=37.25))
        done = await asyncio.to_thread(exported, routes, "-o", str(config), "--port", str(port))
        assert done.returncode == 0, done.stderr
        assert SECRET.decode() not in config.read_text()
        async with envoy(config, port):
            for number in range(200):
                name = f"visitor-{number}"
                body, _ = await ask(port, "/api/x", anonymous(name))
                on_canary = in_canary(digest_of("catalog", f"anonymous:{name}".encode()), 3725)
                assert body == (b"catalog" if on_canary else b"monolith"), name
            issued = cookie_value((await ask(port, "/api/x"))[1].partition(b";")[0], ANONYMOUS_COOKIE)
            assert CookieSigner(SECRET).verify(ANONYMOUS_COOKIE, issued), (
                "the proxy knows who came through Envoy"
            )
            before = len(catalog.requests)
            for number in range(10):
                body, _ = await ask(
                    port, "/api/x", anonymous(f"visitor-{number}"), "Content-Length: 0", method="POST"
                )
                assert body == b"monolith", "the owner takes what is unsafe"
            assert len(catalog.requests) == before
            catalog.script = raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nout")
            for number in range(10):
                assert (await ask(port, "/api/x", anonymous(f"visitor-{number}")))[0] == b"monolith"
            assert (await ask(port, "/else"))[0] == b"monolith"
        await monolith.stop()
        await catalog.stop()

    run(main())


FULL = """
version: 1
backends:
  monolith: {url: "https://shop.internal:8443", tls: {}}
  catalog:
    instances: ["http://10.0.0.1:8101", "http://10.0.0.2:8101"]
    limits: {connections: 100, in_flight: 20}
    breaker: {consecutive: 7, rate: 0.4}
    position: {}
    health: {path: /health}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: [/api/products, "/api/products/*"]
    percent: 12.34
    sticky: "header:X-Customer"
    overrides: {header: X-Strangler-Side, cookie: side}
    timeouts: {read: 3000, total: 9000}
    cache: {}
    limits: {in_flight: 5}
    shadow: {percent: 5, max_body: 1000}
  orders: {backend: catalog, paths: ["/api/orders/*"], percent: 0, owner: catalog, fallback: false}
listen: {connections: 1000, min_body_rate: 100, upgrades: [websocket]}
trusted_proxies: ["10.0.0.0/8"]
via: {responses: true}
"""


def test_everything_the_engine_knows_is_valid_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    routes, config = tmp_path / "routes.yaml", tmp_path / "envoy.yaml"
    routes.write_text(FULL)
    authorities = tmp_path / "authorities.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-keyout", str(tmp_path / "key.pem"), "-out", str(authorities)],
        check=True, capture_output=True,
    )  # fmt: skip
    done = exported(routes, "-o", str(config), "--workers", "2", "--authorities", str(authorities))
    assert done.returncode == 0, done.stderr
    text = config.read_text()
    head = text.partition("---\n")[0].replace("\n#  ", "")
    for key in (
        "position",
        "health",
        "in_flight",
        "rate",
        "cache",
        "listen.connections",
        "min_body_rate",
        "max_body",
    ):
        assert f"{key} (line" in done.stderr, key
        assert f"{key} (line" in head, key
    assert "groups.catalog.limits (line" in done.stderr
    valid = validated(config, ENVIRONMENT)
    assert valid.returncode == 0, valid.stderr
    without_secret = {name: value for name, value in ENVIRONMENT.items() if name != "STRANGLER_COOKIE_SECRET"}
    refused = validated(config, without_secret)
    assert refused.returncode != 0
    assert "set STRANGLER_COOKIE_SECRET" in refused.stderr


@pytest.mark.parametrize(
    ("group", "more", "key"),
    [
        ("auth: {user: true}", "", "auth"),
        ("transform: {path: {prefix: {/api: /v2}}}", "", "transform"),
        ("rate_limit: [{by: ip, requests: 5}]", "", "rate_limit"),
        ("", "  page: {paths: [/page], aggregate: {parts: {a: {path: /a}}}}", "aggregate"),
    ],
)
def test_what_would_let_wrong_requests_through_is_refused(
    tmp_path: Path, group: str, more: str, key: str
) -> None:
    routes, config = tmp_path / "routes.yaml", tmp_path / "envoy.yaml"
    routes.write_bytes(routes_text(1, 2, group=group, more=more))
    done = exported(routes, "-o", str(config))
    assert done.returncode == 3
    name = "page" if more else "catalog"
    assert f"groups.{name}.{key}:" in done.stderr
    assert not config.exists()
    again = exported(routes, "-o", str(config), "--without", name)
    assert again.returncode == 0, again.stderr
    assert f"- name: {name}|" not in config.read_text()
    assert exported(routes, "--without", "nobody").returncode == 2


def test_gateway_api_is_written_by_the_same_command(tmp_path: Path) -> None:
    routes, manifests = tmp_path / "routes.yaml", tmp_path / "k8s.yaml"
    routes.write_bytes(routes_text(1, 2, percent=25))
    done = exported(
        routes,
        "-o",
        str(manifests),
        "--namespace",
        "shop",
        "--service",
        "catalog=other/products:80",
        to="gateway-api",
    )
    assert done.returncode == 0, done.stderr
    assert "NOT STICKY" in done.stderr
    text = manifests.read_text()
    assert "NOT STICKY" in text.partition("---\n")[0]
    assert "name: products\n" in text
    assert "namespace: other\n" in text
    bad = exported(routes, "--service", "nobody=x:80", to="gateway-api")
    assert bad.returncode == 2
    assert "no backend 'nobody'" in bad.stderr
