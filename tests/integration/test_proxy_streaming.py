"""Large bodies pass through as they come, in both directions, and neither side can fill the proxy's
memory."""

import asyncio
import hashlib
import random
import tracemalloc

from tests.proxy_lab import Message, lab, run, until

MEGABYTE = 1_000_000
PIECE = bytes(range(250)) * 400  # 100 kB


async def big_answer(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """50 MB with a Content-Length."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (50 * MEGABYTE))
    for _ in range(500):
        writer.write(PIECE)
        await writer.drain()


async def big_chunked(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """5 MB in chunks of many sizes."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sizes = random.Random(7)
    left = 5 * MEGABYTE
    while left:
        size = min(left, sizes.choice([1, 7, 1000, 65_536, 200_000]))
        writer.write(b"%x\r\n%b\r\n" % (size, (PIECE * 3)[:size]))
        left -= size
        await writer.drain()
    writer.write(b"0\r\n\r\n")


def test_50_megabytes_come_through_with_flat_memory() -> None:
    async def main() -> None:
        async with lab(monolith=big_answer) as it:
            client = await it.connect()
            tracemalloc.start()
            try:
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert b"Content-Length: 50000000" in head
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                received = hashlib.sha256()
                left = 50 * MEGABYTE
                while left:
                    data = await client.reader.read(65_536)
                    received.update(data)
                    left -= len(data)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert received.digest() == hashlib.sha256(PIECE * 500).digest()
            assert peak - before < 4 * MEGABYTE
            client.close()

    run(main())


def test_a_client_that_does_not_read_stops_the_backend() -> None:
    written = 0

    async def endless(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(PIECE)
            written += len(PIECE)
            await writer.drain()

    async def main() -> None:
        async with lab(monolith=endless) as it:
            client = await it.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, in truth
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: written > 0)
            stable = 0
            last = -1
            async with asyncio.timeout(10):
                while (
                    stable < 20
                ):  # nothing moved for 20 looks: the kernel's buffers are full, and so is ours
                    stable, last = (stable + 1, last) if written == last else (0, written)
                    await asyncio.sleep(0.01)
            assert written < 40 * MEGABYTE
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            response = await client.response()
            assert len(response.body) == 50 * MEGABYTE
            client.close()

    run(main())


def test_chunked_answer_arrives_byte_for_byte() -> None:
    async def main() -> None:
        async with lab(monolith=big_chunked) as it:
            client = await it.connect()
            response = await client.get("/")
            sizes = random.Random(7)
            expected = b""
            while len(expected) < 5 * MEGABYTE:
                size = min(5 * MEGABYTE - len(expected), sizes.choice([1, 7, 1000, 65_536, 200_000]))
                expected += (PIECE * 3)[:size]
            assert response.body == expected
            assert (await client.get("/api/x")).body == b"catalog"
            client.close()

    run(main())


def test_upload_is_streamed_and_held_back_while_the_backend_does_not_read() -> None:
    sent = 0

    async def slow_reader(
        request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await gate.wait()
        digest = hashlib.sha256()
        left = int(request.get(b"content-length"))
        while left:
            data = await reader.read(65_536)
            digest.update(data)
            left -= len(data)
        body = digest.hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def upload(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (50 * MEGABYTE))
        for _ in range(500):
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    gate = asyncio.Event()

    async def main() -> None:
        async with lab(monolith=slow_reader, read_bodies=False) as it:
            client = await it.connect()
            task = asyncio.create_task(upload(client.writer))
            stable, last = 0, -1
            async with asyncio.timeout(10):
                while stable < 20:
                    stable, last = (stable + 1, last) if sent == last else (0, sent)
                    await asyncio.sleep(0.01)
            assert sent < 40 * MEGABYTE
            gate.set()
            response = await client.response()
            await task
            assert response.body.decode() == hashlib.sha256(PIECE * 500).hexdigest()
            assert (await client.get("/api/x")).body == b"catalog"
            client.close()

    run(main())


def test_first_bytes_of_a_slow_answer_are_not_held_back() -> None:
    gate = asyncio.Event()

    async def slow(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await gate.wait()
        writer.write(b"later")

    async def main() -> None:
        async with lab(catalog=slow) as it:
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.reader.readuntil(b"first")).endswith(b"\r\n\r\nfirst")
            gate.set()
            assert await client.reader.readexactly(5) == b"later"
            client.close()

    run(main())


def test_unsafe_upload_larger_than_memory_allows_waits_for_its_connection() -> None:
    async def main() -> None:
        async with lab(monolith=echo_length) as it:
            client = await it.connect()
            await client.send(
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * MEGABYTE
            )
            assert (await client.response()).body == b"1000000"
            client.close()

    async def echo_length(
        request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        body = b"%d" % len(request.body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    run(main())


def test_safe_request_with_a_small_body_falls_back_whole() -> None:
    async def main() -> None:
        async with lab() as it:
            await it.catalog.stop()
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nquery")
            assert (await client.response()).body == b"monolith"
            assert it.monolith.requests[0].body == b"query"
            client.close()

    run(main())
