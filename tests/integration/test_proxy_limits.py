"""What a hostile or broken peer may cost: memory, connections, time, and whose fault it is said to be."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chassis.resilience.breaker import BreakerState
from strangler_proxy import admin
from strangler_proxy.phase import BUFFER_LIMIT
from strangler_proxy.table import Routes
from tests.proxy_lab import Lab, Message, hang, lab, raw, reply, run, until

FAST = "timeouts: {connect: 200, read: 150}"


def chunk(size: int) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (size, b"x" * size)


def test_no_more_of_a_safe_requests_body_is_kept_for_a_replay_than_the_limit() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"broken", status=b"500 Broken")) as it:
            client = await it.connect()
            head = b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head + chunk(1000))
            await until(lambda: it.catalog.connections == 1)
            for _ in range(40):  # one read of the proxy's for each
                await client.send(chunk(BUFFER_LIMIT // 4))
                await asyncio.sleep(0.001)
            await client.send(b"0\r\n\r\n")
            answer = await client.response()
            assert (answer.status, answer.body) == (500, b"broken")
            assert not it.monolith.requests
            client.close()

    run(main())


def test_connection_goes_on_after_a_large_request_that_got_no_connection() -> None:
    async def main() -> None:
        limits = "limits: {connections: 1}"
        async with lab(catalog=hang, owner="catalog", group="timeouts: {connect: 200}", backend=limits) as it:
            first, second = await it.connect(), await it.connect()
            await first.send(b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n")
            await until(lambda: len(it.catalog.requests) == 1)
            body = b"x" * (BUFFER_LIMIT + 1)  # its last byte makes the proxy stop reading
            head = b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n" % len(body)
            await second.send(head + body)
            assert (await second.response()).status == 504
            async with asyncio.timeout(3):
                assert (await second.get("/other")).body == b"monolith"
            first.close()
            second.close()

    run(main())


def test_pipelined_requests_wait_for_a_client_that_does_not_read() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"x" * 200_000)) as it:
            client = await it.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport in fact
            asked = 400
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n" * asked)
            await until(lambda: len(it.catalog.requests) > 3)
            before = -1
            while before != len(it.catalog.requests):  # until it stands still
                before = len(it.catalog.requests)
                await asyncio.sleep(0.2)
            assert before < asked // 2  # the kernel's buffers hold a few megabytes
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
            for _ in range(asked):
                assert len((await client.response()).body) == 200_000
            client.close()

    run(main())


def test_client_that_takes_nothing_is_cut_off() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"x" * 200_000), more="listen: {body_timeout: 500}") as it:
            client = await it.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport in fact
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n" * 400)
            await until(lambda: bool(it.plane.clients))
            await until(lambda: not it.plane.clients)
            client.reset()

    run(main())


def test_trailers_without_end_are_refused() -> None:
    async def main() -> None:
        async with lab(catalog=hang, owner="catalog", read_bodies=False) as it:
            client = await it.connect()
            head = b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head + b"1\r\nx\r\n0\r\nX: ")
            for _ in range(10):
                await client.send(b"a" * 20_000)
                await asyncio.sleep(0.01)
            async with asyncio.timeout(3):
                assert (await client.response()).status == 431
            assert it.items() == []  # the client's fault
            client.reset()

    run(main())


def test_early_answer_frees_the_backends_connection_with_its_unsent_bytes() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def early(
            _request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport in fact
            await asyncio.sleep(0.3)  # for the proxy's buffers to fill
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.3)
            try:
                while True:  # what is written to a connection that was cut shows that it was
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            except ConnectionError:
                gone.set()
                raise

        async with lab(catalog=early, owner="catalog", read_bodies=False) as it:
            client = await it.connect()
            size = 20_000_000
            await client.send(b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n" % size)
            sending = asyncio.ensure_future(client.send(b"x" * size))
            assert (await client.response()).status == 413
            await asyncio.wait_for(gone.wait(), 5)
            client.reset()
            await asyncio.wait({sending})
            sending.exception()

    run(main())


def test_slow_client_is_not_the_services_fault_when_the_total_time_is_over() -> None:
    async def main() -> None:
        async with lab(
            catalog=hang, owner="catalog", read_bodies=False, group="timeouts: {total: 200}"
        ) as it:
            client = await it.connect()
            await client.send(b"POST /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\n\r\nabc")
            assert (await client.response()).status == 408
            assert it.items() == []
            client.close()

    run(main())


@pytest.mark.parametrize("authority", ["a?x=", "a?", "a,b@c"])
def test_absolute_target_with_a_wrong_authority_is_refused(authority: str) -> None:
    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            await client.send(f"GET http://{authority}/y HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode())
            assert (await client.response()).status == 400
            assert not it.monolith.requests
            client.close()

    run(main())


def test_answer_broken_in_its_first_packet_is_replaced_by_the_monoliths() -> None:
    async def main() -> None:
        script = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        async with lab(catalog=script) as it:
            answer = await it.get("/api/x")
            assert (answer.status, answer.body) == (200, b"monolith")
            assert [item[1] for item in it.items()] == ["protocol"]

    run(main())


def test_backend_whose_name_cannot_be_looked_up_is_refused_at_once() -> None:
    async def main() -> None:
        async with lab(group=FAST) as it:
            it.plane.apply(_with_host(it, "a..b"))
            answer = await it.get("/api/x")
            assert answer.body == b"monolith"
            assert [item[1] for item in it.items()] == ["refused"]

    run(main())


def _with_host(it: Lab, host: str) -> Routes:
    routes = it.plane.routes
    catalog = replace(routes.backends["catalog"], host=host)
    return replace(routes, backends={**routes.backends, "catalog": catalog})


def test_a_fault_in_one_deadline_does_not_stop_the_others() -> None:
    async def main() -> None:
        async with lab(catalog=hang, group=FAST) as it:

            class Broken:
                deadline = 0.0

                def expired(self, _now: float) -> None:
                    it.plane.active.discard(self)
                    raise RuntimeError("a fault of ours")

            reported: list[str] = []
            it.plane.loop.set_exception_handler(lambda _loop, context: reported.append(str(context)))
            it.plane.active.add(Broken())
            await until(lambda: bool(reported))
            assert (await it.get("/api/x")).body == b"monolith"

    run(main())


def test_admin_subscriber_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_SEND_SECONDS", 0.3)

    async def main() -> None:
        ended = asyncio.Event()

        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000 + b"\n"
            finally:
                ended.set()

        async def stream() -> admin.LineStream:
            return admin.LineStream(lines())

        served: list[asyncio.StreamWriter] = []
        port = admin.AdminServer({("GET", "/stream"): stream}, admin.Guard(b"", loopback=True))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(writer)
            await port.serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport in fact
        await asyncio.wait_for(ended.wait(), 5)
        await until(lambda: served[0].transport.get_write_buffer_size() == 0)  # what it did not take is freed
        writer.transport.abort()
        server.close()
        await asyncio.sleep(0)

    run(main())


def test_breaker_of_a_backend_that_moved_is_reported_closed() -> None:
    async def main() -> None:
        async with lab(catalog=reply(status=b"500 Broken"), backend="breaker: {consecutive: 5}") as it:
            for _ in range(5):
                await it.get("/api/x")
            assert it.breakers == [("catalog", BreakerState.OPEN)]
            it.plane.apply(_with_host(it, "localhost"))
            assert it.breakers[-1] == ("catalog", BreakerState.CLOSED)

    run(main())
