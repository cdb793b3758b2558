"""Nobody reads an older state than they wrote, with a stream that is five seconds behind: a real proxy of two
workers, two real databases, the real change stream, held again and again as a verifier would hold it.

The two sides are the smallest servers that do what the shop and the service do: one writes a row and tells the
log's position as the seam does, the other reads its own database and tells what it has applied through
`chassis.applied`. `READ_YOUR_WRITES_PAIRS` sets the number of write-then-read pairs (10,000 for the full run).
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from cdc.hold import Hold, HoldLostError
from chassis import postgres as service_postgres
from chassis.applied import AppliedPosition
from tests.cdc_shop import Shop, make_shop
from tests.integration.test_proxy_processes import Proxy, proxy
from tests.proxy_lab import Client, Message, Script

PAIRS = int(os.environ.get("READ_YOUR_WRITES_PAIRS", "1500"))
LAG = 5.0
CLIENTS = 50
WRITE = "UPDATE catalog_product SET price = %s WHERE id = %s"
READ = "SELECT price_cents / 100 FROM product WHERE product_id = %s"


def answer(writer: asyncio.StreamWriter, body: bytes, lines: bytes = b"") -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body))


def monolith(pool: AsyncConnectionPool) -> Script:
    """`POST /api/ROW/VALUE` writes, `GET /api/ROW` reads."""

    async def script(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        row, _, value = request.target.decode().removeprefix("/api/").partition("/")
        async with pool.connection() as connection:
            if request.method == b"POST":
                await connection.execute(WRITE, [int(value), int(row)])
                cursor = await connection.execute("SELECT pg_current_wal_insert_lsn()::text")
                told = await cursor.fetchone()
                assert told is not None
                answer(writer, b"written", b"X-Strangler-LSN: %b\r\n" % told[0].encode())
                return
            cursor = await connection.execute(
                "SELECT trunc(price)::int FROM catalog_product WHERE id = %s", [int(row)]
            )
            found = await cursor.fetchone()
            assert found is not None
            answer(writer, b"monolith %d" % found[0])

    return script


def service(pool: service_postgres.Pool, applied: AppliedPosition) -> Script:
    """`GET /api/ROW` reads, `GET /position`."""

    async def script(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/position":
            now = await applied.look()
            answer(
                writer, b'{"applied": "%b"}' % now.lsn.encode() if now is not None else b'{"applied": null}'
            )
            return
        lsn = applied.ask()
        async with pool.connection() as connection:
            cursor = await connection.execute(READ, [int(request.target.removeprefix(b"/api/"))])
            found = await cursor.fetchone()
        assert found is not None
        answer(
            writer, b"service %d" % found[0], b"X-Strangler-Applied: %b\r\n" % lsn.encode() if lsn else b""
        )

    return script


@contextmanager
def lagging(shop: Shop) -> Iterator[None]:
    """The applier is held for `LAG` seconds, let go for a moment, held again."""
    stop = threading.Event()
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with psycopg.connect(shop.config.target_dsn, autocommit=True) as connection:
                while not stop.is_set():
                    hold = Hold(connection, shop.config.slot, lease=LAG + 5)
                    assert hold.ask(timeout=10)
                    stop.wait(LAG)
                    hold.release()
                    stop.wait(0.5)
        except (HoldLostError, AssertionError, psycopg.Error) as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not faults, faults


@dataclass(slots=True)
class Reads:
    """What all clients saw: reads by side, and how many of them were older than the reader's write."""

    sides: dict[bytes, int] = field(default_factory=dict)
    stale: int = 0

    async def read(self, connection: Client, row: int, name: str, *, at_least: int) -> bytes:
        side, _, seen = (await connection.get(f"/api/{row}", name)).body.partition(b" ")
        self.sides[side] = self.sides.get(side, 0) + 1
        self.stale += int(seen) < at_least
        return side


async def pairs(it: Proxy, reads: Reads, *, client: int, first: int, count: int) -> None:
    """One client writes its own row and reads it back, again and again."""
    row = client + 1
    # half of them have a session cookie, half are known by a header alone; nobody gives the proxy's cookie back
    name = f"Cookie: sessionid=client{client}" if client % 2 else f"Authorization: Bearer client{client}"
    writing = await it.connect()
    reading = [await it.connect() for _ in range(4)]  # other connections, so other workers too
    for number in range(count):
        value = first + number
        wrote = await writing.get(f"/api/{row}/{value}", "Content-Length: 0", name, method="POST")
        assert wrote.body == b"written", wrote
        await reads.read(reading[number % 4], row, name, at_least=value)
        if number == count // 2:  # read on until the service may answer, and beyond
            end = time.monotonic() + 3 * LAG
            while time.monotonic() < end:
                if await reads.read(reading[number % 4], row, name, at_least=value) == b"service":
                    break
                await asyncio.sleep(0.1)
    for connection in (writing, *reading):
        connection.close()


async def stale_reads(shop: Shop, directory: Path, *, guard: str, first: int) -> Reads:
    reads = Reads()
    source = AsyncConnectionPool(
        shop.config.source_dsn, kwargs={"autocommit": True}, min_size=4, max_size=8, open=False
    )
    target = service_postgres.make_pool(shop.config.target_dsn, name="service", min_size=4, max_size=8)
    applied = AppliedPosition(target)
    async with source, service_postgres.opened(target), applied.followed():
        changes = {"backend": "position: {every: 50}", "more": f"read_your_writes: {{enabled: {guard}}}"}
        async with proxy(directory, **changes) as it:
            it.monolith.script, it.catalog.script = monolith(source), service(target, applied)
            each = PAIRS // CLIENTS
            async with asyncio.TaskGroup() as group:
                for client in range(CLIENTS):
                    group.create_task(pairs(it, reads, client=client, first=first, count=each))
    return reads


@pytest.fixture
def shop(make_database: Callable[[], str]) -> Shop:
    return make_shop(make_database(), make_database(), "lagging", products=CLIENTS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_read_is_older_than_the_readers_write(shop: Shop, tmp_path: Path) -> None:
    for guard, first in (("true", 1_000), ("false", 500_000)):
        with shop.running():
            shop.settle()
            with lagging(shop):
                directory = tmp_path / guard
                directory.mkdir()
                reads = asyncio.run(stale_reads(shop, directory, guard=guard, first=first))
            shop.settle()
        if guard == "true":
            assert reads.stale == 0
            assert reads.sides[b"monolith"] > 0
            assert reads.sides.get(b"service", 0) > 0, "the guard let nobody read from the service at all"
        else:
            assert reads.stale > PAIRS / 2, reads
