"""Shadow in the Envoy engine: safe requests mirrored to the other side: marked, bounded, no evidence of anything."""

from pathlib import Path

from tests.integration.test_envoy_engine import counted, started
from tests.proxy_lab import Message, anonymous, hang, raw, reply, run, until, until_true

MARK = b"x-strangler-shadow"


def marked(requests: list[Message]) -> int:
    return sum(bool(request.all(MARK)) for request in requests)


def test_safe_requests_are_mirrored_with_the_mark_and_others_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=0, group="shadow: {percent: 100}") as it:
            for number in range(20):
                answer = await it.ask(f"/api/{number}", anonymous(f"v{number}"), "X-Strangler-Shadow: 1")
                assert answer.body == b"monolith"
            await until(lambda: marked(it.catalog.requests) == 20)
            assert marked(it.monolith.requests) == 0, "a client cannot mark its request"
            mirrored = it.catalog.requests[0]
            assert mirrored.get(b"host") == b"shop.test"
            assert mirrored.get(b"cookie")
            for headers, method in (
                (("Content-Length: 0",), "POST"),
                (("Content-Length: 0",), "DELETE"),
                ((), "OPTIONS"),
                (("If-None-Match: x",), "GET"),
                (("Range: bytes=0-1",), "GET"),
            ):
                await it.ask("/api/x", *headers, method=method)
            await it.ask("/else")
            await it.ask("/api/last")  # a mirror of it comes after any of those before
            await until(lambda: any(request.target == b"/api/last" for request in it.catalog.requests))
            assert marked(it.catalog.requests) == len(it.catalog.requests) == 21
            it.write(percent=100, group="shadow: {percent: 100}")
            await it.admin.post("/admin/reload")
            before = len(it.monolith.requests)
            assert (await it.ask("/api/x")).body == b"catalog"
            await until(lambda: len(it.monolith.requests) == before + 1)
            assert marked(it.monolith.requests) == 1

    run(main())


def test_share_is_drawn_and_a_failing_or_silent_candidate_is_nobodys_problem(tmp_path: Path) -> None:
    async def main() -> None:
        group = "shadow: {percent: 25, timeout: 300, concurrency: 2}"
        async with started(tmp_path, percent=0, group=group) as it:
            client = await it.connect()
            for number in range(400):
                assert (await client.get(f"/api/{number}")).body == b"monolith"
            await until(lambda: len(it.catalog.requests) > 50)
            assert 50 < len(it.catalog.requests) < 150  # 100 expected, five standard deviations are 43
            it.write(percent=0, group="shadow: {percent: 100, timeout: 300, concurrency: 2}")
            await it.admin.post("/admin/reload")
            it.catalog.script = raw(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")
            for number in range(30):
                assert (await client.get(f"/api/{number}")).body == b"monolith"
            it.catalog.script = hang
            for number in range(30):
                assert (await client.get(f"/api/{number}")).body == b"monolith"
            await counted(it, "control", requests=460, errors=0)
            assert (await it.outcomes()).get("canary", {"requests": 0})["requests"] == 0
            assert (await it.status())["backends"]["catalog"]["breaker"] == "closed"
            it.catalog.script = reply(b"catalog")
            seen = len(it.catalog.requests)

            async def mirrored_again() -> bool:
                assert (await client.get("/api/again")).body == b"monolith"
                return len(it.catalog.requests) > seen

            await until_true(mirrored_again)  # what hung has been given up: both places were taken
            client.close()

    run(main())
