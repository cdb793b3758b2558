"""What the proxy does when backends and clients misbehave, with the wire in the test's hand."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from chassis.resilience.breaker import BreakerState
from strangler_proxy.table import Limits
from tests.proxy_lab import Lab, Message, Script, anonymous, hang, lab, raw, reply, run, until, until_true

FAST = "timeouts: {connect: 200, read: 150}"


async def refuse(it: Lab) -> None:
    """The service's port is closed."""
    await it.catalog.stop()


def scripted(script: Script) -> Callable[[Lab], Awaitable[None]]:
    """The service answers by `script`."""

    async def arrange(it: Lab) -> None:
        it.catalog.script = script

    return arrange


FAULTS = {
    "refused": (refuse, "refused", 0),
    "hangs": (scripted(hang), "timeout", 0),
    "500": (scripted(reply(b"broken", status=b"500 Internal Server Error")), "status", 500),
    "503 without a body": (scripted(raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")), "status", 503),
    "closes before the first byte": (scripted(raw(b"", close=True)), "reset", 0),
    "resets before the first byte": (scripted(raw(b"", reset=True)), "reset", 0),
    "resets within the head": (scripted(raw(b"HTTP/1.1 200 OK\r\nContent-", reset=True)), "reset", 0),
    "stops within the head": (scripted(raw(b"HTTP/1.1 200 OK\r\nContent-")), "timeout", 0),
    "garbage": (scripted(raw(b"\x00\x01SSH-2.0-OpenSSH\r\n")), "protocol", 0),
    "two frames": (
        scripted(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc")),
        "protocol",
        0,
    ),
    "204 with a body announced": (
        scripted(raw(b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc")),
        "protocol",
        0,
    ),
    "switches protocols unasked": (
        scripted(raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")),
        "protocol",
        0,
    ),
    "a head without end": (scripted(raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000)), "protocol", 0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_the_service_is_answered_by_the_monolith_and_counted(name: str) -> None:
    arrange, error, status = FAULTS[name]

    async def main() -> None:
        async with lab(group=FAST, more="expose: true") as it:
            await arrange(it)
            response = await it.get("/api/x", anonymous("a"))
            assert (response.status, response.body) == (200, b"monolith")
            assert response.get(b"x-strangler-arm") == b"fallback"
            wire = it.drained()
            (item,) = wire["catalog"]["items"]
            assert item[:3] == ["canary", error, status]
            assert item[6] == response.get(b"x-request-id").decode()
            assert item[7] == "/api/x"
            canary, control = wire["catalog"]["canary"], wire["catalog"]["control"]
            assert (canary["requests"], canary["errors"], canary["fallbacks"]) == (1, 1, 1)
            assert canary["timeouts"] == (error == "timeout")
            assert control["requests"] == 0
            assert True in it.urgent

    run(main())


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_the_owner_of_an_unsafe_request_is_told_to_the_client(name: str) -> None:
    arrange, error, status = FAULTS[name]

    async def main() -> None:
        async with lab(group=FAST, owner="catalog") as it:
            await arrange(it)
            response = await it.get("/api/x", anonymous("a"), method="POST")
            expected = status or (504 if error == "timeout" else 502)
            assert response.status == expected
            assert it.monolith.requests == []
            assert len(it.catalog.requests) <= 1
            assert [item[:3] for item in it.items()] == [["canary", error, status]]

    run(main())


def test_without_fallback_the_fault_is_told() -> None:
    async def main() -> None:
        async with lab(fallback="false", catalog=reply(status=b"500 Oh")) as it:
            response = await it.get("/api/x")
            assert (response.status, response.body) == (500, b"hello")
            await it.catalog.stop()
            response = await it.get("/api/x")
            assert response.status == 502
            assert response.get(b"content-type") == b"application/problem+json"

    run(main())


def test_when_both_sides_fail_the_client_gets_the_monoliths_answer() -> None:
    async def main() -> None:
        async with lab(monolith=reply(b"down", status=b"503 Down"), catalog=reply(status=b"500 Oh")) as it:
            response = await it.get("/api/x")
            assert (response.status, response.body) == (503, b"down")
            wire = it.drained()
            assert wire["catalog"]["canary"]["fallback_errors"] == 1
            assert [item[:3] for item in wire["catalog"]["items"]] == [["canary", "status", 500]]

    run(main())


def test_failing_service_does_not_cost_a_connection_for_each_failure() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"x" * 500, status=b"500 Oh")) as it:
            for _ in range(5):
                assert (await it.get("/api/x")).status == 200
            assert it.catalog.connections == 1

    run(main())


def test_answer_broken_after_its_head_breaks_the_clients_connection_too() -> None:
    async def main() -> None:
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ):
            async with lab(catalog=raw(answer, close=True)) as it:
                client = await it.connect()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.get("/api/x")
                assert [item[:3] for item in it.items()] == [["canary", "reset", 0]]
                client.close()

    run(main())


def test_silence_within_the_body_is_a_timeout() -> None:
    async def main() -> None:
        script = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        async with lab(catalog=script, group=FAST) as it:
            client = await it.connect()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.get("/api/x")
            assert [item[:2] for item in it.items()] == [["canary", "timeout"]]
            client.close()

    run(main())


def test_total_timeout_ends_a_trickle() -> None:
    async def trickle(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with lab(catalog=trickle, group="timeouts: {read: 200, total: 300}") as it:
            client = await it.connect()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.get("/api/x")
            assert [item[:2] for item in it.items()] == [["canary", "timeout"]]
            client.close()

    run(main())


SURPLUS = {
    "after 204": (b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", "GET"),
    "after HEAD": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", "HEAD"),
    "after 304": (b"HTTP/1.1 304 Not Modified\r\n\r\nEVIL", "GET"),
    "a second answer": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
        "GET",
    ),
    "a longer body": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEVIL", "GET"),
}


@pytest.mark.parametrize("name", SURPLUS)
@pytest.mark.parametrize("late", [False, True])
def test_surplus_bytes_never_reach_the_next_request(name: str, *, late: bool) -> None:
    answer, method = SURPLUS[name]
    end = len(answer) - len(answer.partition(b"\r\n\r\n")[2])
    if b"\r\n\r\nok" in answer:
        end += 2

    async def main() -> None:
        sent = asyncio.Event()

        async def script(
            _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            if not late:
                writer.write(answer)
                return
            writer.write(answer[:end])
            await writer.drain()
            await sent.wait()
            writer.write(answer[end:])
            await writer.drain()

        async with lab(monolith=script) as it:
            first = await it.connect()
            response = await first.get("/a", method=method)
            assert b"EVIL" not in response.body
            sent.set()
            # the surplus has arrived, and its connection is gone, or it was never pooled
            await until(lambda: it.plane.pool(it.plane.routes.backends["monolith"]).open == 0)
            it.monolith.script = reply(b"clean")
            second = await it.connect()
            assert (await second.get("/b")).body == b"clean"
            assert (await first.get("/c")).body == b"clean"
            first.close()
            second.close()

    run(main())


def test_stale_connection_is_replaced_for_a_safe_request_only() -> None:
    async def main() -> None:
        async with lab() as it:
            await it.get("/")

            async def die_first(
                request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                if it.monolith.connections == 1:
                    writer.transport.abort()
                else:
                    await reply(b"again")(request, reader, writer)

            it.monolith.script = die_first
            assert (await it.get("/")).body == b"again"
            it.monolith.connections = 0
            # this one is repeated on no account
            it.monolith.requests.clear()
            it.monolith.script = raw(b"", close=True)
            assert (await it.get("/", method="POST")).status == 502
            assert len(it.monolith.requests) == 1

    run(main())


def test_safe_request_is_retried_once_not_for_ever() -> None:
    async def main() -> None:
        async with lab() as it:
            await it.get("/")
            it.monolith.requests.clear()
            it.monolith.script = raw(b"", reset=True)
            assert (await it.get("/")).status == 502
            assert len(it.monolith.requests) == 2

    run(main())


BAD_REQUESTS = {
    "both frames": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "both frames, turned": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", 400),
    "unknown coding": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "hidden coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "two codings": (
        b"POST / HTTP/1.1\r\nHost: a\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
        400,
    ),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "control byte in the target": (b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "nul in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
    "a fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no path": (b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "credentials in the target": (b"GET http://u:p@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "huge header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    "header without end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431),
    "long target": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "bad chunk": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "unknown expectation": (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 0\r\n\r\n", 417),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_not_http_is_refused_and_the_connection_ends(name: str, *, whole: bool) -> None:
    request, status = BAD_REQUESTS[name]
    smuggled = request + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    piece = len(smuggled) if whole else max(7, len(smuggled) // 50)

    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            for start in range(0, len(smuggled), piece):
                await client.send(smuggled[start : start + piece])
                await asyncio.sleep(0)
            response = await client.response()
            assert response.status == status
            assert response.get(b"connection") == b"close"
            assert await client.reader.read() == b""
            assert all(request.target != b"/smuggled" for request in it.monolith.requests)
            client.close()

    run(main())


def test_whole_requests_before_a_broken_one_are_answered() -> None:
    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            await client.send(
                b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nNONSENSE\r\n\r\n"
            )
            assert [(await client.response()).status for _ in range(3)] == [200, 200, 400]
            assert await client.reader.read() == b""
            client.close()

    run(main())


def test_early_answer_is_delivered_and_ends_the_connection() -> None:
    async def refuse_upload(
        _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with lab(monolith=refuse_upload, read_bodies=False) as it:
            client = await it.connect()
            await client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000
            )
            response = await client.response()
            assert (response.status, response.body) == (413, b"big")
            assert response.get(b"connection") == b"close"
            client.close()

    run(main())


def test_client_that_leaves_is_no_evidence_and_frees_the_backend() -> None:
    async def main() -> None:
        async with lab(catalog=hang) as it:
            client = await it.connect()
            await client.send(f"GET /api/x HTTP/1.1\r\nHost: a\r\n{anonymous('a')}\r\n\r\n".encode())
            await until(lambda: len(it.catalog.requests) == 1)
            client.reset()
            await until(lambda: not it.catalog.open)
            wire = it.drained()
            assert wire["catalog"]["items"] == []
            assert wire["catalog"]["canary"]["aborted"] == 1
            assert wire["catalog"]["canary"]["requests"] == 0
            assert not it.plane.active

    run(main())


def test_4xx_is_counted_but_no_evidence() -> None:
    async def main() -> None:
        async with lab(catalog=reply(status=b"404 Not Found")) as it:
            assert (await it.get("/api/x")).status == 404
            wire = it.drained()
            assert wire["catalog"]["items"] == []
            assert wire["catalog"]["canary"]["by_status"] == {"404": 1}

    run(main())


def test_breaker_opens_after_its_threshold_and_probes_its_way_back() -> None:
    async def main() -> None:
        policy = "breaker: {consecutive: 5, pause: 100}"
        async with lab(catalog=reply(status=b"500 Oh"), backend=policy) as it:
            for _ in range(8):
                assert (await it.get("/api/x")).body == b"monolith"
            assert len(it.catalog.requests) == 5
            wire = it.drained()
            canary = wire["catalog"]["canary"]
            assert (canary["errors"], canary["breaker_rejections"], canary["fallbacks"]) == (5, 3, 8)
            assert len(wire["catalog"]["items"]) == 5
            it.use(owner="catalog", backend=policy)
            refused = await it.get("/api/x", method="POST")
            assert refused.status == 503
            assert int(refused.get(b"retry-after")) >= 1
            it.catalog.script = reply(b"healed")

            async def healed() -> bool:
                return (await it.get("/api/x")).body == b"healed"

            await until_true(healed)
            assert [state for _, state in it.breakers] == [
                BreakerState.OPEN,
                BreakerState.HALF_OPEN,
                BreakerState.CLOSED,
            ]

    run(main())


def test_500s_of_the_monolith_never_close_the_shop() -> None:
    async def main() -> None:
        async with lab(percent=0, monolith=reply(status=b"500 As Every Day")) as it:
            assert [(await it.get("/x")).status for _ in range(30)] == [500] * 30
            it.monolith.script = reply(b"fine")
            assert (await it.get("/y")).body == b"fine"

    run(main())


def test_crowd_waits_for_a_connection_and_the_overflow_is_turned_away() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            await reply()(request, reader, writer)

        limits = "limits: {connections: 2, waiting: 3}"
        async with lab(catalog=slow, fallback="false", backend=limits) as it:
            clients = [asyncio.create_task(it.get("/api/x")) for _ in range(8)]
            await until(lambda: sum(task.done() for task in clients) == 3)
            gate.set()
            statuses = sorted([(await task).status for task in clients])
            assert statuses == [200] * 5 + [503] * 3
            assert it.catalog.connections == 2

    run(main())


def test_old_idle_connections_make_room_for_an_unsafe_request() -> None:
    async def main() -> None:
        async with lab() as it:
            pool = it.plane.pool(it.plane.routes.backends["monolith"])
            await it.get("/")
            assert pool.idle == 1
            pool.backend = replace(pool.backend, limits=Limits(connections=1))
            for connection in pool._idle:
                connection.idle_since -= (
                    2.0  # too old for a request that cannot be repeated, and the only one allowed
                )
            assert (await it.get("/", method="POST")).status == 200
            assert it.monolith.connections == 2

    run(main())


def test_unreachable_host_is_a_connect_timeout() -> None:
    async def main() -> None:
        # a listening socket whose queue is full drops further handshakes: no route to nowhere is needed
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with lab(backend="timeouts: {connect: 100}") as it:
            port = it.catalog.port
            it.catalog.port = full.getsockname()[1]
            it.use(backend="timeouts: {connect: 100}")
            assert (await it.get("/api/x")).body == b"monolith"
            assert [item[:2] for item in it.items()] == [["canary", "timeout"]]
            it.catalog.port = port
        for filler in (*fillers, full):
            filler.close()

    run(main())


def test_backend_that_dies_between_head_and_body_is_replaced() -> None:
    """uvicorn writes the two one after the other; what is killed in between has answered nothing yet."""

    async def head_only(
        _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await writer.drain()
        writer.transport.abort()

    async def main() -> None:
        async with lab(catalog=head_only) as it:
            answer = await it.get("/api/x", anonymous("a"))
            assert (answer.status, answer.body) == (200, b"monolith")
            (item,) = it.items()
            assert item[1] == "reset"
        async with lab(catalog=head_only, fallback="false") as it:
            assert (await it.get("/api/x", anonymous("a"))).status == 502

    run(main())


def test_head_of_an_answer_whose_length_is_not_known_goes_out_at_once() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(
            _request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await gate.wait()
            writer.write(b"0\r\n\r\n")

        async with lab(catalog=slow) as it:
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: lab\r\n\r\n")
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            gate.set()
            client.close()

    run(main())
