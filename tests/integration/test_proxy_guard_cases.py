"""The guard's harder cases: parallel answers, log-ins, lags, what was forgotten, memory, and what is evidence."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from strangler_proxy.identity import USER_COOKIE, WROTE_COOKIE, CookieSigner
from tests.proxy_lab import SECRET, Lab, Message, anonymous, hang, lab, raw, reply, run, until, until_true

POSITION = "position: {every: 10}"


@dataclass(slots=True)
class Sides:
    """What the two scripted sides say: the monolith's log and how far the service has applied it."""

    log: str | None = "0/100"
    applied: str | None = "0/100"
    lag_ms: float | None = 0.0
    tell_in_answers: bool = True
    extra: bytes = b""

    async def monolith(
        self, request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        told = b"X-Strangler-LSN: %b\r\n" % self.log.encode() if self.log is not None else b""
        unsafe = request.method not in (b"GET", b"HEAD")
        await reply(b"monolith", headers=(told if unsafe else b"") + self.extra)(request, _reader, writer)

    async def catalog(
        self, request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        body, headers = b"catalog", b""
        if self.applied is not None and self.tell_in_answers:
            headers = b"X-Strangler-Applied: %b\r\n" % self.applied.encode()
        if request.target == b"/position":
            body = json.dumps({"applied": self.applied, "lag_ms": self.lag_ms}).encode()
        await reply(body, headers=headers)(request, _reader, writer)


@asynccontextmanager
async def shop(sides: Sides, **changes: object) -> AsyncIterator[Lab]:
    changes.setdefault("backend", POSITION)
    async with lab(monolith=sides.monolith, catalog=sides.catalog, read_bodies=True, **changes) as built:
        yield built


async def read(lab: Lab, who: str, *headers: str, path: str = "/api/x") -> bytes:
    return (await lab.get(path, anonymous(who), *headers)).body


async def sees(lab: Lab, who: str, body: bytes) -> bool:
    return await read(lab, who) == body


def jar(answer: Message) -> str:
    """The Cookie header of a client that got `answer`."""
    return "Cookie: " + "; ".join(value.partition(b";")[0].decode() for value in answer.all(b"set-cookie"))


def guarded(lab: Lab) -> int:
    """Reads kept with the owner since the last look; there is no evidence beside them."""
    told = lab.drained().get("catalog")
    if told is None:
        return 0
    assert told["items"] == []
    return int(told["control"]["guarded"] + told["canary"]["guarded"])


def test_a_held_read_is_evidence_for_neither_side() -> None:
    async def main() -> None:
        sides = Sides(log="0/200")
        for percent in (0, 100):
            async with shop(sides, percent=100) as lab:
                lab.use(percent=percent, backend=POSITION)
                await lab.get("/api/x", anonymous("writer"), method="POST")
                lab.items()
                await read(lab, "writer")
                await read(lab, "writer")
                assert guarded(lab) == 2

    run(main())


def test_the_cookie_alone_is_enough() -> None:
    """Another proxy, or this one after a restart: only the client remembers."""

    async def main() -> None:
        sides = Sides(log="0/200")
        async with shop(sides) as lab:
            wrote = await lab.get("/cart/", method="POST")
        cookie = jar(wrote)
        assert "strangler_wrote=" in cookie
        async with shop(sides) as other:
            assert (await other.get("/api/x", cookie)).body == b"monolith"
            assert (
                await other.get("/api/x", cookie.replace("200", "100"))
            ).body == b"catalog"  # forged: unsigned
            sides.applied = "0/200"
            await until_true(lambda: _answers(other, cookie, b"catalog"))

    run(main())


async def _answers(lab: Lab, header: str, body: bytes) -> bool:
    return (await lab.get("/api/x", header)).body == body


def test_a_client_is_known_by_anything_it_shows() -> None:
    async def main() -> None:
        signed = CookieSigner(SECRET).sign(USER_COOKIE, b"7").decode()
        shown = (
            "Authorization: Token abc",
            "Cookie: sessionid=s1",
            f"Cookie: strangler_user={signed}",
            "X-Client: c9",
        )
        for header in shown:
            sides = Sides(log="0/200")
            async with shop(sides, sticky="header:X-Client") as lab:
                assert (await lab.get("/api/x", header)).body == b"catalog"
                await lab.get("/login/", header, method="POST")
                assert (await lab.get("/api/x", header)).body == b"monolith", header
                other = (
                    header.replace("abc", "abd").replace("s1", "s2").replace("c9", "c8").replace("=7", "=8")
                )
                assert (await lab.get("/api/x", other, "X-Client: c8")).body == b"catalog", header

    run(main())


def test_a_login_keeps_the_guard() -> None:
    async def main() -> None:
        sides = Sides(log="0/200")
        async with shop(sides) as lab:
            await lab.get("/cart/", "Cookie: sessionid=before", method="POST")
            # the log-in is a safe request here (a redirect back from somewhere else), and gives a new session
            sides.extra = b"Set-Cookie: sessionid=after; HttpOnly\r\nX-Strangler-User: 12\r\n"
            answer = await lab.get("/oauth/callback", "Cookie: sessionid=before")
            assert (await lab.get("/api/x", "Cookie: sessionid=after")).body == b"monolith"
            user = next(value for value in answer.all(b"set-cookie") if value.startswith(b"strangler_user"))
            cookie = "Cookie: " + user.partition(b";")[0].decode()
            assert (await lab.get("/api/x", cookie)).body == b"monolith"

    run(main())


def test_the_highest_wins_whatever_the_order_of_the_answers() -> None:
    async def main() -> None:
        sides = Sides(log="0/300")
        async with shop(sides) as lab:
            first = await lab.get("/cart/", anonymous("writer"), method="POST")
            sides.log = "0/200"  # an earlier write whose answer comes later
            second = await lab.get("/cart/", anonymous("writer"), method="POST")
            for answer in (first, second):
                (cookie,) = [each for each in answer.all(b"set-cookie") if each.startswith(WROTE_COOKIE)]
                assert re.match(rb"strangler_wrote=monolith:300:", cookie), cookie

    run(main())


def test_an_unknown_position_is_waited_for_by_the_lag() -> None:
    async def main() -> None:
        sides = Sides(log=None, lag_ms=60_000.0)
        async with shop(sides) as lab:
            await lab.get("/cart/", anonymous("writer"), method="POST")
            await until(lambda: lab.plane.guard is not None and _lag_known(lab))
            assert await read(lab, "writer") == b"monolith"
            sides.lag_ms = 0.0
            began = time.monotonic()
            await until_true(lambda: sees(lab, "writer", b"catalog"), 10)
            assert (
                time.monotonic() - began > 1.0
            )  # everything committed before the write's answer, with a margin

    run(main())


def _lag_known(lab: Lab) -> bool:
    guard = lab.plane.guard
    assert guard is not None
    known = guard.positions.known("catalog")
    return known is not None and known.caught_up > 0


def test_without_positions_the_pin_decides() -> None:
    async def main() -> None:
        more = "read_your_writes: {pin: 300}"
        async with shop(Sides(), backend="", more=more) as lab:
            await lab.get("/cart/", anonymous("writer"), method="POST")
            began = time.monotonic()
            assert await read(lab, "writer") == b"monolith"
            await until_true(lambda: sees(lab, "writer", b"catalog"))
            assert time.monotonic() - began > 0.25

    run(main())


def test_a_write_that_was_never_answered_is_a_write() -> None:
    async def main() -> None:
        sides = Sides(log="0/200", lag_ms=60_000.0)
        for fault in (raw(b"", close=True), hang):
            async with shop(sides) as lab:
                lab.monolith.script = fault
                client = await lab.connect()
                await client.send(
                    f"POST /cart/ HTTP/1.1\r\nHost: a\r\n{anonymous('writer')}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                if fault is hang:
                    await until(lambda: bool(lab.monolith.requests))
                    client.reset()
                else:
                    assert (await client.response()).status == 502
                    client.close()
                await until(lambda: not lab.plane.active)
                lab.monolith.script = sides.monolith
                assert await read(lab, "writer") == b"monolith"
                assert await read(lab, "nobody") == b"catalog"

    run(main())


def test_the_other_way_round_where_the_service_owns_the_group() -> None:
    async def main() -> None:
        sides = Sides()
        async with shop(sides) as lab:
            lab.use(percent=0, owner="catalog", backend=POSITION, more="read_your_writes: {pin: 60000}")
            assert (await lab.get("/api/x", anonymous("writer"), method="POST")).body == b"catalog"
            assert await read(lab, "writer") == b"catalog"
            assert await read(lab, "nobody") == b"monolith"
            # what it wrote to the other side is another aggregate's
            await lab.get("/cart/", anonymous("shopper"), method="POST")
            assert await read(lab, "shopper") == b"monolith"
            # the monolith is behind: it does not answer for a service that fails
            lab.catalog.script = reply(b"no", status=b"500 No")
            answer = await lab.get("/api/x", anonymous("writer"))
            assert answer.status == 500

    run(main())


def test_what_was_forgotten_at_the_start_may_have_been_a_write() -> None:
    async def main() -> None:
        sides = Sides()
        async with shop(sides, backend="") as built:
            await read(built, "anybody")
            assert built.plane.guard is None
            built.use(backend=POSITION)  # who wrote before was not seen
            assert await read(built, "anybody") == b"monolith"
            await until_true(lambda: sees(built, "anybody", b"catalog"), 10)

    run(main())


def test_testers_see_the_side_they_ask_for() -> None:
    async def main() -> None:
        sides = Sides(log="0/200")
        async with shop(sides, group="overrides: {header: X-Side}") as lab:
            lab.use(group="overrides: {header: X-Side}", backend=POSITION)
            await lab.get("/cart/", anonymous("writer"), method="POST")
            assert await read(lab, "writer", "X-Side: canary") == b"catalog"

    run(main())


def test_who_wrote_is_not_answered_from_memory() -> None:
    async def main() -> None:
        sides = Sides()
        async with shop(
            sides, group="cache: {fresh: 60000}\n    expose: true", sticky="header:X-Client"
        ) as lab:
            for _ in range(2):
                first = await lab.get("/api/x", "X-Client: c1")
            assert first.get(b"x-cache") == b"hit"
            await lab.get("/cart/", "X-Client: c1", method="POST")  # of no group: empties no cache
            sides.applied = sides.log
            for _ in range(2):
                assert (await lab.get("/api/x", "X-Client: c1")).get(b"x-cache") != b"hit"
            assert (await lab.get("/api/x", "X-Client: c2")).get(b"x-cache") == b"hit"

    run(main())


def test_a_group_may_be_left_out() -> None:
    async def main() -> None:
        async with shop(Sides(log="0/200"), group="read_your_writes: {enabled: false}") as lab:
            await lab.get("/cart/", anonymous("writer"), method="POST")
            assert await read(lab, "writer") == b"catalog"

    run(main())


def test_a_position_that_was_not_asked_for_lately_counts_for_nothing() -> None:
    async def main() -> None:
        sides = Sides(log="0/100", applied="0/100")
        async with shop(sides, more="read_your_writes: {age: 100}") as lab:
            await lab.get("/cart/", anonymous("writer"), method="POST")
            await until_true(lambda: sees(lab, "writer", b"catalog"))
            sides.applied = "0/50"  # restored from a backup, while nobody looked
            await asyncio.sleep(3)  # nobody waits any more
            assert await read(lab, "writer") == b"monolith"

    run(main())
