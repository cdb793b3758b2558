"""What one client, or many, may take of the proxy; and requests that go round in circles."""

import asyncio

import pytest

from strangler_proxy.downstream import ClientConnection
from strangler_proxy.pace import WINDOW
from strangler_proxy.via import ROUNDS
from tests.proxy_lab import Lab, Message, hang, lab, reply, run, until

POST = b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n"


def only_client(it: Lab) -> ClientConnection:
    (connection,) = it.plane.clients
    assert isinstance(connection, ClientConnection)
    return connection


def test_one_client_too_many_is_told_so_and_a_place_that_is_left_is_free() -> None:
    async def main() -> None:
        async with lab(more="listen: {connections: 2}") as it:
            first, second = await it.connect(), await it.connect()
            for client in (first, second):
                assert (await client.get("/api/x")).status == 200
            third = await it.connect()
            await third.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            answer = await third.response()
            assert (answer.status, answer.get(b"connection")) == (503, b"close")
            assert answer.get(b"retry-after")
            assert await third.reader.read() == b""
            assert len(it.catalog.requests) == 2
            second.close()
            await until(lambda: len(it.plane.clients) == 1)
            assert (await it.get("/api/x")).status == 200
            for client in (first, third):
                client.close()

    run(main())


def test_body_that_trickles_ends_and_is_nobodys_evidence() -> None:
    async def main() -> None:
        async with lab(
            catalog=hang, owner="catalog", read_bodies=False, more="listen: {min_body_rate: 100}"
        ) as it:
            client = await it.connect()
            await client.send(POST + b"x" * 99)
            await until(lambda: len(it.catalog.requests) == 1)
            connection = only_client(it)
            now = it.plane.now()
            connection.sweep(now)  # the window begins
            await client.send(b"x" * 99)
            await until(lambda: connection._pace is not None and connection._pace.size == 198)
            connection.sweep(now + WINDOW)
            answer = await client.response()
            assert answer.status == 408
            assert b"100 bytes a second" in answer.body
            assert it.items() == []
            await until(lambda: not it.catalog.open)
            client.close()

    run(main())


def test_body_that_the_backend_does_not_take_is_not_held_against_its_client() -> None:
    async def main() -> None:
        async with lab(
            catalog=hang, owner="catalog", read_bodies=False, more="listen: {min_body_rate: 100}"
        ) as it:
            size = 50_000_000
            it.catalog.script = _takes_nothing
            client = await it.connect()
            await client.send(b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n" % size)
            sending = asyncio.ensure_future(client.send(b"x" * size))
            await until(lambda: bool(it.plane.clients))
            connection = only_client(it)
            await until(lambda: connection._reading_paused)
            now = it.plane.now()
            for seconds in (0.0, WINDOW, 2 * WINDOW):
                connection.sweep(now + seconds)
            assert it.plane.active  # it goes on
            client.reset()
            await asyncio.wait({sending})
            sending.exception()

    run(main())


async def _takes_nothing(
    _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport in fact
    await asyncio.Event().wait()


def test_client_that_left_quietly_is_noticed_when_it_is_written_to() -> None:
    async def main() -> None:
        go, gone = asyncio.Event(), asyncio.Event()

        async def stream(
            _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await go.wait()
            try:
                while True:
                    writer.write(b"5\r\nhello\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.005)
            except ConnectionError:
                gone.set()
                raise

        async with lab(catalog=stream) as it:
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            assert (await client.reader.readline()).startswith(b"HTTP/1.1 200")
            await client.reader.readuntil(b"\r\n\r\n")
            client.close()  # an orderly end, which a half-close looks like too
            await client.writer.wait_closed()
            connection = only_client(it)
            await until(lambda: connection._half_closed)
            assert it.plane.active  # it might only have ended its sending
            go.set()
            await asyncio.wait_for(gone.wait(), 5)
            await until(lambda: not it.plane.clients and not it.plane.active)
            assert it.items() == []
            assert it.plane.pool(it.plane.routes.backends["catalog"]).open == 0

    run(main())


def test_group_lets_so_many_requests_in_and_refuses_more_without_evidence() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def late(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go.wait()
            await reply(b"catalog")(request, reader, writer)

        async with lab(catalog=late, group="limits: {in_flight: 2}") as it:
            running = [asyncio.ensure_future(it.get("/api/x")) for _ in range(2)]
            await until(lambda: len(it.catalog.requests) == 2)
            refused = await it.get("/api/x")
            assert (refused.status, refused.get(b"retry-after")) == (503, b"2")
            assert not it.monolith.requests  # no fallback: that is whom it protects
            it.use(group="limits: {in_flight: 2}", percent=50)  # the count outlives other routes
            assert (await it.get("/api/x")).status == 503
            assert (await it.get("/other")).status == 200
            go.set()
            assert [(await answer).status for answer in running] == [200, 200]
            assert (await it.get("/api/x")).status == 200
            wire = it.drained()
            arms = [wire["catalog"][arm] for arm in ("control", "canary")]
            assert sum(arm["refused"].get("full", 0) for arm in arms) == 2
            assert sum(arm["errors"] for arm in arms) == 0

    run(main())


def test_request_that_goes_round_in_circles_is_stopped() -> None:
    async def main() -> None:
        async with lab() as it:
            it.monolith.port = it.port  # the default backend's address leads to the proxy itself
            it.use()
            answer = await it.get("/other")
            assert answer.status == 508
            assert b"circles" in answer.body
            assert (await it.get("/api/x")).status == 200

    run(main())


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("1.1 strangler, " * (ROUNDS - 1) + "1.1 edge", 200),
        ("1.1 strangler, " * (ROUNDS - 1) + "HTTP/1.0 Strangler (by way of a comment)", 508),
        ("1.1 strangler2, " * ROUNDS + "2 strangler", 200),
        ("1.1 other (1.1 strangler), " * ROUNDS + "1.1 other", 200),
    ],
)
def test_own_name_in_via_is_counted(said: str, status: int) -> None:
    async def main() -> None:
        async with lab() as it:
            assert (await it.get("/api/x", f"Via: {said}")).status == status
            # over two lines, which the recogniser of everyday heads leaves to the parser
            first, _, rest = said.partition(", ")
            assert (await it.get("/api/x", f"Via: {first}", f"Via: {rest}")).status == status

    run(main())


def test_via_is_told_to_whom_the_routes_file_says() -> None:
    async def main() -> None:
        async with lab(more="via: {name: edge, responses: true}") as it:
            answer = await it.get("/api/x", "Via: 1.0 fred")
            assert answer.get(b"via") == b"1.1 edge"
            assert it.catalog.requests[0].all(b"via") == [b"1.0 fred", b"1.1 edge"]
            it.use(more="via: {requests: false}")
            assert not (await it.get("/api/x")).all(b"via")
            assert not it.catalog.requests[1].all(b"via")
            it.use()
            assert not (await it.get("/api/x")).all(b"via")
            assert it.catalog.requests[2].all(b"via") == [b"1.1 strangler"]

    run(main())


def test_sticky_address_is_the_last_that_is_no_trusted_proxys() -> None:
    async def main() -> None:
        more = 'trusted_proxies: ["127.0.0.1", "10.0.0.0/8"]'
        async with lab(sticky="ip", percent="50", more=more) as it:

            async def side(chain: str) -> bytes:
                return (await it.get("/api/x", f"X-Forwarded-For: {chain}")).body

            near = {f"198.51.100.{n}": await side(f"198.51.100.{n}") for n in range(20)}
            assert set(near.values()) == {b"catalog", b"monolith"}
            for address, expected in near.items():
                assert await side(f"203.0.113.9, {address}, 10.1.2.3, 10.9.9.9") == expected
                assert await side(f"not an address, {address}") == expected

    run(main())
