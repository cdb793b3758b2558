"""A backend of several instances: spread, retried elsewhere, taken out by their own breakers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.resilience.breaker import BreakerState
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import Backend, Lab, Message, hang, lab, raw, reply, routes_text, run, until


@dataclass(slots=True)
class Several:
    """The laboratory with group `catalog` served by `instances`, named by what they answer."""

    lab: Lab
    instances: list[Backend]

    def use(self, *indexes: int, more: str = "", **changes: object) -> None:
        """Apply routes with these instances."""
        self.lab.plane.apply(
            parse_routes(several_text(self.lab, self.instances, indexes, more, **changes), "lab")
        )

    async def bodies(self, count: int) -> list[bytes]:
        """The answers' bodies to so many requests, one after the other."""
        answers = [await self.lab.get("/api/x") for _ in range(count)]
        assert {answer.status for answer in answers} == {200}
        return [answer.body for answer in answers]


def several_text(
    proxy: Lab, instances: list[Backend], indexes: tuple[int, ...], more: str, **changes: object
) -> bytes:
    urls = ", ".join(f'"http://127.0.0.1:{instances[index].port}"' for index in indexes)
    text = routes_text(proxy.monolith.port, proxy.catalog.port, **changes).decode()
    return text.replace(
        f"    url: http://127.0.0.1:{proxy.catalog.port}\n", f"    instances: [{urls}]\n    {more}\n"
    ).encode()


@asynccontextmanager
async def several(count: int = 2, more: str = "", **changes: object) -> AsyncIterator[Several]:
    instances = [Backend(reply(f"{number}".encode())) for number in range(count)]
    for instance in instances:
        await instance.start()
    try:
        async with lab(**changes) as proxy:
            found = Several(proxy, instances)
            found.use(*range(count), more=more, **changes)
            yield found
    finally:
        for instance in instances:
            await instance.stop()


def test_idle_instances_take_turns() -> None:
    async def main() -> None:
        async with several(3) as shop:
            bodies = await shop.bodies(9)
            assert {body: bodies.count(body) for body in bodies} == {b"0": 3, b"1": 3, b"2": 3}

    run(main())


def test_a_busy_instance_gets_no_more_while_another_is_free() -> None:
    async def main() -> None:
        async with several() as shop:
            release = asyncio.Event()

            async def slow(
                request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                await release.wait()
                await reply(b"0")(request, reader, writer)

            shop.instances[0].script = slow
            asked = [asyncio.create_task(shop.lab.get("/api/x")) for _ in range(2)]
            await until(lambda: len(shop.instances[0].requests) == 1)
            assert await shop.bodies(6) == [b"1"] * 6
            release.set()
            assert {(await each).status for each in asked} == {200}

    run(main())


def test_what_no_instance_has_got_goes_to_another_whatever_the_method() -> None:
    async def main() -> None:
        async with several(owner="catalog", fallback="false") as shop:
            await shop.instances[0].stop()
            for method in ("GET", "POST", "DELETE") * 2:
                assert (await shop.lab.get("/api/x", method=method)).body == b"1"
            client = await shop.lab.connect()
            for _ in range(2):
                await client.send(b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
                await client.send(b"cde")
                assert (await client.response()).body == b"1"
            client.close()
            assert [request.body for request in shop.instances[1].requests[-2:]] == [b"abcde"] * 2
            assert sum(item[1] for item in shop.lab.items() if item[0] == "canary") == 8

    run(main())


def test_an_unanswered_safe_request_goes_to_another_once_an_unsafe_one_never() -> None:
    async def main() -> None:
        async with several(owner="catalog", fallback="false") as shop:
            shop.instances[0].script = raw(b"", reset=True)
            assert await shop.bodies(4) == [b"1"] * 4
            statuses = [(await shop.lab.get("/api/x", method="POST")).status for _ in range(4)]
            assert sorted(statuses) == [200, 200, 502, 502]

    run(main())


def test_no_third_instance_is_asked_when_two_gave_no_answer() -> None:
    async def main() -> None:
        async with several(3, fallback="false") as shop:
            for instance in shop.instances:
                instance.script = raw(b"", reset=True)
            assert (await shop.lab.get("/api/x")).status == 502
            assert sum(len(instance.requests) for instance in shop.instances) == 2

    run(main())


def test_an_instance_that_hangs_costs_one_time_out_and_no_error() -> None:
    async def main() -> None:
        async with several(more="timeouts: {read: 150}", fallback="false") as shop:
            shop.instances[0].script = hang
            assert await shop.bodies(4) == [b"1"] * 4

    run(main())


def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    async def main() -> None:
        async with several(fallback="false") as shop:
            for instance in shop.instances:
                instance.script = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=True)
            client = await shop.lab.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"abc" in await client.reader.read()
            client.close()
            assert sum(len(instance.requests) for instance in shop.instances) == 1

    run(main())


def test_breakers_are_each_instances_own_and_the_backends_is_their_sum() -> None:
    async def main() -> None:
        breaker = "breaker: {consecutive: 5, pause: 200, longest_pause: 200}"
        async with several(more=breaker) as shop:
            shop.instances[0].script = reply(status=b"500 No")
            for _ in range(10):
                await shop.lab.get("/api/x")  # the monolith answers what the first instance fails
            seen = len(shop.instances[0].requests)
            assert seen == 5
            assert shop.lab.breakers == []
            assert await shop.bodies(6) == [b"1"] * 6
            shop.instances[1].script = reply(status=b"500 No")
            for _ in range(8):
                assert (await shop.lab.get("/api/x")).body == b"monolith"
            assert shop.lab.breakers[0] == ("catalog", BreakerState.OPEN)
            for instance in shop.instances:
                instance.script = reply(b"good")

            async def closed() -> None:
                while shop.lab.breakers[-1] != ("catalog", BreakerState.CLOSED):
                    await shop.lab.get("/api/x")

            await asyncio.wait_for(closed(), 5)

    run(main())


def test_all_instances_away_is_the_fallbacks_business() -> None:
    async def main() -> None:
        async with several() as shop:
            for instance in shop.instances:
                await instance.stop()
            assert (await shop.lab.get("/api/x")).body == b"monolith"
            (item,) = shop.lab.items()
            assert item[0] == "canary"

    run(main())


def test_an_instance_joins_and_another_leaves_while_its_request_runs() -> None:
    async def main() -> None:
        async with several(3) as shop:
            release = asyncio.Event()

            async def slow(
                request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                await release.wait()
                await reply(b"slow")(request, reader, writer)

            shop.instances[0].script = slow
            shop.use(0, 1)
            asked = [asyncio.create_task(shop.lab.get("/api/x")) for _ in range(2)]
            await until(lambda: len(shop.instances[0].requests) == 1)
            shop.use(1, 2)
            assert set(await shop.bodies(6)) == {b"1", b"2"}
            release.set()
            assert sorted([(await each).body for each in asked]) == [b"1", b"slow"]
            await until(lambda: not shop.instances[0].open)
            assert len(shop.instances[0].requests) == 1

    run(main())


def test_one_that_comes_back_takes_its_share_by_and_by() -> None:
    async def main() -> None:
        async with several(more="health: {path: /health, slow_start: 600000}") as shop:
            at = [["127.0.0.1", instance.port] for instance in shop.instances]
            assert sorted(await shop.bodies(4)) == [b"0", b"0", b"1", b"1"]  # at the beginning all take part
            shop.lab.plane.members_came({"catalog": {"at": at, "down": at[:1]}})
            assert set(await shop.bodies(6)) == {b"1"}
            shop.lab.plane.members_came({"catalog": {"at": at, "down": []}})
            shop.lab.plane.members_came(
                {"catalog": {"at": at, "down": []}}
            )  # said twice, nothing begins anew
            bodies = await shop.bodies(200)
            assert 1 <= bodies.count(b"0") <= 30  # a tenth of its turns, which are half of all
            report = shop.lab.plane.report_members()["catalog"]
            assert [instance["pending"] for instance in report] == [0, 0]
            assert sum(instance["requests"] for instance in report) == 210

    run(main())


def test_a_tester_is_not_held_up_by_breakers() -> None:
    async def main() -> None:
        breaker = "breaker: {consecutive: 5, pause: 60000, longest_pause: 60000}"
        override = "overrides: {header: X-Strangler-Side}"
        async with several(more=breaker, group=override) as shop:
            for instance in shop.instances:
                instance.script = reply(status=b"500 No")
            for _ in range(12):
                assert (await shop.lab.get("/api/x")).body == b"monolith"
            assert shop.lab.breakers == [("catalog", BreakerState.OPEN)]
            assert (await shop.lab.get("/api/x", "X-Strangler-Side: canary")).status == 500

    run(main())


def test_a_deadline_that_has_passed_asks_no_other_instance() -> None:
    async def main() -> None:
        async with several(2, fallback="false", group="timeouts: {total: 150, read: 5000}") as shop:
            for instance in shop.instances:
                instance.script = hang
            assert (await shop.lab.get("/api/x")).status == 504
            assert sum(len(instance.requests) for instance in shop.instances) == 1

    run(main())


def test_a_request_ends_well_whose_backend_leaves_the_routes_meanwhile() -> None:
    async def main() -> None:
        async with several(2, fallback="false") as shop:
            for instance in shop.instances:
                instance.script = hang
            going = asyncio.ensure_future(shop.lab.get("/api/x"))
            await until(lambda: any(instance.requests for instance in shop.instances))
            asked = next(instance for instance in shop.instances if instance.requests)
            (other,) = (instance for instance in shop.instances if instance is not asked)
            other.script = reply(b"other")
            shop.lab.use()  # the backend has one URL now
            await asked.stop()
            answer = await asyncio.wait_for(going, 3)
            assert (answer.status, answer.body) == (200, b"other")
            assert not shop.lab.plane.active

    run(main())
