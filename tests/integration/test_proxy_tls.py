"""TLS in front of the proxy and towards backends: real certificates, real handshakes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from chassis.problems import InvalidFileError
from strangler_proxy.identity import CookieSigner
from strangler_proxy.outcomes import Failure
from strangler_proxy.plane import DataPlane
from strangler_proxy.routes import parse_routes
from tests.certificates import Authority, Pair
from tests.proxy_lab import SECRET, Backend, Client, Message, lab, reply, run, until, until_true


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def routes(monolith: int, catalog: int, *, front: Pair | None = None, catalog_tls: str = "") -> bytes:
    scheme = "https" if catalog_tls else "http"
    host = "localhost" if catalog_tls else "127.0.0.1"
    tls = f'tls: {{certificate: "{front.certificate}", key: "{front.key}"}}\n' if front is not None else ""
    return f"""\
version: 1
{tls}backends:
  monolith: {{url: "http://127.0.0.1:{monolith}"}}
  catalog: {{url: "{scheme}://{host}:{catalog}"{catalog_tls}}}
default: monolith
groups: {{catalog: {{backend: catalog, paths: [/api/*], percent: 100, fallback: false}}}}
""".encode()


@dataclass
class Front:
    """A data plane that listens with TLS, and its backend."""

    plane: DataPlane
    port: int
    monolith: Backend
    trust: ssl.SSLContext

    async def connect(self, **more: object) -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust, server_hostname="shop.test", **more
        )
        return Client(reader, writer)

    async def serial(self) -> int:
        """Which certificate a new connection is shown."""
        client = await self.connect()
        shown = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        client.close()
        return x509.load_der_x509_certificate(shown).serial_number


@asynccontextmanager
async def fronted(authority: Authority, pair: Pair) -> AsyncIterator[Front]:
    async def told(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = (
            request.get(b"x-forwarded-proto") + b" " + b"x" * (300_000 if request.target == b"/large" else 0)
        )
        head = b"HTTP/1.1 200 OK\r\nX-Strangler-User: 7\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)

    backend = Backend(told)
    await backend.start()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    plane = DataPlane(
        routes=parse_routes(routes(backend.port, 1, front=pair), "tls"),
        signer=CookieSigner(SECRET),
        loop=asyncio.get_running_loop(),
        on_outcome=lambda _urgent: None,
        on_breaker=lambda _backend, _state: None,
    )
    await plane.listen(listener)
    trust = ssl.create_default_context(cafile=str(authority.file))
    try:
        yield Front(plane, listener.getsockname()[1], backend, trust)
    finally:
        await plane.drain(0.0)
        await backend.stop()
        await asyncio.sleep(0)


def test_clients_speak_tls_and_backends_are_told(authority: Authority) -> None:
    async def main() -> None:
        async with fronted(authority, authority.issue("shop.test", "front")) as front:
            client = await front.connect()
            for _ in range(2):  # kept alive
                answer = await client.get("/")
                assert answer.body == b"https "
                assert b"; Secure" in answer.get(b"set-cookie")
            assert len((await client.get("/large")).body) > 300_000
            client.close()

    run(main())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_http_1_is_chosen_and_old_tls_refused(authority: Authority) -> None:
    async def main() -> None:
        async with fronted(authority, authority.issue("shop.test", "front")) as front:
            front.trust.set_alpn_protocols(["h2", "http/1.1"])
            client = await front.connect()
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            client.close()
            old = ssl.create_default_context(cafile=str(authority.file))
            old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            front.trust = old
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await front.connect()

    run(main())


def test_a_new_certificate_is_taken_up_without_cutting_anybody(authority: Authority) -> None:
    async def main() -> None:
        pair = authority.issue("shop.test", "front")
        async with fronted(authority, pair) as front:
            first = await front.serial()
            staying = await front.connect()
            authority.issue("shop.test", "front")  # over the same files

            async def renewed() -> bool:
                return await front.serial() != first

            await until_true(renewed)
            assert (await staying.get("/")).status == 200
            second = await front.serial()
            pair.key.write_text("no key")
            looked = front.plane._front
            assert looked is not None
            before = looked._seen
            await until(lambda: looked._seen != before)
            assert await front.serial() == second  # what does not fit changes nothing
            staying.close()

    run(main())


def test_plain_http_on_the_tls_port_is_no_answer_and_harms_nobody(authority: Authority) -> None:
    async def main() -> None:
        async with fronted(authority, authority.issue("shop.test", "front")) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not (await reader.read()).startswith(b"HTTP")
            writer.close()
            client = await front.connect()
            assert (await client.get("/")).status == 200
            client.close()

    run(main())


@asynccontextmanager
async def secure_backend(pair: Pair, *, wants_client: Path | None = None) -> AsyncIterator[Backend]:
    backend = Backend(reply(b"catalog"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    if wants_client is not None:
        context.load_verify_locations(wants_client)
        context.verify_mode = ssl.CERT_REQUIRED
    backend._server = await asyncio.start_server(backend._serve, "127.0.0.1", 0, ssl=context)
    backend.port = backend._server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        await backend.stop()


async def answered(backend: Backend, catalog_tls: str) -> tuple[Message, list[list[object]]]:
    async with lab() as it:
        it.plane.apply(parse_routes(routes(it.monolith.port, backend.port, catalog_tls=catalog_tls), "tls"))
        client = await it.connect()
        answer = await client.get("/api/x")
        if answer.status == 200:
            assert (await client.get("/api/x")).status == 200
            assert backend.connections == 1  # kept alive
        client.close()
        return answer, it.items()


def test_a_backend_is_spoken_to_over_tls(authority: Authority) -> None:
    async def main() -> None:
        async with secure_backend(authority.issue("localhost", "backend")) as backend:
            answer, _ = await answered(backend, f', tls: {{ca: "{authority.file}"}}')
            assert answer.body == b"catalog"

    run(main())


def test_a_client_certificate_is_shown(authority: Authority) -> None:
    async def main() -> None:
        ours = authority.issue("proxy", "client")
        own = f', tls: {{ca: "{authority.file}", certificate: "{ours.certificate}", key: "{ours.key}"}}'
        async with secure_backend(authority.issue("localhost", "b"), wants_client=authority.file) as backend:
            assert (await answered(backend, own))[0].body == b"catalog"

    run(main())


@pytest.mark.parametrize("case", ["another name", "unknown authority"])
def test_a_backend_that_is_not_who_it_should_be_gets_nothing(authority: Authority, case: str) -> None:
    async def main() -> None:
        host = "elsewhere.test" if case == "another name" else "localhost"
        trusted = f', tls: {{ca: "{authority.file}"}}' if case == "another name" else ", tls: {}"
        async with secure_backend(authority.issue(host, "backend")) as backend:
            answer, items = await answered(backend, trusted)
            assert answer.status == 502
            assert not backend.requests
            assert items[0][1] == Failure.REFUSED.value
            if case == "another name":
                named = f', tls: {{ca: "{authority.file}", server_name: elsewhere.test}}'
                assert (await answered(backend, named))[0].body == b"catalog"

    run(main())


@pytest.mark.parametrize(
    ("tls", "fault"),
    [
        ("{certificate: a.pem, key: /a.key}", "the whole path"),
        ("{certificate: /nowhere/a.pem, key: /nowhere/a.key}", "cannot be read"),
        ('{certificate: "CA", key: "CA"}', "cannot be used together"),
    ],
)
def test_what_cannot_be_used_is_refused_by_line(authority: Authority, tls: str, fault: str) -> None:
    text = routes(1, 2).replace(
        b"version: 1\n", f"version: 1\ntls: {tls.replace('CA', str(authority.file))}\n".encode()
    )
    with pytest.raises(InvalidFileError) as caught:
        parse_routes(text, "routes.yaml")
    assert any(problem.line == 2 and fault in problem.message for problem in caught.value.problems)


def test_tls_for_a_plain_url_is_refused() -> None:
    text = routes(1, 2).replace(
        b'catalog: {url: "http://127.0.0.1:2"', b'catalog: {url: "http://127.0.0.1:2", tls: {}'
    )
    with pytest.raises(InvalidFileError, match="https://"):
        parse_routes(text, "routes.yaml")
