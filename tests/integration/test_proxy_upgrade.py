"""Upgrade: WebSocket through the proxy as a tunnel, with a real server and client, and the raw edges of it."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.proxy_lab import Message, anonymous, lab, raw, read_head, reply, run, until

ASK = (
    b"GET %b HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: %b\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Own: 1\r\n\r\n"
ENOUGH = 50_000_000  # bytes that fit into no buffer on the way


def ask(path: bytes = b"/api/live", protocol: bytes = b"websocket") -> bytes:
    return ASK % (path, protocol)


async def echo(_request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch, then send back what comes, until the other side ends."""
    writer.write(SWITCH)
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def shout(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message.upper())


def test_websocket_server_and_client_talk_through_the_proxy() -> None:
    async def main() -> None:
        async with lab() as it, serve(shout, "127.0.0.1", 0) as server:
            it.catalog.port = next(iter(server.sockets)).getsockname()[1]
            it.use()
            headers = dict([anonymous("ann").split(": ", 1)])
            async with connect(
                f"ws://127.0.0.1:{it.port}/api/live", additional_headers=headers, proxy=None
            ) as socket:
                assert socket.response is not None
                assert socket.response.headers["X-Request-ID"]
                for text in ("hello", "x" * 1_000_000):
                    await socket.send(text)
                    assert await socket.recv() == text.upper()
                told = it.drained()["catalog"]
                assert told["canary"]["by_status"] == {"101": 1}
                assert told["items"] == [["canary", 1, 100]]
                assert it.plane.pool(it.plane.routes.backends["catalog"]).pending == 1
            await until(lambda: not it.plane.clients)
            assert it.items() == []  # it was counted when it began
            assert it.plane.pool(it.plane.routes.backends["catalog"]).open == 0

    run(main())


def test_server_that_refuses_a_websocket_answers_as_ever() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"who are you", status=b"401 Unauthorized")) as it:
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://127.0.0.1:{it.port}/api/live", proxy=None):
                    pass
            assert refused.value.response.status_code == 401
            assert refused.value.response.body == b"who are you"
            assert it.items() == []  # 4xx is the client's

    run(main())


def test_upgrade_headers_go_both_ways_and_what_follows_is_left_as_it_is() -> None:
    async def main() -> None:
        async with lab(catalog=echo) as it:
            client = await it.connect()
            await client.send(ask() + b"early\x00\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            head = await read_head(client.reader)
            assert head.status == 101
            assert head.get(b"upgrade") == b"websocket"
            assert head.get(b"connection").lower() == b"upgrade"
            assert head.get(b"x-own") == b"1"
            assert not head.all(b"content-length") + head.all(b"transfer-encoding")
            assert await client.reader.readexactly(28) == b"early\x00\r\n\r\nGET / HTTP/1.1\r\n\r\n"
            sent = it.catalog.requests[0]
            assert sent.get(b"upgrade") == b"websocket"
            assert sent.get(b"connection").lower() == b"upgrade"
            assert sent.get(b"x-forwarded-for") == b"127.0.0.1"
            assert not it.monolith.requests
            client.writer.write_eof()  # half: what is under way still comes back
            assert await client.reader.read() == b""
            client.close()
            await until(lambda: not it.plane.clients)

    run(main())


def test_first_bytes_of_the_backend_may_come_with_its_101() -> None:
    async def main() -> None:
        async with lab(catalog=raw(SWITCH + b"welcome")) as it:
            client = await it.connect()
            await client.send(ask())
            assert (await read_head(client.reader)).status == 101
            assert await client.reader.readexactly(7) == b"welcome"
            client.close()

    run(main())


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(ask(protocol=b"h2c"), id="HTTP/2 would pass by the routes"),
        pytest.param(ask(protocol=b"h2c, websocket"), id="one of several"),
        pytest.param(
            ask().replace(b"keep-alive, Upgrade", b"keep-alive"), id="without the connection option"
        ),
        pytest.param(ask().replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(ask().replace(b"GET", b"DELETE"), id="another method"),
    ],
)
def test_other_upgrades_are_served_as_if_they_had_not_asked(asked: bytes) -> None:
    async def main() -> None:
        async with lab(owner="catalog") as it:
            client = await it.connect()
            await client.send(asked)
            assert (await client.response()).body == b"catalog"
            sent = it.catalog.requests[0]
            assert not sent.all(b"upgrade") + sent.all(b"connection")
            client.close()

    run(main())


def test_requests_behind_an_upgrade_that_was_not_made_are_served_in_order() -> None:
    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            plain = b"GET /other HTTP/1.1\r\nHost: shop.test\r\n\r\n"
            await client.send(ask() + plain + ask() + ask() + plain)
            bodies = [(await client.response()).body for _ in range(5)]
            assert bodies == [b"catalog", b"monolith", b"catalog", b"catalog", b"monolith"]
            client.close()

    run(main())


def test_what_a_client_sends_before_the_answer_is_held_back_by_the_socket() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def late(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go.wait()
            await echo(request, reader, writer)

        async with lab(catalog=late) as it:
            client = await it.connect()
            sending = asyncio.ensure_future(client.send(ask() + b"x" * ENOUGH))
            await until(lambda: len(it.catalog.requests) == 1)
            (connection,) = it.plane.clients
            await until(lambda: connection._reading_paused)  # type: ignore[union-attr]  # not a tunnel yet
            go.set()
            assert (await read_head(client.reader)).status == 101
            assert await client.reader.readexactly(ENOUGH) == b"x" * ENOUGH
            await sending
            client.close()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(SWITCH.replace(b"websocket", b"chat"), id="another protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nX-Own: 1\r\n\r\n", id="none"),
    ],
)
def test_switch_to_what_nobody_asked_for_is_no_http(answer: bytes) -> None:
    async def main() -> None:
        async with lab(catalog=raw(answer)) as it:
            client = await it.connect()
            await client.send(ask())
            assert (await client.response()).body == b"monolith"  # the fallback
            assert [item[1] for item in it.items()] == ["protocol"]
            client.close()

    run(main())


def test_switch_without_having_asked_is_no_http() -> None:
    async def main() -> None:
        async with lab(catalog=raw(SWITCH)) as it:
            assert (await it.get("/api/x")).body == b"monolith"
            assert [item[1] for item in it.items()] == ["protocol"]

    run(main())


def test_failed_upgrade_falls_back_to_the_monoliths_websocket() -> None:
    async def main() -> None:
        async with lab(monolith=echo, catalog=reply(status=b"503 Busy")) as it:
            client = await it.connect()
            await client.send(ask() + b"hello")
            assert (await read_head(client.reader)).status == 101
            assert await client.reader.readexactly(5) == b"hello"
            assert [item[1] for item in it.items()] == ["status"]
            client.close()

    run(main())


@pytest.mark.parametrize("stuck", ["client", "backend"])
def test_tunnel_holds_no_more_than_its_buffers(stuck: str) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def slow(_request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(SWITCH)
            if stuck == "client":
                writer.write(b"x" * ENOUGH)
                await writer.drain()
                return
            await go.wait()
            await reader.readexactly(ENOUGH)
            writer.write(b"all")

        async with lab(catalog=slow) as it:
            client = await it.connect()
            await client.send(ask())
            assert (await read_head(client.reader)).status == 101
            (tunnel,) = it.plane.clients
            client_end, backend_end = tunnel._ends  # type: ignore[union-attr]  # it is one by now
            full, paused = (client_end, backend_end) if stuck == "client" else (backend_end, client_end)
            sending = asyncio.ensure_future(client.send(b"x" * ENOUGH if stuck == "backend" else b""))
            await until(lambda: not paused.transport.is_reading())
            assert full.transport.get_write_buffer_size() < 1_000_000
            go.set()
            if stuck == "client":
                assert len(await client.reader.readexactly(ENOUGH)) == ENOUGH
            else:
                assert await client.reader.readexactly(3) == b"all"
            await sending
            client.close()

    run(main())


def test_silent_tunnel_ends() -> None:
    async def main() -> None:
        async with lab(catalog=echo, more="listen: {tunnel_timeout: 100}") as it:
            client = await it.connect()
            await client.send(ask() + b"a")
            assert (await read_head(client.reader)).status == 101
            assert await client.reader.readexactly(1) == b"a"
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.reader.readexactly(1)
            client.close()
            await until(lambda: not it.plane.clients and not it.catalog.open)

    run(main())


@pytest.mark.parametrize("leaver", ["client", "backend"])
def test_end_of_one_side_is_the_end_of_the_other(leaver: str) -> None:
    async def main() -> None:
        async with lab(catalog=echo) as it:
            client = await it.connect()
            await client.send(ask())
            assert (await read_head(client.reader)).status == 101
            await until(lambda: len(it.catalog.open) == 1)
            if leaver == "client":
                client.reset()
            else:
                next(iter(it.catalog.open)).transport.abort()
                assert await client.reader.read() == b""
                client.close()
            await until(lambda: not it.plane.clients and not it.catalog.open)
            assert it.plane.pool(it.plane.routes.backends["catalog"]).open == 0
            assert it.drained()["catalog"]["canary"]["aborted"] == 0  # it was counted when it began

    run(main())


def test_drain_leaves_a_tunnel_its_time_and_then_closes_it() -> None:
    async def main() -> None:
        async with lab() as it, serve(shout, "127.0.0.1", 0) as server:
            it.catalog.port = next(iter(server.sockets)).getsockname()[1]
            it.use()
            async with connect(f"ws://127.0.0.1:{it.port}/api/live", proxy=None) as socket:
                draining = asyncio.ensure_future(it.plane.drain(0.3))
                await asyncio.sleep(0)
                await socket.send("still here")
                assert await socket.recv() == "STILL HERE"
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert await draining is False

    run(main())
