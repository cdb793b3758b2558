"""The Envoy engine's connections: TLS and HTTP/2 in front, TLS to backends, tunnels, instances, circles."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from strangler_proxy.buckets import digest_of, in_canary
from strangler_proxy.edit import set_percent
from tests.certificates import Authority, Pair
from tests.integration.test_envoy_engine import counted, started
from tests.integration.test_proxy_processes import Proxy
from tests.integration.test_proxy_tls import secure_backend
from tests.integration.test_proxy_upgrade import shout
from tests.proxy_lab import Backend, anonymous, raw, reply, run, until, until_true

IDS = 20_000


def test_twenty_thousand_users_get_the_side_that_python_draws(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=37.25) as it:
            sides = {"canary": 0}

            async def ask(numbers: range) -> None:
                client = await it.connect()
                for number in numbers:
                    name = f"shopper-{number}"
                    body = (await client.get("/api/x", anonymous(name))).body
                    canary = in_canary(digest_of("catalog", f"anonymous:{name}".encode()), 3725)
                    assert body == (b"catalog" if canary else b"monolith"), name
                    sides["canary"] += canary
                client.close()

            async with asyncio.TaskGroup() as tasks:
                for begin in range(8):
                    tasks.create_task(ask(range(begin, IDS, 8)))
            assert abs(sides["canary"] / IDS - 0.3725) < 0.0103  # three standard deviations of such a sample
            arm = await counted(it, "canary", requests=sides["canary"])
            assert arm["errors"] == 0
            await counted(it, "control", requests=IDS - sides["canary"])

    run(main(), seconds=90)


@asynccontextmanager
async def fronted(directory: Path, pair: Pair, **changes: object) -> AsyncIterator[Proxy]:
    more = f'tls: {{certificate: "{pair.certificate}", key: "{pair.key}"}}'
    async with started(directory, more=more, **changes) as it:
        yield it


async def serial(it: Proxy, trust: ssl.SSLContext) -> int:
    """Which certificate a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", it.port, ssl=trust, server_hostname="shop.test")
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


def test_http_2_over_tls_keeps_users_on_their_side(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trust = ssl.create_default_context(cafile=str(authority.file))

    async def main() -> None:
        async with (
            fronted(tmp_path, authority.issue("localhost", "front"), percent=50) as it,
            httpx.AsyncClient(
                base_url=f"https://localhost:{it.port}", http2=True, verify=trust, trust_env=False
            ) as client,
        ):

            async def ask(number: int) -> bool:
                name, cookie = anonymous(f"v{number}").split(": ", 1)
                answer = await client.get("/api/x", headers={name: cookie})
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
                canary = in_canary(digest_of("catalog", f"anonymous:v{number}".encode()), 5000)
                assert answer.text == ("catalog" if canary else "monolith")
                return canary

            asked = await asyncio.gather(*[ask(number) for number in range(200)])
            request = it.catalog.requests[0]
            assert request.get(b"x-forwarded-proto") == b"https"
            assert request.get(b"host") == b"localhost:%d" % it.port
            assert request.get(b"via") == b"2.0 strangler"
            await counted(it, "canary", requests=sum(asked))
            new = await client.get("/api/x")
            assert "; Secure" in new.headers["set-cookie"]

            it.catalog.script = reply(b"no", status=b"500 Internal Server Error")
            set_percent(it.routes, {"catalog": Decimal(100)})
            await it.admin.post("/admin/reload")
            answers = await asyncio.gather(*[client.get(f"/api/x?n={number}") for number in range(20)])
            assert {answer.text for answer in answers} == {"monolith"}
            told = (await it.outcomes())["canary"]
            assert told["fallbacks"] > 0
            assert told["fallback_errors"] == 0

    run(main())


def test_a_new_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("shop.test", "front")
    trust = ssl.create_default_context(cafile=str(authority.file))

    async def main() -> None:
        async with fronted(tmp_path, pair) as it:
            first = await serial(it, trust)
            authority.issue("shop.test", "front")  # over the same files

            async def renewed() -> bool:
                return await serial(it, trust) != first

            await until_true(renewed)
            second = await serial(it, trust)
            pair.key.write_text("no key")
            await until(lambda: any("certificate cannot" in line["event"] for line in it.log))
            assert await serial(it, trust) == second

    run(main())


def test_plain_http_and_old_tls_get_nothing_from_a_tls_port(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        async with fronted(tmp_path, authority.issue("shop.test", "front")) as it:
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not (await reader.read()).startswith(b"HTTP")
            writer.close()

    run(main())


@pytest.mark.parametrize("case", ["fits", "another name", "unknown authority", "wants a client's"])
def test_backends_show_the_certificate_that_is_expected_or_get_nothing(tmp_path: Path, case: str) -> None:
    authority = Authority(tmp_path)
    bears = "elsewhere.test" if case == "another name" else "localhost"
    ours = authority.issue("proxy", "client")
    wants = authority.file if case == "wants a client's" else None
    own = f', certificate: "{ours.certificate}", key: "{ours.key}"' if wants else ""
    tls = "{}" if case == "unknown authority" else f'{{ca: "{authority.file}"{own}}}'

    async def main() -> None:
        async with (
            secure_backend(authority.issue(bears, "backend"), wants_client=wants) as backend,
            started(tmp_path, fallback="false") as it,
        ):
            text = it.write(backend=f"tls: {tls}", fallback="false")
            it.routes.write_text(
                text.replace(f"http://127.0.0.1:{it.catalog.port}", f"https://localhost:{backend.port}")
            )
            assert (await it.admin.post("/admin/reload")).status_code == 200
            answer = await it.ask("/api/x")
            if case in ("fits", "wants a client's"):
                assert (answer.status, answer.body) == (200, b"catalog")
                return
            assert answer.status == 503
            assert not backend.requests
            arm = await counted(it, "canary", requests=1)
            assert arm["by_error"] == {"refused": 1}
            if case == "another name":
                named = it.routes.read_text().replace('.pem"}', '.pem", server_name: elsewhere.test}')
                it.routes.write_text(named)
                await it.admin.post("/admin/reload")
                assert (await it.ask("/api/x")).body == b"catalog"

    run(main())


def test_websocket_server_and_client_talk_through_envoy(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path) as it, serve(shout, "127.0.0.1", 0) as server:
            await it.catalog.stop()
            it.catalog.port = next(iter(server.sockets)).getsockname()[1]
            it.write()
            await it.admin.post("/admin/reload")
            headers = dict([anonymous("ann").split(": ", 1)])
            async with connect(
                f"ws://127.0.0.1:{it.port}/api/live", additional_headers=headers, proxy=None
            ) as socket:
                for text in ("hello", "x" * 500_000):
                    await socket.send(text)
                    assert await socket.recv() == text.upper()
            await counted(it, "canary", requests=1)

    run(main())


def test_failures_in_a_row_eject_a_service_until_its_pause_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        breaker = "breaker: {consecutive: 5, pause: 1500, longest_pause: 1500}"
        async with started(tmp_path, backend=breaker) as it:
            it.catalog.script = reply(b"no", status=b"500 Internal Server Error")
            for _ in range(5):
                assert (await it.ask("/api/x")).body == b"monolith"
            await it.until_status(lambda status: status["backends"]["catalog"]["breaker"] == "open")
            asked = len(it.catalog.requests)
            assert (await it.ask("/api/x")).body == b"monolith"
            assert len(it.catalog.requests) == asked, "an ejected service is left alone"
            arm = (await it.outcomes())["canary"]
            assert arm["errors"] == 5
            it.catalog.script = reply(b"catalog")

            async def back() -> bool:
                body: bytes = (await it.ask("/api/x")).body
                return body == b"catalog"

            await until_true(back)
            await it.until_status(lambda status: status["backends"]["catalog"]["breaker"] == "closed")

    run(main())


def test_instances_share_the_requests(tmp_path: Path) -> None:
    async def main() -> None:
        other = Backend(reply(b"other"))
        await other.start()
        try:
            async with started(tmp_path) as it:
                it.routes.write_text(
                    it.write().replace(
                        f"url: http://127.0.0.1:{it.catalog.port}",
                        f'instances: ["http://127.0.0.1:{it.catalog.port}", "http://127.0.0.1:{other.port}"]',
                    )
                )
                assert (await it.admin.post("/admin/reload")).status_code == 200
                bodies = {(await it.ask(f"/api/x?n={number}")).body for number in range(40)}
                assert bodies == {b"catalog", b"other"}
        finally:
            await other.stop()

    run(main())


def test_a_request_that_goes_round_in_circles_is_noticed_and_no_evidence(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, more="via: {name: edge-1, responses: true}") as it:
            answer = await it.ask("/api/x", "Via: 1.1 a, 1.1 edge-1 (x)")
            assert (answer.status, answer.get(b"via")) == (200, b"1.1 edge-1")
            assert it.catalog.requests[0].get(b"via") == b"1.1 a, 1.1 edge-1 (x),1.1 edge-1"
            round_and_round = ["Via: 1.1 edge-1, 1.1 EDGE-1", "Via: HTTP/1.1 edge-1,1.0 edge-1"]
            assert (await it.ask("/api/x", *round_and_round)).status == 508
            arm = await counted(it, "canary", requests=1)
            assert arm["errors"] == 0
            assert (await it.outcomes())["control"]["requests"] == 0

    run(main())


def test_a_service_that_dies_in_the_middle_of_an_answer_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path) as it:
            it.catalog.script = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reset=True)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await it.ask("/api/x")
            arm = await counted(it, "canary", requests=1)
            assert arm["by_error"] == {"reset": 1}
            assert arm["fallbacks"] == 0

    run(main())
