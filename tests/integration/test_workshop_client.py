"""The traffic's own HTTP client against a server that follows a script, and the open loop of the driver."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from workshop.traffic.client import Answer, BrokenError, Client
from workshop.traffic.driver import Driver, TrafficConfig
from workshop.traffic.record import latency
from workshop.traffic.visitors import Visitor

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*answers: bytes, close: bool = False) -> Handler:
    """One connection after the other gets all `answers`, one for each request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            if close:
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, as some of these tests want
        finally:
            writer.close()

    return handle


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc", Answer(200, (), b"abc")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, (), b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            Answer(200, (), b"abc"),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            Answer(201, (), b""),
        ),
    ],
)
async def test_answers_are_read_whole_and_their_connection_is_used_again(
    raw: bytes, expected: Answer
) -> None:
    async with serving(answering(raw, raw)) as port:
        client = Client("127.0.0.1", port)
        for _ in range(2):
            answer = await client.send(GET)
            assert (answer.status, answer.body) == (expected.status, expected.body)
        client.close()


async def test_an_answer_without_length_ends_with_the_connection() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)) as port:
        client = Client("127.0.0.1", port)
        assert (await client.send(GET)).body == b"all of it"


async def test_head_has_headers_alone() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")) as port:
        client = Client("127.0.0.1", port)
        answer = await client.send(b"HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n", head=True)
        assert answer.header(b"content-length") == b"500"
        assert answer.body == b""


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "reset"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol"),
    ],
)
async def test_broken_answers_say_how_they_broke(raw: bytes, kind: str) -> None:
    async with serving(answering(raw, close=True)) as port:
        client = Client("127.0.0.1", port)
        with pytest.raises(BrokenError) as caught:
            await client.send(GET)
        assert caught.value.kind == kind


async def test_silence_is_a_timeout_and_nobody_there_a_refusal() -> None:
    async with serving(answering()) as port:
        client = Client("127.0.0.1", port, timeout=0.2)
        with pytest.raises(BrokenError) as caught:
            await client.send(GET)
        assert caught.value.kind == "timeout"
    client = Client("127.0.0.1", port, timeout=2.0)
    with pytest.raises(BrokenError) as caught:
        await client.send(GET)
    assert caught.value.kind == "refused"


async def test_a_kept_connection_that_closes_is_replaced_for_repeatable_requests_only() -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        # the next request is read, so it did not meet a closed socket, and is never answered
        try:
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async with serving(handle) as port:
        client = Client("127.0.0.1", port)
        assert (await client.send(GET, repeatable=True)).status == 200
        assert (await client.send(GET, repeatable=True)).status == 200
        assert requests == 1
        with pytest.raises(BrokenError) as caught:
            await client.send(GET, repeatable=False)
        assert caught.value.kind == "reset"
        client.close()


async def test_late_answers_do_not_slow_the_arrivals_and_count_from_when_they_were_due() -> None:
    stalled = asyncio.Event()
    seen: list[float] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                seen.append(time.monotonic())
                await stalled.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with serving(handle) as port:
        driver = Driver(
            TrafficConfig("127.0.0.1", port, rate=200.0, crowd=1_000, think=0.01), lambda _: Visitor()
        )
        running = asyncio.ensure_future(driver.run())
        async with asyncio.timeout(20):
            while len(seen) < 150:  # noqa: ASYNC110  (a number of arrivals, no event of ours)
                await asyncio.sleep(0.01)
            # nothing has been answered yet, and requests kept coming at their rate
            assert driver.record.total == 0
            stalled.set()
            driver.stop()
            await running
    assert driver.record.total >= 150
    assert latency(driver.record.seen).p99 > 400
    spread = max(seen[:150]) - min(seen[:150])
    assert 0.3 < spread < 5.0


async def test_the_same_seed_asks_the_same_questions() -> None:
    async def paths(seed: int) -> list[str]:
        asked: dict[str, str] = {}

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    number = head.partition(b"X-Request-ID: w")[2].split(b"\r\n")[0].split(b"-")[1]
                    asked[number.decode()] = head.split(b" ")[1].decode()
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        async with serving(handle) as port:
            config = TrafficConfig("127.0.0.1", port, rate=300.0, crowd=1_000, think=1e6, seed=seed)
            driver = Driver(config, lambda _: Visitor())
            running = asyncio.ensure_future(driver.run())
            async with asyncio.timeout(20):
                while len(asked) < 60:  # noqa: ASYNC110  (a number of arrivals, no event of ours)
                    await asyncio.sleep(0.01)
                driver.stop()
                await running
        return [asked[str(number)] for number in range(1, 50)]

    assert await paths(1) == await paths(1)
    assert await paths(1) != await paths(2)
