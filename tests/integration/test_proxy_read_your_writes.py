"""Nobody reads from a side that does not know yet what they wrote: real sockets, scripted sides."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from tests.proxy_lab import Client, Lab, Message, Script, anonymous, lab, run, until, until_true

POSITION = "position: {every: 5}"


@dataclass(slots=True)
class Sides:
    """A monolith whose log grows with each write, and a service that has applied `applied` of it."""

    written: int = 0x10
    applied: int = 0x10
    seam: bool = True
    status: bytes = b"200 OK"
    asked: int = 0
    tells: bool = True
    new_session: bytes = b""

    def monolith(self) -> Script:
        async def script(
            request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            lines = b""
            if request.method != b"GET":
                self.written += 0x10
                if self.seam:
                    lines = b"X-Strangler-LSN: 0/%X\r\n" % self.written
                if self.new_session:
                    lines += b"Set-Cookie: sessionid=%b; Path=/\r\n" % self.new_session
            head = b"HTTP/1.1 %b\r\n%bContent-Length: 8\r\n\r\n" % (self.status, lines)
            writer.write(head + b"monolith")

        return script

    def service(self) -> Script:
        async def script(
            request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            if request.target == b"/position":
                self.asked += 1
                body = json.dumps({"applied": f"0/{self.applied:X}" if self.tells else None}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                return
            line = b"X-Strangler-Applied: 0/%X\r\n" % self.applied if self.tells else b""
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: 7\r\n\r\nservice" % line)

        return script

    def catch_up(self) -> None:
        self.applied = self.written


def open_lab(sides: Sides, **changes: object) -> object:
    told = {"backend": POSITION, **changes}
    return lab(monolith=sides.monolith(), catalog=sides.service(), **told)


async def write(client: Client, *headers: str) -> Message:
    return await client.get("/elsewhere", "Content-Length: 0", *headers, method="POST")


async def read(client: Client, *headers: str) -> bytes:
    return (await client.get("/api/x", *headers)).body


async def settled(proxy: Lab, sides: Sides) -> None:
    """The proxy has been told how far the service is."""
    before = sides.asked
    await until(lambda: sides.asked > before + 1)


IDENTITIES = {
    "session": "Cookie: sessionid=abc",
    "anonymous": anonymous("a"),
    "authorization": "Authorization: Bearer abc",
    "address": "X-Nothing: 1",
}


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_a_writer_reads_the_owner_until_the_service_has_caught_up(identity: str) -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides) as proxy:
            client = await proxy.connect()
            assert await read(client, identity) == b"service"
            answer = await write(client, identity)
            assert (
                answer.get(b"set-cookie").startswith(b"strangler_wrote=")
                or len(answer.all(b"set-cookie")) > 1
            )
            assert not answer.all(b"x-strangler-lsn")
            assert await read(client, identity) == b"monolith"
            await settled(proxy, sides)
            assert await read(client, identity) == b"monolith"
            sides.catch_up()
            await settled(proxy, sides)
            assert await read(client, identity) == b"service"
            client.close()

    run(main())


def test_others_are_not_kept_back() -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides) as proxy:
            writer, reader = await proxy.connect(), await proxy.connect()
            assert await read(reader, "Cookie: sessionid=b") == b"service"
            await write(writer, "Cookie: sessionid=a")
            assert await read(writer, "Cookie: sessionid=a") == b"monolith"
            assert await read(reader, "Cookie: sessionid=b") == b"service"
            writer.close()
            reader.close()

    run(main())


def test_the_cookie_alone_keeps_the_writer_after_a_restart() -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides) as proxy:
            answer = await proxy.get("/elsewhere", "Content-Length: 0", "Cookie: sessionid=a", method="POST")
            wrote = answer.get(b"set-cookie").partition(b";")[0].decode()
        async with open_lab(sides) as proxy:  # knows nothing of the first
            cookies = f"Cookie: sessionid=a; {wrote}"
            assert (await proxy.get("/api/x", "Cookie: sessionid=a")).body == b"service"
            assert (await proxy.get("/api/x", cookies)).body == b"monolith"
            forged = cookies.replace("monolith:", "monolith:f")
            assert (await proxy.get("/api/x", forged)).body == b"service"  # not signed: says nothing
            sides.catch_up()
            await settled(proxy, sides)
            assert (await proxy.get("/api/x", cookies)).body == b"service"

    run(main())


def test_a_session_that_begins_with_the_write_is_kept() -> None:
    async def main() -> None:
        sides = Sides(new_session=b"fresh")
        async with open_lab(sides) as proxy:
            await proxy.get("/elsewhere", "Content-Length: 0", "Cookie: sessionid=old", method="POST")
            assert (await proxy.get("/api/x", "Cookie: sessionid=fresh")).body == b"monolith"
            assert (await proxy.get("/api/x", "Cookie: sessionid=old")).body == b"monolith"

    run(main())


def test_unknown_is_not_fresh() -> None:
    async def main() -> None:
        sides = Sides(tells=False)
        async with open_lab(sides) as proxy:
            client = await proxy.connect()
            assert await read(client, "Cookie: sessionid=a") == b"service"
            await write(client, "Cookie: sessionid=a")
            sides.catch_up()
            assert await read(client, "Cookie: sessionid=a") == b"monolith"
            await settled(proxy, sides)
            assert await read(client, "Cookie: sessionid=a") == b"monolith"
            client.close()

    run(main())


def test_without_the_seam_a_writer_is_pinned_for_a_while() -> None:
    async def main() -> None:
        sides = Sides(seam=False)
        async with open_lab(sides, more="read_your_writes: {pin: 300}") as proxy:
            client = await proxy.connect()
            await write(client, "Cookie: sessionid=a")
            assert await read(client, "Cookie: sessionid=a") == b"monolith"

            async def released() -> bool:
                return await read(client, "Cookie: sessionid=a") == b"service"

            await until_true(released)
            client.close()

    run(main())


def test_a_write_whose_answer_never_came_counts_as_a_write() -> None:
    async def cut(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.method == b"POST":
            writer.transport.abort()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nmonolith")

    async def main() -> None:
        sides = Sides()
        async with lab(monolith=cut, catalog=sides.service(), backend=POSITION) as proxy:
            client = await proxy.connect()
            assert (await write(client, "Cookie: sessionid=a")).status == 502
            assert await read(client, "Cookie: sessionid=a") == b"monolith"
            client.close()

    run(main())


def test_guarded_requests_are_counted_and_no_evidence() -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides) as proxy:
            client = await proxy.connect()
            await write(client, "Cookie: sessionid=a")
            sides.status = b"500 Broken"
            await read(client, "Cookie: sessionid=a")
            client.close()
            wire = proxy.drained()
            assert wire["catalog"]["control"]["guarded"] == 1
            assert wire["catalog"]["items"] == []

    run(main())


def test_where_the_service_owns_its_writers_stay_with_it() -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides, owner="catalog", percent=0) as proxy:
            client = await proxy.connect()
            assert await read(client, "Cookie: sessionid=a") == b"monolith"
            answer = await client.get("/api/x", "Content-Length: 0", "Cookie: sessionid=a", method="POST")
            assert answer.body == b"service"
            assert await read(client, "Cookie: sessionid=a") == b"service"
            assert await read(client, "Cookie: sessionid=b") == b"monolith"
            client.close()

    run(main())


def test_switched_off_it_lets_everybody_read_anywhere() -> None:
    async def main() -> None:
        sides = Sides()
        async with open_lab(sides, more="read_your_writes: {enabled: false}") as proxy:
            client = await proxy.connect()
            assert not (await write(client, "Cookie: sessionid=a")).all(b"set-cookie")
            assert await read(client, "Cookie: sessionid=a") == b"service"
            client.close()

    run(main())
